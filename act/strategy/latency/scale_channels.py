"""The kernels of a model that does not exist yet: the same one with a share of its channels pruned.

Every axis of channels becomes shorter by the same share, in whole blocks, but for those of the model's inputs and
outputs; heads of attention and the width of transformers stay, which channel pruning leaves alone. A pruning that takes
more from some layers than from others is stood in for by one that leaves as many MACs.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from act.strategy.latency.kernel import Kernel, Shape, Tensor

# Of pictures; they are inputs.
_FEWEST_CHANNELS = 4
_BLOCK, _SMALL_BLOCK, _BLOCKS_TO_HAVE = 16, 8, 4
_STEPS = 24

_Count = Callable[[int], int]  # from a number of channels to the number that is left


def scale_channels(kernels: Sequence[Kernel], kept: float) -> list[Kernel]:
    """Return the kernels of a whole model, in order, with a share of each one's channels, in (0, 1]."""
    last = max((index for index, kernel in enumerate(kernels) if kernel.multiplies), default=-1)

    def count(channels: int) -> int:
        if channels <= _FEWEST_CHANNELS:
            return channels
        block = min(channels, _BLOCK if channels >= _BLOCKS_TO_HAVE * _BLOCK else _SMALL_BLOCK)
        return min(channels, max(block, round(channels * kept / block) * block))

    return [_scaled(kernel, count, index >= last) for index, kernel in enumerate(kernels)]


def scale_to_macs(kernels: Sequence[Kernel], share: float) -> list[Kernel]:
    """Return the kernels with so few channels that a share of the MACs is left, in (0, 1], or as few as can be."""
    whole = sum(kernel.macs for kernel in kernels)
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        left = sum(kernel.macs for kernel in scale_channels(kernels, middle))
        low, high = (middle, high) if left < share * whole else (low, middle)
    return scale_channels(kernels, high)


def _scaled(kernel: Kernel, count: _Count, ends: bool) -> Kernel:
    """Scale one kernel; `ends` where its output is the model's, or what the model's is made of."""
    axis = -1 if kernel.channels_last else 1

    def scaled(tensor: Tensor) -> Tensor:
        shape = tensor.shape
        if len(shape) not in (2, 4) or shape[axis] <= _FEWEST_CHANNELS:
            return tensor
        index = axis % len(shape)
        return Tensor((*shape[:index], count(shape[index]), *shape[index + 1 :]), tensor.precision)

    inputs = tuple(scaled(each) for each in kernel.inputs)
    output = kernel.output if ends else scaled(kernel.output)
    weights, group = kernel.weights, kernel.group
    if kernel.convolves:
        depthwise = kernel.groups > 1 and kernel.groups == kernel.channels[0]
        weights = tuple(_convolution(shape, kernel, count, depthwise, ends) for shape in weights)
        group = count(kernel.groups) if depthwise and group is not None else group
    elif kernel.multiplies and len(kernel.output.shape) == 2:
        weights = tuple(_product(shape, kernel, count, ends) for shape in weights)
    return replace(kernel, inputs=inputs, output=output, weights=weights, group=group)


def _product(shape: Shape, kernel: Kernel, count: _Count, ends: bool) -> Shape:
    before, after = kernel.channels
    if len(shape) == 1:
        return shape if ends else (count(shape[0]),)
    return tuple(count(size) if size == before or (size == after and not ends) else size for size in shape)


def _convolution(shape: Shape, kernel: Kernel, count: _Count, depthwise: bool, ends: bool) -> Shape:
    """Scale a weight [out, in / groups, ...], or [groups, out / groups, in / groups, ...], or a bias."""
    if len(shape) == 1:
        return shape if ends or shape[0] != kernel.channels[1] else (count(shape[0]),)
    if depthwise:
        return (count(shape[0]), *shape[1:])
    first = 1 if len(shape) == len(kernel.output.shape) + 1 else 0
    out = shape[first] if ends else count(shape[first])
    return (*shape[:first], out, count(shape[first + 1]), *shape[first + 2 :])
