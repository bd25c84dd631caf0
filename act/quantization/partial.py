"""The fp32 model in pieces, in which the weights of layers, and what layers read, can be changed from run to run.

ONNX Runtime takes an initialiser that is also an input from the caller, so that no session is made anew for a change.
What lies before a changed layer need not run again: the model is cut into pieces in the order of its nodes, and a
run begins with the piece that holds the layer, from what the unchanged model left at its edge.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from act.program.layers import Layer
from act.quantization.onnx_model import activation_tensors
from act.samples.dataset import Array

_PIECES = 8
_SQUEEZING = ("Softmax", "ArgMax")
_CASTS = ("Cast", "Identity")

Values = dict[str, Array]


@dataclass
class _Piece:
    """Some nodes in a row.

    Attributes:
        session: that runs them.
        given: tensors of other pieces that it reads.
        made: its tensors that others read, or that are compared.
        watched: its tensors that its layers read.
    """

    session: Any
    given: list[str]
    made: list[str]
    watched: list[str]


@dataclass
class Pieces:
    """The model, cut.

    Args:
        fp32: what `to_onnx` made of the model; not changed.
        layers: whose weights, biases and inputs can be changed; all must be in the ONNX model.

    Attributes:
        compared: the tensors that stand for the outputs: those of real numbers, and for a softmax or the number of a
            class what is read to make it, which tells more. Empty where there are none.
        reads: the tensor that each layer reads, by the layer's name.
        biases: name and values of the bias of each layer that has one of its own, likewise.
    """

    fp32: onnx.ModelProto
    layers: Sequence[Layer]
    compared: list[str] = field(init=False)
    reads: dict[str, str] = field(init=False)
    biases: dict[str, tuple[str, Array]] = field(init=False)

    def __post_init__(self) -> None:
        found = activation_tensors(self.fp32, self.layers)
        self.reads = {layer.name: found[layer.activation] for layer in self.layers}
        self.biases = _biases(self.fp32.graph, self.layers)
        self.compared = compared_tensors(self.fp32)
        nodes = _needed(self.fp32.graph, [*self.compared, *self.reads.values()])
        self._place = {layer.name: 0 for layer in self.layers}
        self._pieces = [self._piece(part, nodes) for part in self._cut(nodes)] if self.compared else []

    def _cut(self, nodes: Sequence[onnx.NodeProto]) -> list[list[onnx.NodeProto]]:
        """The nodes in pieces of about equally many layers; in one, where a node holds a graph of its own."""
        weights = {layer.weight: layer.name for layer in self.layers}
        whole = any(attribute.HasField("g") for node in nodes for attribute in node.attribute)
        each = max(1, -(-len(self.layers) // _PIECES))
        parts: list[list[onnx.NodeProto]] = [[]]
        count = 0
        for node in nodes:
            name = weights.get(node.input[1]) if len(node.input) > 1 and node.op_type in _LAYER_NODES else None
            if name is not None:
                if count == each and not whole:
                    parts.append([])
                    count = 0
                count += 1
                self._place[name] = len(parts) - 1
            parts[-1].append(node)
        return parts

    def _piece(self, part: Sequence[onnx.NodeProto], nodes: Sequence[onnx.NodeProto]) -> _Piece:
        graph = self.fp32.graph
        inside = {name for node in part for name in node.output}
        read = dict.fromkeys(name for node in part for name in (*node.input, *_read_inside(node)) if name)
        initialisers = {entry.name: entry for entry in graph.initializer if entry.name in read}
        given = [name for name in read if name not in inside and name not in initialisers]
        others = [node for node in nodes if not any(node is own for own in part)]
        outside = {name for node in others for name in (*node.input, *_read_inside(node))}
        made = [name for name in inside if name in outside or name in self.compared]
        watched = [name for name in dict.fromkeys(self.reads.values()) if name in inside]
        types = self._types()
        changed = [_with_change(node, self.layers) for node in part]
        inputs = [helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), None) for name in given]
        here = [layer for layer in self.layers if any(layer.weight in node.input for node in part)]
        changes = [numpy_helper.from_array(np.zeros((), np.float32), _change(layer.name)) for layer in here]
        free = [name for name in initialisers if name in self._changeable()] + [entry.name for entry in changes]
        inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in free]
        outputs = [onnx.ValueInfoProto(name=name) for name in dict.fromkeys([*made, *watched])]
        built = helper.make_graph(
            [node for pair in changed for node in pair], "piece", inputs, outputs, [*initialisers.values(), *changes]
        )
        model = helper.make_model(built, opset_imports=list(self.fp32.opset_import), ir_version=self.fp32.ir_version)
        model.functions.extend(self.fp32.functions)
        return _Piece(_session(model), given, made, watched)

    def _changeable(self) -> set[str]:
        return {*(layer.weight for layer in self.layers), *(name for name, _ in self.biases.values())}

    def _types(self) -> dict[str, int]:
        """The element type of each tensor, as far as ONNX can tell."""
        if not hasattr(self, "_known_types"):
            inferred = onnx.shape_inference.infer_shapes(self.fp32).graph
            known = [*inferred.value_info, *inferred.input, *inferred.output]
            self._known_types = {entry.name: entry.type.tensor_type.elem_type for entry in known}
        return self._known_types

    def run(self, feeds: Mapping[str, Array]) -> tuple[list[Values], Values]:
        """Run the unchanged model.

        Returns:
            For each piece the tensors at its edge, and all tensors that layers read, by name.
        """
        values: Values = dict(feeds)
        seen: Values = {name: feeds[name] for name in self.reads.values() if name in feeds}
        edges = []
        for piece in self._pieces:
            edges.append(dict(values))
            names = list(dict.fromkeys([*piece.made, *piece.watched]))
            made = dict(zip(names, _run(piece, names, values)))
            values |= {name: made[name] for name in piece.made}
            seen |= {name: made[name] for name in piece.watched}
        edges.append(values)
        return edges, seen

    def read_by(self, layer: Layer, edges: Sequence[Values]) -> Array:
        """What a layer reads in the unchanged model.

        Args:
            edges: what `run` gave for a sample.
        """
        tensor = self.reads[layer.name]
        place = next((p for p, piece in enumerate(self._pieces) if tensor in piece.watched), None)
        if place is None:
            value: Array = edges[0][tensor]
            return value
        value = _run(self._pieces[place], [tensor], edges[place])[0]
        return value

    def outputs(
        self, layer: Layer, edges: Sequence[Values], changes: Mapping[str, Array], added: Array | None = None
    ) -> list[Array]:
        """The compared tensors, with one layer changed.

        Args:
            edges: what `run` gave for the sample.
            changes: new values of weights, by name.
            added: to what the layer reads.
        """
        place = self._place[layer.name]
        values = dict(edges[place])
        given: Values = dict(changes)
        if added is not None:
            given[_change(layer.name)] = added
        for piece in self._pieces[place:]:
            values |= dict(zip(piece.made, _run(piece, piece.made, values, given)))
            given = {}
        return [values[name] for name in self.compared]


_LAYER_NODES = ("Conv", "ConvTranspose", "MatMul")


def compared_tensors(fp32: onnx.ModelProto) -> list[str]:
    """The tensors of real numbers that stand for the outputs of a model."""
    makers = {name: node for node in fp32.graph.node for name in node.output}
    inferred = onnx.shape_inference.infer_shapes(fp32).graph
    types = {entry.name: entry.type.tensor_type.elem_type for entry in (*inferred.value_info, *inferred.output)}
    found = []
    for output in fp32.graph.output:
        name, node = output.name, makers.get(output.name)
        while node is not None and node.op_type in _CASTS and node.input[0] in makers:
            name, node = node.input[0], makers[node.input[0]]
        if node is not None and node.op_type in _SQUEEZING and node.input[0] in makers:
            name = node.input[0]
        if types.get(name) == TensorProto.FLOAT and name in makers:
            found.append(name)
    return list(dict.fromkeys(found))


def _biases(graph: onnx.GraphProto, layers: Sequence[Layer]) -> dict[str, tuple[str, Array]]:
    """The bias of each layer: what its node adds itself, or the node that alone reads what it makes."""
    initialisers = {entry.name: entry for entry in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = {}
    for layer in layers:
        node = next(node for node in readers[layer.weight] if node.op_type in _LAYER_NODES)
        behind = readers.get(node.output[0], [])
        names = list(node.input[2:])
        if not names and len(behind) == 1 and behind[0].op_type == "Add":
            names = [name for name in behind[0].input if name != node.output[0]]
        channels = initialisers[layer.weight].dims[layer.axis]
        for name in names:
            if name in initialisers and np.prod(initialisers[name].dims) == channels and len(readers[name]) == 1:
                found[layer.name] = (name, numpy_helper.to_array(initialisers[name]))
    return found


def _needed(graph: onnx.GraphProto, wanted: Collection[str]) -> list[onnx.NodeProto]:
    """The nodes that these tensors depend on, in order."""
    names, found = set(wanted), []
    for node in reversed(graph.node):
        if any(name in names for name in node.output):
            names.update(node.input)
            names.update(_read_inside(node))
            found.append(node)
    return found[::-1]


def _read_inside(node: onnx.NodeProto) -> list[str]:
    """The tensors that graphs inside a node read."""
    graphs = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return [name for graph in graphs for inner in graph.node for name in (*inner.input, *_read_inside(inner))]


def _change(layer: str) -> str:
    """The name of what is added to what a layer reads."""
    return f"{layer}.change"


def _with_change(node: onnx.NodeProto, layers: Sequence[Layer]) -> list[onnx.NodeProto]:
    """A layer's node behind an addition to what it reads; others as they are."""
    layer = next((each for each in layers if len(node.input) > 1 and node.input[1] == each.weight), None)
    if layer is None or node.op_type not in _LAYER_NODES:
        return [node]
    moved = onnx.NodeProto()
    moved.CopyFrom(node)
    moved.input[0] = f"{layer.name}.changed"
    return [helper.make_node("Add", [node.input[0], _change(layer.name)], [moved.input[0]]), moved]


def _session(model: onnx.ModelProto) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    # Threads that wait for work at full speed, in each of several sessions, would take it from those that have some.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _run(
    piece: _Piece, names: Sequence[str], values: Mapping[str, Array], given: Mapping[str, Array] | None = None
) -> list[Array]:
    if not names:
        return []
    feeds = {name: values[name] for name in piece.given}
    found: list[Array] = piece.session.run(list(names), {**feeds, **(given or {})})
    return found
