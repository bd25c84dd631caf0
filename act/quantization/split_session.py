"""The fp32 model in pieces, in which one layer's weight, bias and input can be changed from run to run.

The model is cut into pieces in the order of its nodes. What lies before the piece of a changed layer need not run
again, and that piece is cut once more, around the layer: the layer alone takes its constants from the caller, while all
others are constants to ONNX Runtime, which has faster kernels for those.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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

Values = dict[str, Array]


@dataclass
class _Piece:
    """Some nodes in a row: what they read, and those of their tensors that are asked for."""

    session: Any
    inputs: list[str]
    outputs: list[str]

    def run(self, values: Mapping[str, Array]) -> Values:
        if not self.outputs:
            return {}
        return dict(zip(self.outputs, self.session.run(self.outputs, {name: values[name] for name in self.inputs})))


class SplitSession:
    """An fp32 model in which single layers can be changed; it runs on one thread.

    Args:
        fp32: what `to_onnx` made of the model; not changed.
        layers: all must be in the ONNX model.
        compared: the tensors that changed layers are compared by.
        batches: that the unchanged model is run on.

    Attributes:
        edges: for each batch what the unchanged model gives: all tensors before each piece, and behind the last one.
    """

    def __init__(
        self,
        fp32: onnx.ModelProto,
        layers: Sequence[Layer],
        compared: Sequence[str],
        batches: Sequence[Mapping[str, Array]],
    ) -> None:
        self._fp32, self.compared = fp32, compared
        self._constants = {entry.name: entry for entry in fp32.graph.initializer}
        self._inputs = activation_tensors(fp32, layers)
        self._biases = _biases(Graph(fp32, copy=False), layers)
        self._places: dict[str, tuple[int, int]] = {}
        self._parts = self._cut(layers)
        self._pieces: list[_Piece] = []
        self.edges: list[list[Values]] = [[dict(batch)] for batch in batches]
        asked: list[set[str]] = [{*compared}]
        for part in reversed(self._parts):
            asked.append(asked[-1].union(_read(part)))
        for part, names in zip(self._parts, asked[-2::-1]):
            piece = self._piece(part, names, self.edges[0][-1])
            self._pieces.append(piece)
            for edges in self.edges:
                edges.append({**edges[-1], **piece.run(edges[-1])})

    def _cut(self, layers: Sequence[Layer]) -> list[list[onnx.NodeProto]]:
        """Cut the nodes that matter into pieces of about equally many layers, each before the addition of its bias."""
        names, nodes = {layer.weight: layer.name for layer in layers}, self._fp32.graph.node
        found = {node.output[0]: names[node.input[1]] for node in nodes if _is_layer(node) and node.input[1] in names}
        moved = {node.output[0] for _, _, node in self._biases.values() if node is not None}
        parts: list[list[onnx.NodeProto]] = [[]]
        for node in _needed(nodes, {*self.compared, *found}):
            name = found.get(node.output[0])
            if name is not None:
                if len(self._places) * _PIECES >= len(parts) * len(layers):
                    parts.append([])
                self._places[name] = len(parts) - 1, len(parts[-1])
                addition = self._biases[name][2] if name in self._biases else None
                parts[-1] += [node] if addition is None else [node, addition]
            elif node.output[0] not in moved:
                parts[-1].append(node)
        return parts

    def _piece(
        self,
        nodes: Sequence[onnx.NodeProto],
        asked: Collection[str],
        values: Mapping[str, Array],
        changeable: Collection[str] = (),
    ) -> _Piece:
        """Make a piece of nodes that gives the tensors asked for.

        Args:
            values: examples of what it reads.
            changeable: constants that it reads from the caller.
        """
        made = {name: None for node in nodes for name in node.output if name}
        read = [name for name in _read(nodes) if name not in made]
        constants = [self._constants[name] for name in read if name in self._constants and name not in changeable]
        inputs = [name for name in read if name in changeable or name not in self._constants]
        outputs = [name for name in made if name in asked]
        types = {name: helper.np_dtype_to_tensor_dtype(values[name].dtype) for name in inputs}
        graph = helper.make_graph(
            nodes,
            "piece",
            [helper.make_tensor_value_info(name, kind, None) for name, kind in types.items()],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            constants,
        )
        model = helper.make_model(graph, opset_imports=self._fp32.opset_import, ir_version=self._fp32.ir_version)
        model.functions.extend(self._fp32.functions)
        return _Piece(_session(model) if outputs else None, inputs, outputs)

    def around(self, layer: Layer) -> ChangeableLayer:
        """Return a layer, cut out of its piece."""
        index, place = self._places[layer.name]
        part, whole = self._parts[index], self._pieces[index]
        constants = {layer.weight: numpy_helper.to_array(self._constants[layer.weight])}
        count = 1
        if layer.name in self._biases:
            name, bias, addition = self._biases[layer.name]
            constants[name] = bias
            count += addition is not None
        changed, behind = part[place : place + count], part[place + count :]
        asked, edge = {*whole.outputs, *_read(behind)}, self.edges[0]
        before = self._piece(part[:place], {*_read(changed), *_read(behind)}, edge[index])
        values = {**edge[index], **before.run(edge[index]), **constants}
        alone = self._piece(changed, asked, values, constants)
        values |= alone.run(values)
        return ChangeableLayer(
            self._inputs[layer.activation],
            constants,
            index,
            before,
            alone,
            [self._piece(behind, whole.outputs, values), *self._pieces[index + 1 :]],
            self.compared,
        )


@dataclass
class ChangeableLayer:
    """A layer whose constants and input can be changed.

    Attributes:
        input: the tensor that it reads.
        constants: its weight first, and its bias where it has one of its own, by name.
    """

    input: str
    constants: Values
    _index: int
    _before: _Piece
    _alone: _Piece
    _behind: list[_Piece]
    _compared: Sequence[str]

    def values_before(self, edges: Sequence[Values]) -> Values:
        """Return the tensors ahead of the layer, from the edges of a batch."""
        return {**edges[self._index], **self._before.run(edges[self._index])}

    def outputs(self, edges: Sequence[Values], before: Values, changes: Mapping[str, Array]) -> list[Array]:
        """Return the compared tensors with other constants or another input, by their names.

        Args:
            before: what `values_before` gave for the batch.
        """
        made = self._alone.run({**before, **self.constants, **changes})
        made |= self._behind[0].run({**before, **made})
        values = {**edges[self._index + 1], **made}
        for piece in self._behind[1:]:
            values |= piece.run(values)
        return [values[name] for name in self._compared]


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


def _biases(graph: Graph, layers: Sequence[Layer]) -> dict[str, tuple[str, Array, onnx.NodeProto | None]]:
    """Return name and values of each layer's bias, and the node that adds it where the layer's own does not."""
    biases = {}
    for layer in layers:
        node = next(node for node in graph.consumers(layer.weight) if _is_layer(node))
        following = graph.consumers(node.output[0])
        names = list(node.input[2:])
        if not names and len(following) == 1 and following[0].op_type == "Add":
            names = [name for name in following[0].input if name != node.output[0]]
        channels = graph.constant(layer.weight).shape[layer.axis]
        for name in names:
            if graph.is_constant(name) and graph.constant(name).size == channels and len(graph.consumers(name)) == 1:
                biases[layer.name] = (name, graph.constant(name), None if len(node.input) > 2 else following[0])
    return biases


def _is_layer(node: onnx.NodeProto) -> bool:
    return node.op_type in INT8_OPS and len(node.input) > 1


def _needed(nodes: Sequence[onnx.NodeProto], targets: Collection[str]) -> list[onnx.NodeProto]:
    """Return the nodes that these tensors depend on, in order."""
    names, needed = set(targets), []
    for node in reversed(nodes):
        if not names.isdisjoint(node.output):
            names.update(_read([node]))
            needed.append(node)
    return needed[::-1]


def _read(nodes: Sequence[onnx.NodeProto]) -> dict[str, None]:
    """Return what nodes read, graphs inside them included, and none of them makes ahead of it."""
    read: dict[str, None] = {}
    made: set[str] = set()
    for node in nodes:
        read |= {name: None for name in node.input if name and name not in made}
        for inner in (attribute.g for attribute in node.attribute if attribute.HasField("g")):
            own = {each.name for each in (*inner.input, *inner.initializer)}
            read |= {name: None for name in _read(inner.node) if name not in own | made}
        made.update(node.output)
    return read


def _session(model: onnx.ModelProto) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
