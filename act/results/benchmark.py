"""`measurements.json`: one row a variant, with its figures or its failure, and how noisy the machine was.

An interval is of 95 % confidence. Speed-up and drop compare with the reference: the user's own file on the engine that
runs it fastest, or our fp32 form of it where no engine of the target loads that.
"""

from pydantic import ConfigDict, Field, JsonValue

from act.results.artifact import Artifact, Part
from act.results.export import ExecutedOperators, Failure
from act.results.machine import Machine

GIVEN = "given"
"""The name of the variant that is the user's own file."""


class Interval(Part):
    value: float
    low: float
    high: float


class Latency(Part):
    median_ms: float  # the latency that counts, of a round that nothing disturbed
    p10_ms: float  # percentiles of all runs
    p90_ms: float
    mad_ms: float  # median absolute deviation from the median
    iqr_ms: float  # between the quartiles
    runs: int


class WarmUp(Part):
    """Inferences before anything counts; `steady` tells whether the latency became so."""

    runs: int
    seconds: float
    first_ms: float
    steady: bool


class Throughput(Part):
    """Samples a second with several streams: the median of a few turns, or why there is no such figure."""

    streams: int
    per_second: float | None
    slowest: float | None
    fastest: float | None
    failure: Failure | None


class ShapeFigures(Part):
    """Latency on inputs of one shape, batch axis first, or why there is none."""

    inputs: dict[str, list[int]]
    latency: Latency | None
    speedup: Interval | None
    failure: Failure | None


class KernelGroup(Part):
    kind: str
    precision: str
    count: int
    ms: float  # in one inference


class MeasuredQuality(Part):
    """The figure that counts, and further ones beside it by name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float] = Field(init=False)

    value: float
    interval: Interval | None = None  # what it would be on other samples; None where that is not known
    notes: dict[str, str] = Field(default_factory=dict)  # what figures beside it are of, by their names

    @property
    def beside(self) -> dict[str, float]:
        """Return the further figures."""
        return self.__pydantic_extra__


class Figures(Part):
    version: str | None  # of the engine, when it is known
    description: dict[str, JsonValue]  # what the engine told about the loaded model
    load_seconds: float  # from files to ready
    failure: None = None
    latency: Latency
    speedup: Interval | None
    warm_up: WarmUp
    peak_rss_bytes: int  # largest resident memory
    throughput: Throughput | None  # None where none was asked for
    shapes: list[ShapeFigures]  # every input shape that was measured, the one that `latency` is of first
    operators: ExecutedOperators
    kernels: list[KernelGroup]  # where the time of an inference goes; empty where the engine does not tell


class NoFigures(Part):
    """Why nothing was measured of a model."""

    version: str | None
    description: dict[str, JsonValue]
    load_seconds: float | None
    failure: Failure
    latency: None = None
    speedup: None = None
    warm_up: None = None
    peak_rss_bytes: None = None
    throughput: None = None
    shapes: None = None
    operators: None = None
    kernels: None = None


class Variant(Part):
    """One way to run one candidate of the export stage on one engine."""

    engine: str
    name: str  # unique within the engine, such as `int8-ptq+bf16`
    candidate: str
    precision: str  # how it runs
    bytes: int | None  # size of the files
    path: str | None  # the file or folder that was loaded
    is_reference: bool = False  # what all others are compared with

    @property
    def is_given(self) -> bool:
        """Tell whether it is the user's own file."""
        return self.name == GIVEN

    @property
    def key(self) -> str:
        """Return `engine/name`, unique within a job."""
        return f"{self.engine}/{self.name}"


class RanVariant(Figures, Variant):
    """A variant with its figures; `drop` is the quality lost against the reference."""

    quality: MeasuredQuality
    drop: Interval | None


class FailedVariant(NoFigures, Variant):
    """A variant that could not be measured."""

    quality: None = None
    drop: None = None


class Noise(Part):
    noisy: bool
    cause: str | None  # None where it was quiet
    limit: float  # of the unsteadiness
    unsteadiness: float  # how much the models moved that others are compared with, between rounds; `by_engine` for each
    by_engine: dict[str, float]
    cores_used_by_others: float  # mean number of processor cores


class Measurements(Artifact):
    """All variants by engine, the given file and fp32 first; `target` and `benchmark` are the settings of the job."""

    job: str
    metric: str | dict[str, JsonValue]
    target: dict[str, JsonValue]
    benchmark: dict[str, JsonValue]
    measured_at: str
    evaluation_samples: int
    machine: Machine
    noise: Noise
    variants: list[RanVariant | FailedVariant]


class InferModel(Part):
    """One row of `infer`: a model file on one engine."""

    model: str
    engine: str
    precision: str
    quantized: bool
    bytes: int
    note: str | None


class InferRan(Figures, InferModel):
    """A row with its figures."""


class InferFailed(NoFigures, InferModel):
    """A row that could not be measured."""


class InferFigures(Artifact):
    """What `infer` measured; `compared_with` is the index of the row that speed-ups compare with."""

    settings: dict[str, JsonValue]
    measured_at: str
    machine: Machine
    compared_with: int | None
    noise: Noise
    models: list[InferRan | InferFailed]
