"""What every way of pruning is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from act.program.model import InferenceModel
from act.samples.dataset import Array, Samples


@dataclass(frozen=True)
class Context:
    """What a way of pruning may ask for.

    Attributes:
        samples: for calibration, unlabelled.
        batch_norms: gamma of the batch norm that was folded into a layer, by the name of its weight; may be empty.
        speedup: measures how many times as fast a smaller model is as the whole one; None where it cannot be measured.
        first_share: of the MACs, with which the search for a speed-up begins; None where nothing is predicted.
        seed: of random numbers.
    """

    samples: Samples
    batch_norms: Mapping[str, Array] = field(default_factory=dict)
    speedup: Callable[[InferenceModel], float] | None = None
    first_share: float | None = None
    seed: int = 0


@dataclass
class Pruned:
    """A model with less in it.

    Attributes:
        model: the pruned one; what was given is not changed.
        why: one sentence.
        layers: for the report, for each layer `name`, `kept`, `of`, `ratio`, and `why` where it was left alone.
        masks: by weight where it may be other than zero, bool in its shape; empty where nothing need stay sparse.
        speedup: over the given model in fp32, where it was measured.
    """

    model: InferenceModel
    why: str
    layers: list[dict[str, Any]] = field(default_factory=list)
    masks: dict[str, Array] = field(default_factory=dict)
    speedup: float | None = None
