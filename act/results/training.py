"""`prune.json` and `qat.json`: what pruning and training did to the model."""

from pydantic import Field

from act.results.artifact import Artifact, Part


class TrainingPoint(Part):
    """One evaluation while training goes on; the start is step 0, without a loss."""

    epoch: int
    step: int
    loss: float | None  # mean since the evaluation before
    quality: float


class ComparedPart(Part):
    """What was compared with a teacher."""

    loss: str  # by its name in ACT
    node: list[str]  # variables of the student
    teacher_node: list[str]
    alpha: float  # weight of this part
    teacher: int  # its number


class Training(Artifact):
    """Whether and how the quantized model was trained, and what that gave."""

    needed: bool  # whether it was done
    why: str
    start: str | None = None  # the candidate that it started from
    candidate: str | None = None  # name of the trained one; None where it is no better
    quality_before: float | None = None
    quality_after: float | None = None
    distillation: list[ComparedPart] = Field(default_factory=list)  # what was compared with the teachers
    history: list[TrainingPoint] = Field(default_factory=list)


class PrunedLayer(Part):
    """What is left of a layer: channels, heads, or values of its weight."""

    name: str
    kind: str | None = None  # of coupled units, such as `heads`
    weight: str | None = None  # whose values count
    kept: int
    of: int
    ratio: float  # share that went
    together: list[str] = Field(default_factory=list)  # layers that lose the same channels
    note: str | None = None  # how it was judged, where that is not as asked for
    why: str | None = None  # the reason that it was left alone


class PruningStep(Part):
    """One strategy of ACT, with the quality on the engine before it, before training, and after training."""

    name: str
    why: str
    layers: list[PrunedLayer]
    measured_speedup: float | None  # before training, where it was measured
    quality_before: float
    quality_pruned: float | None  # None where zeros come while training goes on
    quality_after: float = 0.0
    training: str = ""  # how training ended
    distillation: list[ComparedPart] = Field(default_factory=list)  # what was compared with the teachers
    history: list[TrainingPoint] = Field(default_factory=list)


class Sparsity(Part):
    """Zeros in a weight: their share, and the pattern (`2:4`) where there is one."""

    zeros: float
    pattern: str | None


class Counts(Part):
    """Parameters of the prepared model and of the pruned one."""

    before: int
    after: int


class Qualities(Part):
    """Quality of the prepared model and of the pruned one."""

    before: float
    after: float

    @property
    def lost(self) -> float:
        """Return how much quality went."""
        return self.before - self.after


class Pruning(Artifact):
    pruned: bool
    why: str  # of the strategy, or why nothing was pruned
    steps: list[PruningStep] = Field(default_factory=list)
    sparse: dict[str, Sparsity] = Field(default_factory=dict)  # by weight
    macs: dict[str, int] | None = None  # MACs of each layer of the pruned model
    kept_multiply_adds: float = 1.0  # share of all MACs that is left
    parameters: Counts | None = None  # None where nothing was pruned, as the quality
    quality: Qualities | None = None
