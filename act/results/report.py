"""`manifest.json`, `report.json` and `metrics.json`: the user's result, for people's scripts and for DVC."""

from pydantic import ConfigDict, Field, JsonValue

from act.results.analyze import Analysis
from act.results.artifact import Artifact, Part
from act.results.benchmark import FailedVariant, Interval, Noise, RanVariant
from act.results.export import FloatLayer
from act.results.machine import Machine
from act.results.ptq_search import Refinements, Trials
from act.results.select import Options, Strategy
from act.results.training import Pruning, Training


class DeployedFile(Part):
    bytes: int
    sha256: str


class Winner(Part):
    """What won, with its figures beside those of the reference."""

    engine: str
    engine_version: str | None
    name: str
    candidate: str
    precision: str
    files: list[str]  # in the deploy folder
    latency_ms: float
    p90_ms: float
    samples_per_second: float | None  # None where throughput was not measured, as `streams`
    streams: int | None
    peak_rss_bytes: int
    load_seconds: float
    reference: str  # `engine/name` of what it is compared with: the user's own file, where an engine loads it
    reference_latency_ms: float
    speedup: Interval | None
    quality: float
    reference_quality: float
    drop: Interval | None
    how_to_load: str  # Python lines that run it the way it was measured


class JudgedBudget(Part):
    """The budget, and whether the winner meets it; the reference wins with less where nothing does."""

    max_quality_drop: float
    min_worst_part: float | None = None
    min_speedup: float
    max_latency_ms: float | None
    time_limit_minutes: float | None
    met: bool


class JudgedVariant(RanVariant):
    """A variant that ran, and what it misses of the budget."""

    inside_budget: bool
    misses: list[str]


class RefusedVariant(FailedVariant):
    """A variant that did not run, which misses the budget by that."""

    inside_budget: bool
    misses: list[str]


class DeployedTail(Part):
    """What stands behind the layers as it was, and what became of it on each engine of the target."""

    operators: list[str]
    engines: dict[str, str]  # "in its file", or why it is not, or does not run


class _Told(Artifact):
    job: str
    measured_at: str
    winner: Winner
    why: str
    compressed: bool  # whether something else than the reference won
    budget: JudgedBudget
    deployed_candidate: str  # whose files stand at the top of the deploy folder
    metric: str | dict[str, JsonValue]
    settings: dict[str, JsonValue]  # of the job
    machine: Machine
    noise: Noise
    variants: list[JudgedVariant | RefusedVariant]
    tail: DeployedTail | None = None


class Manifest(_Told):
    files: dict[str, DeployedFile]


class Report(_Told):
    left_in_float: dict[str, list[FloatLayer]]
    search: Trials
    refined: Refinements
    training: Training
    pruning: Pruning
    analysis: Analysis
    strategy: Strategy
    options: Options


class Metrics(Artifact):
    """The winner's figures, then each variant's as `engine/name/figure`."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float] = Field(init=False)

    winner: str
    winner_engine: str
    winner_precision: str
    latency_ms: float
    reference_latency_ms: float
    speedup: float
    quality: float
    reference_quality: float
    drop: float
    bytes: int | None
