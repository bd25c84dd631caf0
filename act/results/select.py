"""`strategy.json`, `options.json` and `attempts/JOB.json`: the chosen strategy, its rivals, and what was tried."""

from pydantic import Field

from act.results.artifact import Artifact, Part


class StrategyPart(Part):
    """A strategy of ACT, or a precision, and the reason for it."""

    name: str
    why: str


class ChannelAim(Part):
    """How many channels go: a share of the MACs to keep, or a speed-up to reach."""

    kept_multiply_adds: float | None = None
    target_speedup: float | None = None


class SpeedupSearch(Part):
    """Where a pruned model is timed, and the share of the MACs that the search for a speed-up begins with."""

    engine: str
    precisions: list[str]
    kept_multiply_adds: float


class PruneSettings(Part):
    channel: ChannelAim
    timed: SpeedupSearch | None = None


class StageSettings(Part):
    """What the strategy decided for later stages, where the job leaves it open."""

    prune: PruneSettings | None = None


class Strategy(Artifact):
    """The strategy. It holds no measured figure, so that later stages stay cached when something is measured anew."""

    strategy: list[StrategyPart]
    prune: list[str]  # names of those that prune, in order
    quantize: bool
    search: bool  # whether several settings of post-training quantization are tried
    train: bool  # whether int8 is trained where the budget is missed
    train_always: bool  # and where it is not
    settings: StageSettings = StageSettings()
    precisions: dict[str, list[StrategyPart]] = Field(default_factory=dict)  # worth measuring, by engine
    engine: str | None = None  # that candidates are searched on; None where none of the target can be used here
    # By engine the layers that it computes wrongly in int8; engines that are right have no entry.
    in_float: dict[str, list[str]] = Field(default_factory=dict)
    why: str


class Attempt(Part):
    key: str  # of the option
    share: float  # of the MACs that pruning really left
    quantized: bool  # whether int8 was made
    predicted: float  # speed-up of the fastest variant
    fastest: float  # measured speed-up of the fastest variant, whatever its quality
    lost: float  # quality that this one lost
    speedup: float  # of the winner, as the next two
    drop: float
    latency_ms: float
    met: bool  # whether the winner meets the budget
    minutes: float  # that the stages took
    strategy: Strategy
    timed: float = 0.0  # speed-up that was measured of what was pruned, before it was trained; 0 where none was
    pruned_lost: float = 0.0  # quality that pruning alone lost, after training, before anything was quantized
    kept: float = 1.0  # measured speed-up of the fastest variant that lost no more quality than it may


class Attempts(Artifact):
    """What was tried for a job, first first."""

    of: str  # fingerprint of the model and the settings that the attempts hold for
    attempts: list[Attempt]


class Option(Part):
    """A strategy that could meet the budget, and what is predicted of it."""

    key: str  # what tells it from others
    strategy: list[str]
    settings: StageSettings
    engine: str  # the fastest, as predicted
    precision: str
    latency_ms: float  # there, with the ends of the error bar
    latency_low_ms: float
    latency_high_ms: float
    speedup: float  # over fp32 on the same engine
    bytes: int  # of the weights, about
    minutes: float  # that it is expected to take
    why: str


class Options(Artifact):
    """What the strategy was chosen from, in the order to try; empty where the user fixed it."""

    options: list[Option] = Field(default_factory=list)
    chosen: str | None = None  # key of an option or of an attempt
    predicted_speedup: float | None = None
    verdict: str = ""  # what was decided, in a sentence
    wanted_speedup: float = 1.0
    reachable: bool = True  # whether the budget was met, or is predicted to be met by what is tried
    open: bool = False  # whether another try could follow
    attempts: list[Attempt] = Field(default_factory=list)
    source: str = ""  # where the predictions come from
    of: str = ""  # fingerprint of the model and the settings that attempts are kept under
