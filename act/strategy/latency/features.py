"""What a kernel's latency is learned from: its size in several respects, and how well it fills the CPU's registers.

The time that a kernel would take is taken apart as in the roofline model (Williams et al., 2009): a start, its
MACs, the bytes of activations and of weights. The learned model only corrects that (`model.py`).
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from act.strategy.latency.kernel import BYTES, Kernel

# Channels are computed in blocks: of 16 (one register of float32), 32 and 64 (a tile of bf16, of int8).
_BLOCKS = (16, 32, 64)
_COSTLY = ("Sigmoid", "Swish", "QuickGelu", "Erf", "Gelu", "Tanh", "Exp", "Softmax")
_JOINS = ("Add", "Sub", "Mul", "Div")
_FUNCTIONS = (("Relu",), ("Clip",), ("LeakyRelu", "PRelu"), ("HardSwish", "HardSigmoid"), _COSTLY, _JOINS)
# Of those, what costs something where it is fused: a maximum with zero is computed on the way.
_PASSES = slice(1, 5)

Vector = npt.NDArray[np.float64]


# The same kernels are asked for again and again, by each of a table's models.
@lru_cache(maxsize=1 << 16)
def costs(kernel: Kernel) -> list[float]:
    """Return what the roofline's time is made of.

    1; MACs with padding, without it, and that in whole blocks of 16 and of 64 channels; bytes of activations,
    of weights, and of what is made; what a convolution gathers; values that pass through an activation function. What
    does not multiply has the values of its windows in place of MACs.
    """
    average, ever = kernel.met
    before, after = kernel.channels
    groups = max(1, kernel.groups)
    within = before // groups
    work = kernel.macs if kernel.multiplies else kernel.output.values * max(1, kernel.taps)
    met = work * average
    filled = after // groups if within > 1 else after
    in_small_blocks = met / _fill(filled, 16)
    in_large_blocks = met / _fill(filled, 64) / (_fill(within, 64) if within > 1 else 1.0)
    # What a convolution gathers: for each pixel and each group of channels a piece of every pixel in the window.
    pieces = math.prod(kernel.image) * groups * kernel.taps * average if kernel.convolves else 0.0
    applied = sum(_functions(kernel)[_PASSES]) if kernel.multiplies else 0.0
    return [
        1.0,
        float(work),
        met,
        in_small_blocks,
        in_large_blocks,
        float(kernel.read_bytes + kernel.output.bytes),
        kernel.weight_bytes * ever,
        float(kernel.output.bytes),
        pieces,
        float(kernel.output.values * applied),
    ]


@lru_cache(maxsize=1 << 16)
def features(kernel: Kernel) -> list[float]:
    """Return what the correction is learned from; logarithms to base 2 of sizes."""
    before, after = kernel.channels
    height, width = kernel.image
    groups = kernel.groups
    within = before // max(1, groups)
    sizes = [each.values for each in kernel.inputs] or [1]
    least, most = _log(min(sizes)), _log(max(sizes))
    touched = kernel.read_bytes + kernel.output.bytes + kernel.weight_bytes
    window, strides = kernel.window or (1,), kernel.strides or (1,)
    read = [each for each in kernel.inputs if each.values > 1] or list(kernel.inputs[:1])
    return [
        *map(_log, (kernel.macs, kernel.read_bytes, kernel.output.bytes, kernel.weight_bytes)),
        _log(kernel.macs) - _log(touched),
        float(len(kernel.inputs)),
        *map(_log, (before, after, within, after // max(1, groups), groups, height, width)),
        *(_fill(within, block) for block in _BLOCKS),
        *(_fill(after, block) for block in _BLOCKS),
        _fill(width, 16),
        # Some kernels handle odd numbers of channels one by one.
        *(_log(math.gcd(count, _BLOCKS[-1])) for count in (within, after)),
        float(kernel.taps),
        *(float(sides[place]) for sides in (window, strides) for place in (0, -1)),
        *_functions(kernel),
        float(len(kernel.output.shape)),
        _log(kernel.output.shape[-1] if kernel.output.shape else 1),
        most - least,
        most - _log(kernel.output.values),
        float(BYTES.get(read[0].precision if read else kernel.output.precision, 4)),
        float(BYTES.get(kernel.output.precision, 4)),
        float(kernel.channels_last),
        *kernel.met,
    ]


@lru_cache(maxsize=1 << 12)
def _applied(operators: Sequence[str], folded: bool) -> tuple[float, ...]:
    """Count the operators of each of `_FUNCTIONS` that a kernel applies; `folded` for a product with one input.

    Behind a multiplication engines name constants that are folded into it too, a bias or a batch norm: an `Add` or a
    `Mul` there counts only where there is a second input. A `Mul` all by itself is what is left of a swish.
    """
    counts = {names: float(sum(name in names for name in operators)) for names in _FUNCTIONS}
    if folded:
        counts[_JOINS] = 0.0
        if "Mul" in operators and "Add" not in operators and not any(counts.values()):
            counts[_COSTLY] = 1.0
    return tuple(counts.values())


def _functions(kernel: Kernel) -> tuple[float, ...]:
    return _applied(kernel.operators, kernel.multiplies and len(kernel.inputs) < 2)


@lru_cache(maxsize=1 << 14)
def _log(value: int) -> float:
    return math.log2(max(1, value))


@lru_cache(maxsize=1 << 14)
def _fill(count: int, block: int) -> float:
    """Return the share of the blocks that hold this many that is used."""
    return count / (math.ceil(count / block) * block) if count > 0 else 1.0
