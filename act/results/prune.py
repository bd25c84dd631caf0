"""`prune.json`: what was cut out of the model, and what that did to its quality."""

from __future__ import annotations

from pydantic import Field

from act.results.artifact import Artifact, Part
from act.results.training import ComparedPart, TrainingPoint


class PrunedLayer(Part):
    """What is left of a layer: channels, heads, or values of its weight.

    Attributes:
        kind: of coupled units, such as `heads`.
        weight: whose values count.
        ratio: share that went.
        together: layers that lose the same channels.
        note: how it was judged, where that is not as asked for.
        why: the reason that it was left alone.
    """

    name: str
    kind: str | None = None
    weight: str | None = None
    kept: int
    of: int
    ratio: float
    together: list[str] = Field(default_factory=list)
    note: str | None = None
    why: str | None = None


class PruningStep(Part):
    """One strategy of ACT, with the quality on the engine before it, before training, and after training.

    Attributes:
        measured_speedup: before training, where it was measured.
        quality_pruned: None where zeros come while training goes on.
        training: how training ended.
        distillation: what was compared with the teachers.
    """

    name: str
    why: str
    layers: list[PrunedLayer]
    measured_speedup: float | None
    quality_before: float
    quality_pruned: float | None
    quality_after: float = 0.0
    training: str = ""
    distillation: list[ComparedPart] = Field(default_factory=list)
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
    """What the stage did; where nothing was pruned, the reason.

    Attributes:
        sparse: by weight.
        macs: MACs of each layer of the pruned model.
        kept_multiply_adds: share of all MACs that is left.
        parameters, quality: None where nothing was pruned.
    """

    pruned: bool
    why: str
    steps: list[PruningStep] = Field(default_factory=list)
    sparse: dict[str, Sparsity] = Field(default_factory=dict)
    macs: dict[str, int] | None = None
    kept_multiply_adds: float = 1.0
    parameters: Counts | None = None
    quality: Qualities | None = None
