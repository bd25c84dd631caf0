"""Where a model is cut: behind its last layers, ahead of what cannot be trained, quantized or read.

The graph is one of names, so that ONNX files and Paddle programs are cut by one rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

SMALLEST_LAYER = 64
"""Values of a weight from which on an operator counts as a layer; decoding multiplies by smaller matrices."""


@dataclass(frozen=True)
class Operator:
    """One operator, in an order in which all can run.

    Attributes:
        reads: names of tensors, constants and weights included.
        is_layer: it multiplies an activation by a weight of some size.
        stays: it has no gradient, shapes that hang on its data, or no form in Paddle.
    """

    reads: tuple[str, ...]
    makes: tuple[str, ...]
    is_layer: bool
    stays: bool


@dataclass(frozen=True)
class Cut:
    """A model in two parts.

    Attributes:
        outputs: of the body: first those of the model that are made there, then the tensors that the tail reads.
        tail: numbers of the operators behind them, in order; what is cheap may be in both parts.
    """

    outputs: list[str]
    tail: list[int]


def find_cut(
    operators: Sequence[Operator], inputs: Iterable[str], outputs: Sequence[str], fits: Callable[[str], bool]
) -> Cut | None:
    """Return where a model is cut; None where nothing stays behind its last layers.

    1. An operator that stays goes to the tail, with all that reads what it makes, unless a layer is behind it, or none
       before it: such a one is left to whoever reads the model.
    2. What makes an output that does not fit, or what the tail reads and does not fit, goes there too, back to tensors
       that do, to the model's inputs, or to a layer.

    Args:
        fits: tells whether a tensor can be an output of the body: of real numbers, the batch first.
    """
    producers = {name: number for number, op in enumerate(operators) for name in op.makes}
    fed, behind_layers = _reached(operators, inputs)
    tail = _last_that_stay(operators, behind_layers, _reaching_layers(operators, fed))
    made = {name for number in tail for name in operators[number].makes}

    def is_moved(name: str) -> bool:
        """Tell whether what makes a tensor goes to the tail because that cannot be an output of the body."""
        number = producers.get(name)
        is_layer = number is None or operators[number].is_layer
        return name in behind_layers and not is_layer and not fits(name)

    moved = [name for name in outputs if name not in made and is_moved(name)]
    read: dict[str, None] = {}
    waiting = [*moved, *(name for number in sorted(tail) for name in operators[number].reads)]
    for name in waiting:
        place = producers.get(name)
        if place is None or place in tail:
            continue
        if name not in behind_layers or is_moved(name):
            tail.add(place)
            waiting += operators[place].reads
        else:
            read[name] = None
    if not read:
        return None
    own = [name for name in outputs if name not in made and name not in moved]
    rest = sorted((name for name in read if name not in own), key=lambda name: producers[name])
    return Cut([*own, *rest], sorted(tail))


def _last_that_stay(operators: Sequence[Operator], behind_layers: set[str], before_layers: set[str]) -> set[int]:
    """Return the numbers of operators that stay between the layers and the end, and of all that hang on them."""
    found: set[int] = set()
    made: set[str] = set()
    for number, op in enumerate(operators):
        is_last = op.stays and not behind_layers.isdisjoint(op.reads) and before_layers.isdisjoint(op.makes)
        if is_last or not made.isdisjoint(op.reads):
            found.add(number)
            made.update(op.makes)
    return found


def _reached(operators: Sequence[Operator], inputs: Iterable[str]) -> tuple[set[str], set[str]]:
    """Return the tensors that hang on inputs, and those that hang on layers."""
    fed: set[str] = set(inputs)
    behind: set[str] = set()
    for op in operators:
        if not fed.isdisjoint(op.reads):
            fed.update(op.makes)
            if op.is_layer or not behind.isdisjoint(op.reads):
                behind.update(op.makes)
    return fed, behind


def _reaching_layers(operators: Sequence[Operator], fed: set[str]) -> set[str]:
    """Return the tensors that some layer hangs on."""
    before: set[str] = set()
    for op in reversed(operators):
        if (op.is_layer and not fed.isdisjoint(op.reads)) or not before.isdisjoint(op.makes):
            before.update(op.reads)
    return before
