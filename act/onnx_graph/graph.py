"""A view of an ONNX graph that can be rewritten: who makes a tensor, who reads it, which are constant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Array = npt.NDArray[Any]


class Graph:
    """The nodes of a copied model in order, its constants and its ends.

    Args:
        model: ONNX, with constants as initialisers; not changed.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        graph = self._model.graph
        self.nodes: list[onnx.NodeProto] = list(graph.node)
        self._constants = {each.name: each for each in graph.initializer}
        self.inputs = [each.name for each in graph.input if each.name not in self._constants]
        self.outputs = [each.name for each in graph.output]

    def shape_of_input(self, name: str) -> list[int | None]:
        """The sizes of an input's axes; None where they are not fixed."""
        found = next(each for each in self._model.graph.input if each.name == name)
        return [each.dim_value if each.HasField("dim_value") else None for each in found.type.tensor_type.shape.dim]

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is an initialiser."""
        return name in self._constants

    def constant(self, name: str) -> Array:
        """The values of an initialiser."""
        values: Array = numpy_helper.to_array(self._constants[name])
        return values

    def add_constant(self, name: str, values: Array) -> str:
        """Add an initialiser, or give it other values; returns its name."""
        self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)
        return name

    def maker(self, name: str) -> onnx.NodeProto | None:
        """The node that makes a tensor; None for inputs and constants."""
        return next((node for node in self.nodes if name in node.output), None)

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that read a tensor, in order."""
        return [node for node in self.nodes if name in node.input]

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        """The node that reads a tensor, where nothing else does and it is no output of the model."""
        readers = self.readers(name)
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def activations(self, node: onnx.NodeProto) -> list[str]:
        """The tensors that a node reads and that are no constants."""
        return [name for name in node.input if name and not self.is_constant(name)]

    def replace(self, nodes: Sequence[onnx.NodeProto], by: Sequence[onnx.NodeProto]) -> None:
        """Put nodes in the place of the last of others."""
        place = self._index(nodes[-1])
        kept = [node for node in self.nodes[:place] if not _among(node, nodes)]
        self.nodes = [*kept, *by, *self.nodes[place + 1 :]]

    def remove(self, node: onnx.NodeProto) -> None:
        """Take a node out."""
        del self.nodes[self._index(node)]

    def _index(self, node: onnx.NodeProto) -> int:
        return next(index for index, other in enumerate(self.nodes) if other is node)

    def model(self) -> onnx.ModelProto:
        """The rewritten model, checked, without constants that nothing reads, and each only once.

        Raises:
            onnx.checker.ValidationError: it is not valid.
        """
        self._share_constants()
        read = {name for node in self.nodes for name in node.input} | set(self.outputs)
        graph = self._model.graph
        nodes = list(self.nodes)
        del graph.node[:]
        graph.node.extend(nodes)
        del graph.initializer[:]
        graph.initializer.extend(each for name, each in self._constants.items() if name in read)
        del graph.value_info[:]
        onnx.checker.check_model(self._model)
        result = onnx.ModelProto()
        result.CopyFrom(self._model)
        return result

    def _share_constants(self) -> None:
        """Let equal constants be one: zero points and the like are many, and count in a small model's size."""
        first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
        instead: dict[str, str] = {}
        for name, each in self._constants.items():
            key = (each.data_type, tuple(each.dims), numpy_helper.to_array(each).tobytes())
            instead[name] = first.setdefault(key, name)
        for node in self.nodes:
            for place, name in enumerate(node.input):
                node.input[place] = instead.get(name, name)


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute."""
    found = next((each for each in node.attribute if each.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def _among(node: onnx.NodeProto, nodes: Sequence[onnx.NodeProto]) -> bool:
    return any(node is other for other in nodes)
