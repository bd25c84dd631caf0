"""Quantize/dequantize (QDQ) operators where an engine's rules want them, so that it runs int8 kernels between them.

An operator runs in int8 when all that it reads and makes stands between QDQ. Layers with weights are those of the
scheme; operators without weights follow where they read what an int8 operator made and a layer reads what they make.
What stands behind the last layers is not rounded. Tensors that must share one scale
(what a pool reads and makes, what a concatenation joins) get the range that holds all of theirs. A tensor that cannot
be negative is written without the negative half, which is twice as fine over the same range. A `QuantizeLinear` and the
`DequantizeLinear` behind it may differ: then both scale, shift and clip what goes through them, at no cost where an
engine fuses both into the operators beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper
from scipy.cluster.hierarchy import DisjointSet  # type: ignore[import-untyped]

from act.onnx_graph.graph import Graph, attribute, slope_and_middle
from act.program.layers import Layer
from act.quantization.onnx_model import Step, dequantize, qdq_pair, step_of, stored_weight
from act.quantization.ranges import LEVELS, Range
from act.quantization.scheme import Scheme
from act.quantization.weights import along
from act.samples.dataset import Array

_WHOLE = 2 * LEVELS + 1
# More bits than a bias should use of int32: the sum of products needs the rest.
_LARGEST_BIAS = 2.0**30


@dataclass(frozen=True)
class Rules:
    """What a target runs in int8, by ONNX operator type."""

    # Operators with a weight as their second input, and whether what they make must be quantized as well.
    layers: Mapping[str, bool]
    own_scales: frozenset[str]  # operators whose inputs and output each have a scale of their own
    shared_scale: frozenset[str]  # operators that move numbers about, so that input and output have the same scale
    joins: frozenset[str]  # those of both whose inputs and output are better given one scale
    fused_into: frozenset[str]  # activation functions fused into the operator before: its output's range already clips
    unsigned: bool  # activations are uint8 always; else int8 where they need no zero point
    clips: bool = False  # a `HardSigmoid` is best a sum with zero, between QDQ that scales, shifts and clips it
    # QDQ before an operator of `shared_scale` does for what it makes as well, so that there is none behind it.
    # Then such operators are worth it only where something reads that in int8.
    transparent: bool = False
    # Layers that must round what they make do so where no other layer reads it, too.
    round_ends: bool = False
    deep_input: bool = False  # a first convolution had better read blocks of pixels (`simplify.input_to_depth`)

    @property
    def followers(self) -> frozenset[str]:
        """Return the operators without weights that can run in int8."""
        return self.own_scales | self.shared_scale | ({"HardSigmoid"} if self.clips else set())

    def without(self, kind: str) -> Rules:
        """Return the rules of an engine that runs one kind of operators without weights in float."""
        return replace(
            self,
            own_scales=self.own_scales - {kind},
            shared_scale=self.shared_scale - {kind},
            joins=self.joins - {kind},
            clips=self.clips and kind != "HardSigmoid",
        )


# Operators without weights that calculate with all their inputs.
JOINING = ("Add", "Mul", "Concat")
# Operators that make one value of all positions.
_AVERAGING = frozenset({"GlobalAveragePool"})
# What these make is never negative; what those hand on is negative only where they read something negative.
_NEVER_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Exp", "Abs"})


class Plan:
    """Which nodes of a graph run in int8, and over which ranges; `insert_qdq` writes it into the graph.

    Args:
        graph: simplified for the target.
        layers: those to quantize, by their weight.
        ranges: of tensors, by their ONNX name; what has none stays in float.
        shifts: what is to be added to tensors, by their name (`simplify.take_out_shifts`).

    Attributes:
        made: the tensors that int8 operators make.
        weights: those of the layers that run in int8.
        steps: of each tensor that has a scale.
        rounded: those of them that get QDQ.
    """

    def __init__(
        self,
        graph: Graph,
        rules: Rules,
        layers: Mapping[str, Layer],
        ranges: Mapping[str, Range],
        shifts: Mapping[str, float],
    ) -> None:
        self._graph, self._rules, self._layers, self._shifts = graph, rules, layers, shifts
        gates = [node.output[0] for node in graph.nodes if node.op_type == "HardSigmoid" and rules.clips]
        self._ranges = {**ranges, **dict.fromkeys(gates, Range(0.0, 1.0))}
        for node in graph.nodes:
            if node.op_type == "Add" and node.output[0] not in self._ranges:
                self._ranges.update(self._range_of_sum(node))
        self._int8: set[str] = set()  # first outputs of the nodes
        self.made: set[str] = set()
        self._sharing = DisjointSet({name for node in graph.nodes for name in (*node.input, *node.output)})
        for node in graph.nodes:
            ready = self._layer(node) is not None and node.input[0] in self._ranges
            if ready and (not rules.layers[node.op_type] or self._end(node) in self._ranges):
                self._take(node)
        while self._add_followers():
            pass
        self._leave_ends_in_float()
        self.weights = {node.input[1] for node in self._taken() if self._layer(node) is not None}
        tensors = self._tensors()
        self._join()
        # QDQ ahead of what an engine calls transparent does for what it makes as well.
        through = rules.shared_scale if rules.transparent else ()
        self.rounded = tensors - {end for node in self._taken() if node.op_type in through for end in self._ends(node)}
        self.steps = self._steps(tensors)

    def insert_qdq(self, scheme: Scheme) -> None:
        """Write the plan into the graph: QDQ, int8 weights and int32 biases."""
        graph = self._graph
        stored: list[onnx.NodeProto] = []
        nodes: list[onnx.NodeProto] = []
        for name in graph.inputs:
            if name in self.rounded:
                nodes += qdq_pair(graph, name, name, self.steps[name], f"{name}.dequantized")
        for node in graph.nodes:
            if node.output[0] in self._int8:
                node = self._in_int8(node, scheme, stored)
            nodes.append(node)
            for index, name in enumerate(node.output):
                if name in self.rounded and name in self.made:
                    # Nobody reads what lies before such QDQ, or it would not fuse: not even what runs in float.
                    node.output[index] = f"{name}.unrounded"
                    nodes += qdq_pair(graph, node.output[index], name, self.steps[name], name)
                elif name in self.rounded:
                    nodes += qdq_pair(graph, name, name, self.steps[name], f"{name}.dequantized")
        graph.nodes = [*stored, *nodes]

    def _in_int8(self, node: onnx.NodeProto, scheme: Scheme, stored: list[onnx.NodeProto]) -> onnx.NodeProto:
        """Return a node that reads what is dequantized; `stored` gets the operators that do so with its constants."""
        layer = self._layer(node)
        if layer is not None:
            stored += _weight_and_bias(self._graph, node, layer, self.steps[node.input[0]], scheme)
        for index, name in enumerate(node.input):
            if name in self.rounded and name not in self.made:
                node.input[index] = f"{name}.dequantized"
        if node.op_type == "HardSigmoid":
            summand = gate_summand(*slope_and_middle(node))
            stored.append(dequantize(self._graph, f"{node.output[0]}.summand", *summand))
            return helper.make_node("Add", [node.input[0], stored[-1].output[0]], list(node.output))
        for index, name in enumerate(node.input if node.op_type in JOINING else ()):
            if self._graph.is_constant(name):
                value = float(self._graph.constant(name).reshape(-1)[0])
                stored.append(dequantize(self._graph, f"{node.output[0]}.number", *exact(value)))
                node.input[index] = stored[-1].output[0]
        return node

    def _layer(self, node: onnx.NodeProto) -> Layer | None:
        """Return the layer of the scheme that a node is."""
        known = node.op_type in self._rules.layers and len(node.input) > 1
        return self._layers.get(node.input[1]) if known else None

    def _end(self, node: onnx.NodeProto) -> str:
        """Return the tensor behind a node and the activation function that is fused into it."""
        consumer = self._graph.only_consumer(node.output[0])
        takes = node.op_type in (set(self._rules.layers) | self._rules.own_scales) - self._rules.joins
        fused = consumer is not None and takes and consumer.op_type in self._rules.fused_into
        return str(consumer.output[0]) if consumer is not None and fused else str(node.output[0])

    def _ends(self, node: onnx.NodeProto) -> list[str]:
        """Return all tensors that a node makes, behind the activation function that is fused into it."""
        return [self._end(node)] if len(node.output) == 1 else list(node.output)

    def _take(self, node: onnx.NodeProto) -> None:
        self._int8.add(node.output[0])
        self.made.update(self._ends(node))

    def _taken(self) -> list[onnx.NodeProto]:
        return [node for node in self._graph.nodes if node.output[0] in self._int8]

    def _add_followers(self) -> bool:
        """Take the operators without weights that now can run in int8; tell whether there were any."""
        read = {name for node in self._taken() for name in node.input}
        before, within_reach = len(self._int8), self._within_reach()
        for node in self._graph.nodes:
            if node.op_type in self._rules.followers and node.output[0] not in self._int8:
                given = self._data(node)
                known = all(name in self._ranges or name in self.made for name in given)
                fits = node.op_type in self._rules.shared_scale or self._end(node) in self._ranges
                useful = not self._rules.transparent or not read.isdisjoint(self._ends(node))
                wanted = useful and not within_reach.isdisjoint(given)
                if known and fits and wanted and self._is_calculable(node):
                    self._take(node)
        return len(self._int8) > before

    def _leave_ends_in_float(self) -> None:
        """Leave in float what no layer reads, and the layers that must round what they make where no other reads that,
        unless the rules want those rounded.

        Behind the last layers boxes and scores are decoded, joined and reshaped, and the scheme rounds nothing. One
        scale over values of unlike ranges would round the small ones away there. A mean over all positions hides the
        rounding of what it reads.
        """
        read: set[str] = set()
        for node in reversed(self._graph.nodes):
            taken, layer = node.output[0] in self._int8, self._layer(node) is not None
            useful = not read.isdisjoint(self._ends(node))
            rounds = layer and self._rules.layers[node.op_type]
            if taken and not useful and (not layer or (rounds and not self._rules.round_ends)):
                self._int8.discard(node.output[0])
                self.made.difference_update(self._ends(node))
            if layer or node.op_type in _AVERAGING or (taken and useful):
                read.update(node.input)

    def _within_reach(self) -> set[str]:
        """Return the tensors that int8 operators make, and what transparent operators make of them."""
        found = set(self.made)
        for node in self._graph.nodes:
            if self._rules.transparent and node.op_type in self._rules.shared_scale and found.intersection(node.input):
                found.update(node.output)
        return found

    def _range_of_sum(self, node: onnx.NodeProto) -> dict[str, Range]:
        """Return the range of the sum of a tensor of known range and a number."""
        numbers = [self._graph.constant(name) for name in node.input if self._graph.is_constant(name)]
        spans = [self._ranges[name] for name in node.input if name in self._ranges]
        if len(numbers) != 1 or numbers[0].size != 1 or len(spans) != 1:
            return {}
        return {node.output[0]: spans[0].shifted(float(numbers[0].reshape(-1)[0]))}

    def _is_calculable(self, node: onnx.NodeProto) -> bool:
        """Tell whether a node calculates with activations only, and a gate opens and closes a product only."""
        if node.op_type == "HardSigmoid":
            slope, middle = slope_and_middle(node)
            consumers = {consumer.op_type for consumer in self._graph.consumers(node.output[0])}
            opens = consumers <= {"Add", "Mul"} and node.output[0] not in self._graph.outputs
            return slope > 0 and 0 <= middle <= 1 and opens
        if node.op_type == "Resize":
            return attribute(node, "mode", b"nearest") == b"nearest"
        if node.op_type == "Pad":
            return self._pads_zeros(node)
        constants = (self._graph.constant(name) for name in node.input if name and self._graph.is_constant(name))
        # Shapes, axes and the like may be constant; of what is calculated with, a single number.
        return node.op_type not in JOINING or all(
            node.op_type != "Concat" and each.size == 1 and each.ndim <= 1 for each in constants
        )

    def _pads_zeros(self, node: onnx.NodeProto) -> bool:
        """Tell whether a `Pad` adds nothing that the range of what it reads lacks: zeros, or values of its own."""
        if attribute(node, "mode", b"constant") != b"constant" or len(node.input) < 3 or not node.input[2]:
            return True
        return self._graph.is_constant(node.input[2]) and not self._graph.constant(node.input[2]).any()

    def _tensors(self) -> set[str]:
        """Return the tensors that get a scale."""
        found: set[str] = set()
        for node in self._taken():
            layer = self._layer(node) is not None
            found.update([node.input[0]] if layer else self._data(node))
            if self._rules.layers[node.op_type] if layer else not self._rules.transparent:
                found.update(self._ends(node))
        return found

    def _data(self, node: onnx.NodeProto) -> list[str]:
        """Return what an operator without weights calculates with: of most the first input, of joining ones all."""
        given = self._graph.activations(node)
        return given if node.op_type in JOINING else given[:1]

    def _join(self) -> None:
        """Let tensors share a scale: first those that must, then those that had better."""
        followers = [node for node in self._taken() if self._layer(node) is None]
        for node in followers:
            if node.op_type in self._rules.shared_scale and node.op_type not in self._rules.joins:
                self._unite([node.input[0], *self._ends(node)])
        for node in followers:
            tensors = [*self._data(node), self._end(node)]
            if node.op_type in self._rules.joins and self._are_alike(tensors):
                self._unite(tensors)

    def _are_alike(self, tensors: Iterable[str]) -> bool:
        """Tell whether one scale for all, and what shares theirs, still clips like the fused functions."""
        names = set().union(*map(self._sharing.subset, tensors))
        fused = {node.op_type for node in map(self._graph.producer, names) if node is not None} & self._rules.fused_into
        clips_alike = not fused or (fused == {"Relu"} and all(map(self._never_negative, names)))
        return self._rules.transparent or clips_alike

    def _unite(self, names: Sequence[str]) -> None:
        for name in names[1:]:
            self._sharing.merge(names[0], name)

    def _steps(self, tensors: Set[str]) -> dict[str, Step]:
        steps: dict[str, Step] = {}
        for names in filter(None, (subset & tensors for subset in self._sharing.subsets())):
            known = [self._ranges[name] for name in names if name in self._ranges]
            hull = Range(min(span.low for span in known), max(span.high for span in known))
            step = step_of(hull, all(map(self._never_negative, names)), self._rules.unsigned)
            steps.update({name: self._before(name, step) for name in names})
        return steps

    def _before(self, name: str, step: Step) -> Step:
        """Return the step with what else the QDQ of a tensor does."""
        producer = self._graph.producer(name)
        if name in self._shifts and name in self.made:
            limits = np.iinfo(step.zero_point.dtype)
            zero = int(step.zero_point) + round(self._shifts[name] / float(step.scale))
            return replace(step, before=(step.scale, type(step.zero_point)(np.clip(zero, limits.min, limits.max))))
        if producer is not None and producer.op_type == "HardSigmoid" and name in self.made:
            return gate_step(*slope_and_middle(producer))
        return step

    def _never_negative(self, name: str) -> bool:
        node = self._graph.producer(name)
        if node is None:
            return False
        if node.op_type == "Clip":
            low = node.input[1] if len(node.input) > 1 else ""
            return bool(low) and self._graph.is_constant(low) and float(self._graph.constant(low)) >= 0
        if node.op_type in self._rules.followers:
            return all(self._never_negative(each) for each in self._data(node))
        return node.op_type in _NEVER_NEGATIVE


def gate_step(slope: float, middle: float) -> Step:
    """Return the QDQ that makes a `HardSigmoid` of its input plus `gate_summand`: 0 to 255 stand for 0 to 1."""
    before = (np.float32(1 / (slope * _WHOLE)), np.uint8(round(middle * _WHOLE)))
    return Step(np.float32(1 / _WHOLE), np.uint8(0), before)


def gate_summand(slope: float, middle: float) -> tuple[Array, Array, Array]:
    """Return what the zero point of `gate_step` leaves to be added to the input.

    Half a step too much or too little, as 127.5 needs, would raise or lower every gate alike, and the network with it.
    """
    return exact((middle * _WHOLE - round(middle * _WHOLE)) / (slope * _WHOLE))


def exact(value: float) -> tuple[Array, Array, Array]:
    """Return a number as an integer, its scale and its zero point."""
    integer, zero_point = np.array(int(value > 0), np.uint8), np.array(int(value < 0), np.uint8)
    return integer, np.array(abs(value) or 1.0, np.float32), zero_point


def _weight_and_bias(
    graph: Graph, node: onnx.NodeProto, layer: Layer, step: Step, scheme: Scheme
) -> list[onnx.NodeProto]:
    """Let a node read a weight in int8 and a bias in int32; return the operators that turn them into numbers."""
    has_bias = len(node.input) > 2 and graph.is_constant(node.input[2])
    bias = graph.constant(node.input[2]).reshape(-1) if has_bias else None
    thresholds, integers = scheme.weights[layer.weight], scheme.integers.get(layer.weight)
    if bias is not None:
        thresholds, integers = _leave_room_for_bias(thresholds, integers, bias, step.scale, layer.axis)
    nodes = [stored_weight(graph, layer, thresholds, integers)]
    node.input[1] = nodes[0].output[0]
    if bias is not None:
        unit = ((thresholds / np.float32(LEVELS)).astype(np.float32) * step.scale).astype(np.float32)
        rounded = np.clip(np.round(bias.astype(np.float64) / unit), -_LARGEST_BIAS, _LARGEST_BIAS).astype(np.int32)
        nodes.append(dequantize(graph, f"{node.output[0]}.bias", rounded, unit, np.zeros_like(rounded), 0))
        node.input[2] = nodes[1].output[0]
    return nodes


def _leave_room_for_bias(
    thresholds: npt.NDArray[np.float32],
    integers: npt.NDArray[np.int8] | None,
    bias: npt.NDArray[np.float32],
    step: np.float32,
    axis: int,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8] | None]:
    """Return coarser weights for channels so weak that their bias, in units of their products, overflows int32."""
    least = (np.abs(bias.astype(np.float64)) / (_LARGEST_BIAS * float(step)) * LEVELS).astype(np.float32)
    wider = np.maximum(thresholds, least)
    if integers is None or np.array_equal(wider, thresholds):
        return wider, integers
    return wider, np.round(integers * along(thresholds / wider, axis, integers.ndim)).astype(np.int8)
