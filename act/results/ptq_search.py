"""`trials.json` and `candidates.json`: what the search over post-training quantization tried and found."""

from __future__ import annotations

from pydantic import Field

from act.results.artifact import Artifact, Part


class TrialSettings(Part):
    """The settings of a trial, with ACT's names."""

    ptq_algo: str
    hist_percent: float | None
    batch_num: int
    activation_symmetric: bool
    weight_quantize_type: str
    bias_correct: bool
    quantizable_op_type: list[str]
    float_layers: int


class Trial(Part):
    """One trial.

    Attributes:
        quality, drop: None where the engine failed; of a trial that was given up early, an estimate.
        beside: further figures of quality.
        cost: expected of the model on the target, 1 being fp32.
        samples: how many were run.
        failure: why there is no quality.
    """

    id: int
    settings: TrialSettings
    quality: float | None
    beside: dict[str, float]
    drop: float | None
    cost: float
    samples: int
    failure: str | None
    seconds: float


class LayerSensitivity(Part):
    """How far the outputs move when one layer alone is quantized: 1 - mean cosine similarity to the fp32 outputs."""

    layer: str
    op_type: str
    error: float


class Reference(Part):
    """The fp32 model, as the engine of the search measured it."""

    engine: str
    quality: float
    beside: dict[str, float] = Field(default_factory=dict)


class Trials(Artifact):
    """All that the search found, for the report.

    Attributes:
        why: nothing was searched.
        front: numbers of the trials on the Pareto front of quality and cost.
        sensitivity: most sensitive layer first.
        importance: of each setting for the quality, as the sampler learned it.
    """

    why: str | None = None
    reference: Reference | None = None
    trials: list[Trial] = Field(default_factory=list)
    front: list[int] = Field(default_factory=list)
    sensitivity: list[LayerSensitivity] = Field(default_factory=list)
    importance: dict[str, float] = Field(default_factory=dict)


class Candidate(Part):
    """A quantized model that later stages may take on, as a scheme; nothing of it was measured by a clock.

    Attributes:
        id: unique within the job.
        scheme: file of its scheme, below the folder of the stage.
        trial: number of the trial that it comes from.
        drop: quality lost against fp32.
        cost: as expected, 1 being fp32.
        symmetric: whether no activation has a zero point.
        layers: number of quantized layers.
        refined: methods that made it better.
    """

    id: str
    scheme: str
    trial: int
    settings: TrialSettings
    quality: float
    drop: float
    cost: float
    symmetric: bool
    layers: int
    refined: list[str] = Field(default_factory=list)


class Candidates(Artifact):
    """The candidates of `ptq_search`, and as `refine` left them; best quality first."""

    why: str | None = None
    reference: Reference | None = None
    candidates: list[Candidate] = Field(default_factory=list)
