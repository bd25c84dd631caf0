"""The kernels of a model that does not exist yet: the same one with a share of its channels pruned.

Every axis of channels becomes narrower by the same share, in whole blocks, but for those of the model's inputs and
outputs; heads of attention and the width of transformers stay, which channel pruning leaves alone. A pruning that takes
more from some layers than from others is stood in for by one that leaves as many MACs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from act.strategy.latency.kernel import Kernel, Shape, Tensor

# Of pictures; they are inputs.
_FEWEST_CHANNELS = 4
_BLOCK, _SMALL_BLOCK, _BLOCKS_TO_HAVE = 16, 8, 4
_STEPS = 24


def narrowed(kernels: Sequence[Kernel], kept: float) -> list[Kernel]:
    """The kernels with a share of their channels.

    Args:
        kernels: of a whole model, in order.
        kept: the share of each layer's channels that stays, in (0, 1].
    """
    last = max((place for place, kernel in enumerate(kernels) if kernel.multiplies), default=-1)
    return [_narrowed(kernel, kept, place >= last) for place, kernel in enumerate(kernels)]


def with_work(kernels: Sequence[Kernel], share: float) -> list[Kernel]:
    """The kernels with so few channels that a share of the MACs is left, or as few as can be.

    Args:
        share: in (0, 1].
    """
    whole = sum(kernel.macs for kernel in kernels)
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        left = sum(kernel.macs for kernel in narrowed(kernels, middle))
        low, high = (middle, high) if left < share * whole else (low, middle)
    return narrowed(kernels, high)


def _narrowed(kernel: Kernel, kept: float, ends: bool) -> Kernel:
    """One kernel; `ends` where what it makes are the model's outputs, or made of them."""
    axis = -1 if kernel.channels_last else 1

    def count(channels: int) -> int:
        if channels <= _FEWEST_CHANNELS:
            return channels
        block = _BLOCK if channels >= _BLOCKS_TO_HAVE * _BLOCK else _SMALL_BLOCK
        block = min(block, channels)
        return min(channels, max(block, round(channels * kept / block) * block))

    def narrow(shape: Shape) -> Shape:
        if len(shape) not in (2, 4) or shape[axis] <= _FEWEST_CHANNELS:
            return shape
        place = axis % len(shape)
        return (*shape[:place], count(shape[place]), *shape[place + 1 :])

    read = tuple(Tensor(narrow(each.shape), each.precision) for each in kernel.inputs)
    made = kernel.output if ends else Tensor(narrow(kernel.output.shape), kernel.output.precision)
    if not kernel.convolves:
        weights = kernel.weights
        if kernel.multiplies and kernel.weights and len(kernel.output.shape) == 2:
            weights = tuple(_product(shape, kernel, count, ends) for shape in kernel.weights)
        return replace(kernel, inputs=read, output=made, weights=weights)
    groups = kernel.groups
    depthwise = groups > 1 and groups == kernel.channels[0]
    group = None if kernel.group is None else count(groups) if depthwise else groups
    weights = tuple(_convolution(shape, kernel, count, depthwise, ends) for shape in kernel.weights)
    return replace(kernel, inputs=read, output=made, weights=weights, group=group)


def _product(shape: Shape, kernel: Kernel, count: object, ends: bool) -> Shape:
    before, after = kernel.channels
    assert callable(count)
    if len(shape) == 1:
        return shape if ends else (count(shape[0]),)
    return tuple(count(size) if size == before or (size == after and not ends) else size for size in shape)


def _convolution(shape: Shape, kernel: Kernel, count: object, depthwise: bool, ends: bool) -> Shape:
    """A weight [out, in / groups, ...], or [groups, out / groups, in / groups, ...], or a bias."""
    assert callable(count)
    after = kernel.channels[1]
    if len(shape) == 1:
        return shape if ends or shape[0] != after else (count(shape[0]),)
    if depthwise:
        return (count(shape[0]), *shape[1:])
    deep = len(shape) == len(kernel.output.shape) + 1
    first = 1 if deep else 0
    spatial = shape[first + 2 :]
    out = shape[first] if ends else count(shape[first])
    return (*shape[:first], out, count(shape[first + 1]), *spatial)
