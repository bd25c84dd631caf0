"""Scales and zero points of tensors, the QDQ operators that carry them, and how these do an operator's work.

A `QuantizeLinear` and the `DequantizeLinear` behind it may differ: then both scale, shift and clip what goes
through them, at no cost where an engine fuses both into the operators beside them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from act.onnx_graph.graph import Array, Graph
from act.program.layers import Layer
from act.quantization.ranges import LEVELS, SMALLEST_THRESHOLD, Range
from act.quantization.weights import quantize_weight

_WHOLE = 2 * LEVELS + 1

# An integer, its scale and its zero point.
Number = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.uint8]]


@dataclass(frozen=True)
class Step:
    """The scale and the zero point of a tensor.

    Attributes:
        scale: > 0.
        zero_point: uint8 or int8, a scalar.
        before: the scale and zero point that the values are rounded with, where QDQ also scales or shifts them.
    """

    scale: np.float32
    zero_point: np.uint8 | np.int8
    before: tuple[np.float32, np.uint8 | np.int8] | None = None


def step_of(span: Range, never_negative: bool, unsigned: bool) -> Step:
    """Return the scale and zero point for a range.

    Args:
        never_negative: the values are >= 0 whatever the range says, so that only its upper half is of use.
        unsigned: write uint8 also where int8 would need no zero point.
    """
    if never_negative:
        span = Range(0.0, max(span.high, SMALLEST_THRESHOLD))
    if span.symmetric and not unsigned:
        return Step(np.float32(span.scale), np.int8(0))
    return Step(np.float32(span.scale), np.uint8(span.zero_point + LEVELS + 1))


def gate_step(slope: float, middle: float) -> Step:
    """Return the QDQ that makes a `HardSigmoid` of its input plus `gate_summand`: 0 to 255 stand for 0 to 1."""
    before = (np.float32(1 / (slope * _WHOLE)), np.uint8(round(middle * _WHOLE)))
    return Step(np.float32(1 / _WHOLE), np.uint8(0), before)


def gate_summand(slope: float, middle: float) -> Number:
    """Return what the zero point of `gate_step` leaves to be added to the input.

    Half a step too much or too little, as 127.5 needs, would raise or lower every gate alike, and the network with it.
    """
    return exact((middle * _WHOLE - round(middle * _WHOLE)) / (slope * _WHOLE))


def exact(value: float) -> Number:
    """Return a number so that nothing of it is rounded away."""
    integer, zero_point = np.array(int(value > 0), np.uint8), np.array(int(value < 0), np.uint8)
    return integer, np.array(abs(value) or 1.0, np.float32), zero_point


def qdq_pair(graph: Graph, source: str, name: str, step: Step, target: str) -> list[onnx.NodeProto]:
    """Make the two operators that round the tensor `source` and give `target`, with constants named by `name`."""

    def constants(scale: np.float32, zero_point: np.uint8 | np.int8, suffix: str = "") -> list[str]:
        named = {f"{name}.scale{suffix}": scale, f"{name}.zero_point{suffix}": zero_point}
        return [graph.add_constant(each, np.array(value)) for each, value in named.items()]

    after = constants(step.scale, step.zero_point)
    before = constants(*step.before, "_before") if step.before is not None else after
    return [
        helper.make_node("QuantizeLinear", [source, *before], [f"{name}.quantized"]),
        helper.make_node("DequantizeLinear", [f"{name}.quantized", *after], [target]),
    ]


def stored_weight(
    graph: Graph, layer: Layer, thresholds: npt.NDArray[np.float32], integers: npt.NDArray[np.int8] | None
) -> onnx.NodeProto:
    """Store a layer's weight as int8, one scale a channel, and make the operator that turns it into numbers."""
    if integers is None:
        integers = quantize_weight(graph.constant(layer.weight), thresholds, layer.axis)
    scales = (thresholds / np.float32(LEVELS)).astype(np.float32)
    return dequantize(graph, layer.weight, integers, scales, np.zeros(scales.shape, dtype=np.int8), layer.axis)


def dequantize(
    graph: Graph, name: str, integers: Array, scales: Array, zero_points: Array, axis: int | None = None
) -> onnx.NodeProto:
    """Make the operator that turns stored integers into numbers, `NAME.dequantized`."""
    parts = {"quantized": integers, "scale": scales, "zero_point": zero_points}
    names = [graph.add_constant(f"{name}.{part}", values) for part, values in parts.items()]
    return helper.make_node("DequantizeLinear", names, [f"{name}.dequantized"], axis=axis)
