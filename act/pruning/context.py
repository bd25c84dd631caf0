"""The input and the result that all ways of pruning share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from act.program.model import InferenceModel
from act.pruning.groups import Group
from act.results.prune import PrunedLayer
from act.samples.dataset import Array, Samples


@dataclass(frozen=True)
class Context:
    """The input of a way of pruning.

    Attributes:
        samples: for calibration, unlabelled.
        batch_norms: gamma of the batch norm that was folded into a layer, by the name of its weight; may be empty.
        speedup: measures how many times as fast a smaller model is as the whole one; None where it cannot be measured.
        first_share: of the MACs, with which the search for a speed-up begins; None where nothing is predicted.
    """

    samples: Samples
    batch_norms: Mapping[str, Array] = field(default_factory=dict)
    speedup: Callable[[InferenceModel], float] | None = None
    first_share: float | None = None
    seed: int = 0

    def one_sample(self) -> Mapping[str, Array]:
        """Return a batch of one sample."""
        return next(self.samples.head(1).batches(1))


def load_batch_norms(path: Path) -> dict[str, Array]:
    """Return the batch norms that `prepare` noted when it folded them, by weight; none where there is no such file."""
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


@dataclass
class Pruned:
    """A model with less in it.

    Attributes:
        model: the pruned one; what was given is not changed.
        why: one sentence.
        layers: for the report; those that were left alone say why.
        masks: by weight where it may be other than zero, bool in its shape; empty where nothing need stay sparse.
        speedup: over the given model in fp32, where it was measured.
    """

    model: InferenceModel
    why: str
    layers: list[PrunedLayer] = field(default_factory=list)
    masks: dict[str, Array] = field(default_factory=dict)
    speedup: float | None = None


def describe_group(
    group: Group, gone: int, kind: str | None = None, note: str | None = None, why: str | None = None
) -> PrunedLayer:
    """Return what is left of a group whose units went, for the report."""
    kept, of = group.count - gone, group.count
    together = [name for name, _ in group.outputs if name != group.name]
    ratio = gone / of
    return PrunedLayer(name=group.name, kind=kind, kept=kept, of=of, ratio=ratio, together=together, note=note, why=why)
