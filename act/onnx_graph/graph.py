"""A view of an ONNX graph that can be rewritten: producers and consumers of tensors, and constants, by name."""

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from act.samples.dataset import Array

_LARGEST_READ = 1024
_ATTRIBUTES = ("group", "strides", "kernel_shape", "channels_last")


class Graph:
    """The nodes of a model in order, its constants (initialisers) and its ends, indexed.

    The index follows what `set_inputs`, `set_input` and `set_output` change of a node, and is made anew with `nodes`.
    Without a copy of the model the graph must only be read.
    """

    def __init__(self, model: onnx.ModelProto, copy: bool = True) -> None:
        self._model = deepcopy(model) if copy else model
        graph = self._model.graph
        self._constants = {each.name: each for each in graph.initializer}
        self.inputs = [each.name for each in graph.input if each.name not in self._constants]
        self.outputs = [each.name for each in graph.output]
        self.nodes = list(graph.node)

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        """Return the nodes in order."""
        return [node for slot in self._slots for node in slot]

    @nodes.setter
    def nodes(self, nodes: Sequence[onnx.NodeProto]) -> None:
        # A node's slot is where what takes its place goes, so that replacing moves nothing else.
        self._slots = [[node] for node in nodes]
        self._slot_of = {id(node): index for index, node in enumerate(nodes)}
        self._producers: dict[str, onnx.NodeProto] = {}
        self._consumers: dict[str, dict[int, onnx.NodeProto]] = {}
        for node in nodes:
            self._index(node)

    def _index(self, node: onnx.NodeProto) -> None:
        self._producers.update(dict.fromkeys(node.output, node))
        for name in node.input:
            self._consumers.setdefault(name, {})[id(node)] = node

    def _forget(self, node: onnx.NodeProto) -> None:
        for name in node.output:
            if self._producers.get(name) is node:
                del self._producers[name]
        for name in set(node.input):
            self._consumers[name].pop(id(node), None)

    def of_type(self, kind: str) -> list[onnx.NodeProto]:
        """Return the nodes of a type, in order."""
        return [node for node in self.nodes if node.op_type == kind]

    def shape_of_input(self, name: str) -> list[int | None]:
        """Return the sizes of an input's axes; None where they are not fixed."""
        found = next(each for each in self._model.graph.input if each.name == name)
        return [each.dim_value if each.HasField("dim_value") else None for each in found.type.tensor_type.shape.dim]

    def is_constant(self, name: str) -> bool:
        """Tell whether a tensor is an initialiser."""
        return name in self._constants

    def constant(self, name: str) -> Array:
        """Return the values of an initialiser."""
        return numpy_helper.to_array(self._constants[name])

    def add_constant(self, name: str, values: Array) -> str:
        """Add an initialiser, or give it other values, and return its name."""
        self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)
        return name

    def producer(self, name: str) -> onnx.NodeProto | None:
        """Return the node that makes a tensor; None for inputs and constants."""
        return self._producers.get(name)

    def consumers(self, name: str) -> list[onnx.NodeProto]:
        """Return the nodes that read a tensor."""
        return list(self._consumers.get(name, {}).values())

    def only_consumer(self, name: str) -> onnx.NodeProto | None:
        """Return the node that reads a tensor, where nothing else does and it is no output of the model."""
        consumers = self._consumers.get(name, {})
        return next(iter(consumers.values())) if len(consumers) == 1 and name not in self.outputs else None

    def activations(self, node: onnx.NodeProto) -> list[str]:
        """Return the tensors that a node reads and that are no constants."""
        return [name for name in node.input if name and not self.is_constant(name)]

    def set_inputs(self, node: onnx.NodeProto, names: Sequence[str]) -> None:
        """Let a node read other tensors."""
        self._forget(node)
        node.input[:] = names
        self._index(node)

    def set_input(self, node: onnx.NodeProto, index: int, name: str) -> None:
        """Let a node read another tensor in the place of one."""
        self.set_inputs(node, [*node.input[:index], name, *node.input[index + 1 :]])

    def set_output(self, node: onnx.NodeProto, index: int, name: str) -> None:
        """Give what a node makes another name."""
        self._forget(node)
        node.output[index] = name
        self._index(node)

    def replace(self, nodes: Sequence[onnx.NodeProto], by: Sequence[onnx.NodeProto]) -> None:
        """Put nodes in the place of the last of others."""
        number = self._slot_of[id(nodes[-1])]
        slot = self._slots[number]
        index = next(index for index, node in enumerate(slot) if node is nodes[-1])
        following = slot[index + 1 :]
        del slot[index + 1 :]
        for node in nodes:
            self.remove(node)
        slot += [*by, *following]
        for node in by:
            self._slot_of[id(node)] = number
            self._index(node)

    def remove(self, node: onnx.NodeProto) -> None:
        """Take a node out."""
        slot = self._slots[self._slot_of.pop(id(node))]
        slot[:] = [other for other in slot if other is not node]
        self._forget(node)

    def remove_constant(self, name: str) -> None:
        """Take an initialiser out."""
        del self._constants[name]

    def model(self, tidy: bool = True) -> onnx.ModelProto:
        """Return the rewritten model, checked; if tidy, without constants that nothing reads, and equal ones as one."""
        if tidy:
            self._share_constants()
        graph, nodes = self._model.graph, self.nodes
        read = {name for node in nodes for name in node.input} | set(self.outputs)
        del graph.node[:]
        graph.node.extend(nodes)
        del graph.initializer[:]
        graph.initializer.extend(each for name, each in self._constants.items() if not tidy or name in read)
        if tidy:
            del graph.value_info[:]
        onnx.checker.check_model(self._model)
        return deepcopy(self._model)

    def _share_constants(self) -> None:
        """Let equal constants be one: zero points and the like are many, and count in a small model's size."""
        first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
        instead: dict[str, str] = {}
        for name, each in self._constants.items():
            key = (each.data_type, tuple(each.dims), numpy_helper.to_array(each).tobytes())
            instead[name] = first.setdefault(key, name)
        for node in self.nodes:
            shared = [instead.get(name, name) for name in node.input]
            if shared != list(node.input):
                self.set_inputs(node, shared)


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return the value of a node's attribute."""
    found = next((each for each in node.attribute if each.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def slope_and_middle(node: onnx.NodeProto) -> tuple[float, float]:
    """Return both of a `HardSigmoid`, which is clip(slope x + middle, 0, 1)."""
    return attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)


def inferred(model: onnx.ModelProto, strict: bool = False) -> onnx.GraphProto:
    """Return the main graph with what could be inferred in `value_info`, large weights left out.

    ONNX's inference takes the model in one piece, so that every call would copy all weights. It asks for the values of
    small tensors only, such as the target of a reshape; the shapes of the others do.

    Args:
        strict: raise `onnx.shape_inference.InferenceError` where the model contradicts itself.
    """
    graph, given = model.graph, {each.name for each in model.graph.input}
    small, weights = [], []
    for each in graph.initializer:
        if math.prod(each.dims) <= _LARGEST_READ:
            small.append(each)
        elif each.name not in given:
            weights.append(helper.make_tensor_value_info(each.name, each.data_type, each.dims))
    inputs = [*graph.input, *weights]
    light = helper.make_model(
        helper.make_graph(graph.node, graph.name, inputs, graph.output, small, value_info=graph.value_info),
        ir_version=model.ir_version,
        opset_imports=model.opset_import,
        functions=model.functions,
    )
    result = onnx.shape_inference.infer_shapes(light, strict_mode=strict).graph
    del result.input[len(graph.input) :]
    return result


@dataclass(frozen=True)
class FusedOperator:
    """What a kernel's descriptions leave out of an ONNX operator that it was made of."""

    type: str
    attributes: dict[str, Any]  # of `_ATTRIBUTES`; `blocked` where it computes on blocks of channels
    fused: list[str]  # the types that it says were fused into it
    constants: list[list[int]]  # the shapes of the initialisers that it reads


def named_operators(graph: onnx.GraphProto) -> dict[str, FusedOperator]:
    """Return the operators of an ONNX graph by their name, and by the name of their first output."""
    shapes = {initialiser.name: list(initialiser.dims) for initialiser in graph.initializer}
    found: dict[str, FusedOperator] = {}
    for node in graph.node:
        values = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        attributes = {name: values[name] for name in _ATTRIBUTES if name in values}
        if node.domain == "com.ms.internal.nhwc":
            attributes["channels_last"] = 1
        elif node.domain == "com.microsoft.nchwc":
            attributes["blocked"] = 1
        # ONNX Runtime's fused operators name their activation function.
        fused = [values["activation"].decode()] if values.get("activation") else []
        constants = [shapes[name] for name in node.input if name in shapes]
        operator = FusedOperator(node.op_type, attributes, fused, constants)
        found |= dict.fromkeys(filter(None, (node.output[0], node.name)), operator)
    return found
