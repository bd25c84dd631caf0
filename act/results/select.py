"""`strategy.json`, `options.json` and `attempts/JOB.json`: the chosen strategy, its rivals, and what was tried."""

from __future__ import annotations

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
    """What the strategy decided for the stage `prune`."""

    channel: ChannelAim
    timed: SpeedupSearch | None = None


class StageSettings(Part):
    """What the strategy decided for later stages, where the job leaves it open."""

    prune: PruneSettings | None = None


class Strategy(Artifact):
    """The strategy. It holds no measured figure, so that later stages stay cached when something is measured anew.

    Attributes:
        strategy: in order.
        prune: names of those that prune, in order.
        quantize: whether int8 is made.
        search: whether several settings of post-training quantization are tried.
        train: whether int8 is trained where the budget is missed.
        train_always: and where it is not.
        precisions: worth measuring, by engine.
        why: one sentence on the whole.
    """

    strategy: list[StrategyPart]
    prune: list[str]
    quantize: bool
    search: bool
    train: bool
    train_always: bool
    settings: StageSettings = StageSettings()
    precisions: dict[str, list[StrategyPart]] = Field(default_factory=dict)
    why: str


class Attempt(Part):
    """One strategy, carried out.

    Attributes:
        key: of the option.
        share: of the MACs that pruning really left.
        quantized: whether int8 was made.
        predicted: speed-up of the fastest variant.
        fastest: measured speed-up of the fastest variant, whatever its quality.
        lost: quality that this one lost.
        kept: measured speed-up of the fastest variant that lost no more quality than it may, fast enough or not.
        speedup, drop, latency_ms: of the winner.
        met: whether the winner meets the budget.
        minutes: that the stages took.
        timed: speed-up that was measured of what was pruned, before it was trained; 0 where none was.
        pruned_lost: quality that pruning alone lost, after training, before anything was quantized.
    """

    key: str
    share: float
    quantized: bool
    predicted: float
    fastest: float
    lost: float
    speedup: float
    drop: float
    latency_ms: float
    met: bool
    minutes: float
    strategy: Strategy
    timed: float = 0.0
    pruned_lost: float = 0.0
    kept: float = 1.0


class Attempts(Artifact):
    """What was tried for a job, first first.

    Attributes:
        of: fingerprint of the model and the settings that the attempts hold for.
    """

    of: str
    attempts: list[Attempt]


class Option(Part):
    """A strategy that could meet the budget, and what is predicted of it.

    Attributes:
        key: what tells it from others.
        engine, precision: the fastest, as predicted.
        latency_ms: there, with the ends of the error bar.
        speedup: over fp32 on the same engine.
        bytes: of the weights, about.
        minutes: that it is expected to take.
    """

    key: str
    strategy: list[str]
    settings: StageSettings
    engine: str
    precision: str
    latency_ms: float
    latency_low_ms: float
    latency_high_ms: float
    speedup: float
    bytes: int
    minutes: float
    why: str


class Options(Artifact):
    """What the strategy was chosen from, in the order to try; empty where the user fixed it.

    Attributes:
        chosen: key of an option or of an attempt.
        verdict: what was decided, in a sentence.
        reachable: whether the budget was met, or is predicted to be met by what is tried.
        open: whether another try could follow.
        source: where the predictions come from.
        of: fingerprint of the model and the settings that attempts are kept under.
    """

    options: list[Option] = Field(default_factory=list)
    chosen: str | None = None
    predicted_speedup: float | None = None
    verdict: str = ""
    wanted_speedup: float = 1.0
    reachable: bool = True
    open: bool = False
    attempts: list[Attempt] = Field(default_factory=list)
    source: str = ""
    of: str = ""
