"""The input and the result that all ways of pruning share."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from act.errors import InputError
from act.program.model import InferenceModel
from act.results.training import PrunedLayer
from act.samples.dataset import Array, Samples


@dataclass(frozen=True)
class Context:
    """The input of a way of pruning."""

    samples: Samples
    batch_norms: Mapping[str, Array] = field(default_factory=dict)  # gamma of what was folded into a layer, by weight
    # Measures how many times as fast a smaller model is as the whole one; None where it cannot be measured.
    speedup: Callable[[InferenceModel], float] | None = None
    first_share: float | None = None  # of the MACs, with which the search for a speed-up begins, where it is predicted
    seed: int = 0

    def one_sample(self) -> Mapping[str, Array]:
        """Return a batch of one sample."""
        return next(self.samples.head(1).batches(1))


@dataclass
class Pruned:
    """A model with less in it."""

    model: InferenceModel
    why: str  # one sentence
    layers: list[PrunedLayer] = field(default_factory=list)  # for the report; those that were left alone say why
    masks: dict[str, Array] = field(default_factory=dict)  # by weight that must stay sparse: bool, where it is not zero
    speedup: float | None = None  # over the given model in fp32, where it was measured


def refuse_unknown(names: Sequence[str], known: Sequence[str], key: str) -> None:
    """Raise an InputError where a weight is not known; it names the weight, the settings' key, and what is near."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 3, 0) or list(known[:3])
            raise InputError(
                f"`{key}`: `{name}` is no weight that can be pruned; there are: {', '.join(near) or 'none'}"
                + (f" and {len(known) - len(near)} more" if len(known) > len(near) else "")
            )
