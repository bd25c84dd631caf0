"""Windows that slide over the spatial axes of a tensor: what convolutions and pooling have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from act.formats.onnx.dimension import Dimension, Number
from act.formats.onnx.node import Node, Refused, Variable
from act.program.paddle_setup import paddle

Pads = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Window:
    """How a window lies on the spatial axes; each attribute has one entry an axis.

    Attributes:
        kernel: its lengths.
        strides: how far it moves.
        dilations: the distance of the elements that it reads.
        pads: what is added before and behind each axis. None: as much as Paddle's `SAME` adds, which depends on
            lengths that are known at run time only.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: Pads | None

    @property
    def extents(self) -> tuple[int, ...]:
        """Return how many elements it covers on each axis."""
        return tuple(dilation * (kernel - 1) + 1 for kernel, dilation in zip(self.kernel, self.dilations))

    @property
    def padding(self) -> Any:
        """Return the pads as Paddle's functions take them."""
        return "SAME" if self.pads is None else [each for pair in self.pads for each in pair]

    def lifted(self) -> Window:
        """Return the same window for a tensor with an axis of length 1 before its spatial one."""
        pads = None if self.pads is None else ((0, 0), *self.pads)
        return Window((1, *self.kernel), (1, *self.strides), (1, *self.dilations), pads)


def window_of(node: Node, kernel: Sequence[int]) -> Window:
    """Return the window of a node: its kernel as given, the rest from its attributes."""
    rank = len(kernel)
    kernel = tuple(int(each) for each in kernel)
    strides = tuple(node.attribute("strides", [1] * rank))
    dilations = tuple(node.attribute("dilations", [1] * rank))
    mode = node.attribute("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        lengths = node.shape(0)[2:]
        window = Window(kernel, strides, dilations, None)
        totals = [_same(*each) for each in zip(lengths, window.extents, strides)]
        known = [each for each in totals if each is not None]
        if len(known) == rank:
            return Window(kernel, strides, dilations, tuple(halves(each, mode == "SAME_UPPER") for each in known))
        if mode == "SAME_LOWER" or max(dilations) > 1:
            raise Refused(f"it pads by {mode} along axes of unknown length; export the model with fixed ones")
        return window
    flat = [0] * (2 * rank) if mode == "VALID" else node.attribute("pads", [0] * (2 * rank))
    return Window(kernel, strides, dilations, tuple(zip(flat[:rank], flat[rank:])))


def halves(total: int, upper: bool) -> tuple[int, int]:
    """Return a padding before and behind an axis; the odd element comes behind for `upper`."""
    small = total // 2
    return (small, total - small) if upper else (total - small, small)


def _same(length: Number, extent: int, stride: int) -> int | None:
    """Return how much padding makes an output of `length / stride`, rounded up; None where that is not known."""
    if stride == 1:
        return extent - 1
    if isinstance(length, Dimension):
        return None
    return int(max((-(-length // stride) - 1) * stride + extent - length, 0))


def lift(variable: Variable) -> Variable:
    """Give a tensor of one spatial axis another of length 1 before it."""
    return paddle.unsqueeze(variable, axis=[2])


def lower(variable: Variable) -> Variable:
    """Take away the axis that `lift` made."""
    return paddle.squeeze(variable, axis=[2])


def padded(node: Node, variable: Variable, pads: Pads, value: float = 0.0) -> Variable:
    """Pad the spatial axes with a constant."""
    flat = [0] * 4 + [each for pair in pads for each in pair]
    if not any(flat):
        return variable
    return node.graph.op("pad", {"X": [variable]}, {"paddings": flat, "pad_value": value}, variable.dtype)


def settle_length(variable: Variable, axis: int, length: Number | None) -> None:
    """Note the length of an axis that an input does not say, but a weight does."""
    if isinstance(length, int) and variable.shape[axis] < 0 <= length:
        shape = list(variable.shape)
        shape[axis] = length
        variable.desc.set_shape(shape)
