"""Results of the search over post-training quantization and of what follows: refinement, and the choice of candidates.

`trials.json`, `candidates.json`, `refine.json` and `plan.json`.
"""

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
    quantizable_op_type: tuple[str, ...]
    float_layers: int
    smooth_strength: float | None = None  # SmoothQuant's alpha; None where no activation is smoothed


class Trial(Part):
    id: int
    settings: TrialSettings
    quality: float | None  # None where the engine failed; an estimate where the trial was given up early
    beside: dict[str, float]  # further figures of quality
    drop: float | None
    cost: float  # expected of the model on the target, 1 being fp32
    samples: int  # how many were run
    failure: str | None  # why there is no quality
    seconds: float


class LayerSensitivity(Part):
    """How far the outputs move when one layer alone is quantized: 1 - similarity to the fp32 outputs."""

    layer: str
    op_type: str
    error: float


class Reference(Part):
    """The fp32 model, as the engine of the search measured it; the user's own where that is quantized already."""

    engine: str
    quality: float
    beside: dict[str, float] = Field(default_factory=dict)
    called: str = "fp32"  # for people


class Trials(Artifact):
    why: str | None = None  # nothing was searched
    reference: Reference | None = None
    trials: list[Trial] = Field(default_factory=list)
    front: list[int] = Field(default_factory=list)  # numbers of the trials on the Pareto front of quality and cost
    sensitivity: list[LayerSensitivity] = Field(default_factory=list)  # most sensitive layer first
    importance: dict[str, float] = Field(default_factory=dict)  # of each setting for the quality, as learned


class Candidate(Part):
    """A quantized model that later stages may take on, as a scheme; nothing of it was measured by a clock."""

    id: str  # unique within the job
    scheme: str  # file of its scheme, below the folder of the stage
    trial: int | None  # number of the trial that it comes from; None where the user's own model is quantized like this
    settings: TrialSettings | None  # None likewise
    quality: float
    drop: float  # quality lost against fp32
    cost: float  # as expected, 1 being fp32
    symmetric: bool  # whether no activation has a zero point
    layers: int  # number of quantized layers
    refined: list[str] = Field(default_factory=list)  # methods that made it better

    @property
    def is_given(self) -> bool:
        """Tell whether it is the quantization that the user's own model came with."""
        return self.settings is None

    @property
    def smooth_strength(self) -> float | None:
        """Return the strength of smoothing of the model that it quantizes; None where that is not smoothed."""
        return self.settings.smooth_strength if self.settings is not None else None


class Candidates(Artifact):
    """The candidates of `ptq_search`, and as `refine` left them; best quality first."""

    why: str | None = None
    reference: Reference | None = None
    candidates: list[Candidate] = Field(default_factory=list)


class Attempt(Part):
    """One method to make a candidate of the search better."""

    candidate: str  # its id before
    method: str
    quality_before: float
    quality: float | None  # None where the method failed
    kept: bool  # whether the quality rose
    failure: str | None


class Refinements(Artifact):
    attempts: list[Attempt]


class Plan(Artifact):
    """The decision between refinement and training; without figures, so that a changed budget alone redoes nothing."""

    keep: list[str]  # candidates of `refine` that are worth exporting
    train: bool  # whether training is done
    start: str | None  # the candidate that training starts from
