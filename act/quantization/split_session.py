"""The fp32 model in pieces, in which one layer's weight, bias and input can be changed from run to run.

ONNX Runtime takes an initialiser that is also an input from the caller, so that no session is made anew for a change.
What lies before a changed layer need not run again: the model is cut into pieces in the order of its nodes, and a run
begins with the piece that holds the layer, from what the unchanged model left at its edge.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from act.onnx_graph.graph import Graph, inferred
from act.program.layers import Layer
from act.quantization.onnx_model import INT8_OPS, activation_tensors
from act.samples.dataset import Array

_PIECES = 8
_SQUEEZING = ("Softmax", "ArgMax")
_CASTS = ("Cast", "Identity")
# Behind a layer's name: inputs that tell whether it reads something else than its own input, and what.
_FLAG, _REPLACEMENT = ".is_changed", ".changed_input"

Values = dict[str, Array]


@dataclass
class _Piece:
    """Some nodes in a row; `outputs` are its tensors that others read or that are compared, `layer_inputs` those that
    layers read."""

    session: Any
    inputs: list[str]
    outputs: list[str]
    layer_inputs: list[str]

    def run(self, names: Iterable[str], values: Mapping[str, Array], changes: Mapping[str, Array]) -> Values:
        """Return these tensors of the piece, from the values at its edge."""
        names = list(dict.fromkeys(names))
        feeds = {name: values[name] for name in self.inputs}
        return dict(zip(names, self.session.run(names, {**feeds, **changes}))) if names else {}


class SplitSession:
    """An fp32 model in which single layers can be changed.

    Args:
        fp32: what `to_onnx` made of the model; not changed.
        layers: all must be in the ONNX model.
        compared: the tensors that `outputs` returns.

    Attributes:
        inputs: the tensor that each layer reads, by the layer's name.
        biases: name and values of the bias of each layer that has one of its own, likewise.
    """

    def __init__(self, fp32: onnx.ModelProto, layers: Sequence[Layer], compared: Sequence[str]) -> None:
        self._fp32, self.compared = fp32, compared
        self._layers = {layer.weight: layer for layer in layers}
        tensors = activation_tensors(fp32, layers)
        self.inputs = {layer.name: tensors[layer.activation] for layer in layers}
        self.biases = _biases(Graph(fp32, copy=False), layers)
        self._types = _element_types(fp32)
        self._index: dict[str, int] = {}
        nodes = _needed(fp32.graph, [*compared, *self.inputs.values()])
        ends = pairwise([*self._starts(nodes), len(nodes)])
        self._pieces = [self._piece(nodes[start:stop], nodes[stop:]) for start, stop in ends]

    def _layer(self, node: onnx.NodeProto) -> Layer | None:
        return self._layers.get(node.input[1]) if node.op_type in INT8_OPS else None

    def _starts(self, nodes: Sequence[onnx.NodeProto]) -> list[int]:
        """Return where pieces of about equally many layers begin; one alone where a node holds a graph of its own, or
        the type of a tensor is not known."""
        nested = any(attribute.HasField("g") for node in nodes for attribute in node.attribute)
        known = all(self._types.get(name) for node in nodes for name in node.output if name)
        each = max(1, -(-len(self._layers) // (_PIECES if known and not nested else 1)))
        starts = [0]
        for position, node in enumerate(nodes):
            if (layer := self._layer(node)) is not None:
                if self._index and len(self._index) % each == 0:
                    starts.append(position)
                self._index[layer.name] = len(starts) - 1
        return starts

    def _piece(self, part: Sequence[onnx.NodeProto], following: Sequence[onnx.NodeProto]) -> _Piece:
        made = {name for node in part for name in node.output}
        read = dict.fromkeys(name for node in part for name in _reads(node) if name)
        read_later = {name for node in following for name in _reads(node)}
        initialisers = {entry.name: entry for entry in self._fp32.graph.initializer if entry.name in read}
        inputs = [name for name in read if name not in made and name not in initialisers]
        outputs = [name for name in made if name in read_later or name in self.compared]
        layer_inputs = [name for name in dict.fromkeys(self.inputs.values()) if name in made]
        defaults = []  # with which a layer reads its input as it is
        for layer in (self._layers[name] for name in self._layers if name in initialisers):
            defaults.append(numpy_helper.from_array(np.array(False), layer.name + _FLAG))
            defaults.append(numpy_helper.from_array(np.array(0, np.float32), layer.name + _REPLACEMENT))
        changeable = {*self._layers, *(name for name, _ in self.biases.values())}
        feeds = [(name, self._types[name]) for name in inputs]
        feeds += [(name, TensorProto.FLOAT) for name in initialisers if name in changeable]
        feeds += [(entry.name, entry.data_type) for entry in defaults]
        graph = helper.make_graph(
            [each for node in part for each in self._with_changeable_input(node)],
            "piece",
            [helper.make_tensor_value_info(name, dtype, None) for name, dtype in feeds],
            [onnx.ValueInfoProto(name=name) for name in dict.fromkeys([*outputs, *layer_inputs])],
            [*initialisers.values(), *defaults],
        )
        model = helper.make_model(graph, opset_imports=self._fp32.opset_import, ir_version=self._fp32.ir_version)
        model.functions.extend(self._fp32.functions)
        return _Piece(_session(model), inputs, outputs, layer_inputs)

    def _with_changeable_input(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Return a layer's node behind a choice between its input and another one; other nodes as they are."""
        layer = self._layer(node)
        if layer is None:
            return [node]
        moved = onnx.NodeProto()
        moved.CopyFrom(node)
        moved.input[0] = f"{layer.name}.input"
        choice = [layer.name + _FLAG, layer.name + _REPLACEMENT, node.input[0]]
        return [helper.make_node("Where", choice, [moved.input[0]]), moved]

    def run(self, feeds: Mapping[str, Array]) -> tuple[list[Values], Values]:
        """Run the unchanged model.

        Returns:
            For each piece the tensors at its edge, and behind the last one; and all tensors that layers read, by name.
        """
        values: Values = dict(feeds)
        layer_inputs: Values = {name: feeds[name] for name in self.inputs.values() if name in feeds}
        edges = []
        for piece in self._pieces:
            edges.append(dict(values))
            made = piece.run([*piece.outputs, *piece.layer_inputs], values, {})
            values |= {name: made[name] for name in piece.outputs}
            layer_inputs |= {name: made[name] for name in piece.layer_inputs}
        return [*edges, values], layer_inputs

    def input_of(self, layer: Layer, edges: Sequence[Values]) -> Array:
        """Return what a layer reads in the unchanged model, from what `run` gave for a sample."""
        tensor = self.inputs[layer.name]
        for piece, values in zip(self._pieces, edges):
            if tensor in piece.layer_inputs:
                return piece.run([tensor], values, {})[tensor]
        return edges[0][tensor]

    def outputs(
        self, layer: Layer, edges: Sequence[Values], changes: Mapping[str, Array], changed_input: Array | None = None
    ) -> list[Array]:
        """Return the compared tensors with one layer changed.

        Args:
            edges: what `run` gave for a sample.
            changes: new values of the layer's weight or bias, by the names of those.
            changed_input: what the layer reads instead of its input.
        """
        first = self._index[layer.name]
        values, changes = dict(edges[first]), dict(changes)
        if changed_input is not None:
            changes |= {layer.name + _FLAG: np.array(True), layer.name + _REPLACEMENT: changed_input}
        for piece in self._pieces[first:]:
            values |= piece.run(piece.outputs, values, changes)
            changes = {}
        return [values[name] for name in self.compared]


def logits(fp32: onnx.ModelProto) -> list[str]:
    """Return the tensors of real numbers that stand for a model's outputs: for a softmax or a class what it is made of,
    which tells more."""
    graph, types = Graph(fp32, copy=False), _element_types(fp32)
    names = []
    for name in graph.outputs:
        node = graph.producer(name)
        while node is not None and node.op_type in _CASTS and (before := graph.producer(node.input[0])) is not None:
            name, node = node.input[0], before
        if node is not None and node.op_type in _SQUEEZING and graph.producer(node.input[0]) is not None:
            name = node.input[0]
        if types.get(name) == TensorProto.FLOAT and graph.producer(name) is not None:
            names.append(name)
    return list(dict.fromkeys(names))


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element type of each tensor, as far as ONNX can tell."""
    shapes = inferred(model)
    known = [*shapes.value_info, *shapes.input, *shapes.output]
    return {entry.name: entry.type.tensor_type.elem_type for entry in known}


def _biases(graph: Graph, layers: Sequence[Layer]) -> dict[str, tuple[str, Array]]:
    """Return the bias of each layer: what its node adds itself, or the node that alone reads its output."""
    biases = {}
    for layer in layers:
        node = next(node for node in graph.consumers(layer.weight) if node.op_type in INT8_OPS)
        following = graph.consumers(node.output[0])
        names = list(node.input[2:])
        if not names and len(following) == 1 and following[0].op_type == "Add":
            names = [name for name in following[0].input if name != node.output[0]]
        channels = graph.constant(layer.weight).shape[layer.axis]
        for name in names:
            if graph.is_constant(name) and graph.constant(name).size == channels and len(graph.consumers(name)) == 1:
                biases[layer.name] = (name, graph.constant(name))
    return biases


def _needed(graph: onnx.GraphProto, targets: Collection[str]) -> list[onnx.NodeProto]:
    """Return the nodes that these tensors depend on, in order."""
    names, nodes = set(targets), []
    for node in reversed(graph.node):
        if not names.isdisjoint(node.output):
            names.update(_reads(node))
            nodes.append(node)
    return nodes[::-1]


def _reads(node: onnx.NodeProto) -> list[str]:
    """Return the tensors that a node reads, those of graphs inside it included."""
    graphs = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return [*node.input, *(name for graph in graphs for inner in graph.node for name in _reads(inner))]


def _session(model: onnx.ModelProto) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    # Threads that wait for work at full speed, in each of several sessions, would take it from those that have some.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
