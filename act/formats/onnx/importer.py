"""An ONNX graph as a Paddle program with the same names: node by node, what is constant computed at once.

A value is one of three: a Paddle variable, a constant, or a small array of lengths some of which are known when the
model runs only (`act.formats.onnx.dimension`). So shapes are computed while importing, as far as they can be, and what
PyTorch writes as `Shape`, `Gather`, `Concat` and `Reshape` becomes one `reshape2` with zeros and a -1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from act.errors import InputError, quoted
from act.formats.onnx import folding
from act.formats.onnx.dimension import Dimension, Number, TooDeep, dimension, is_symbolic
from act.formats.onnx.lengths import told
from act.formats.onnx.node import HELD_AS, Node, Refused, Value, Variable, dtype_of
from act.formats.onnx.operators.registry import find
from act.formats.onnx.reading import OnnxModel, known_shapes
from act.formats.onnx.schema import check
from act.program.files import DTYPES
from act.program.model import InferenceModel, reason
from act.program.paddle_setup import paddle
from act.program.parts import with_ends
from act.samples.dataset import Array

from paddle.base.proto import framework_pb2  # isort: skip

_PREFIX = "act@"
_LARGEST_INT64 = 2**63 - 1
_DTYPES = frozenset(DTYPES.values()) - {"uint16"}


class RefusedNode(InputError):
    """A node cannot be imported.

    Attributes:
        outputs: the names of what it makes.
    """

    def __init__(self, message: str, outputs: Sequence[str]) -> None:
        super().__init__(message)
        self.outputs = list(outputs)


def _truncated_quotient(first: Variable, second: Variable) -> Variable:
    """Divide whole numbers towards 0."""
    quotient = paddle.floor_divide(paddle.abs(first), paddle.abs(second))
    return quotient * paddle.sign(first) * paddle.sign(second)


_OF_LENGTHS: dict[str, Callable[..., Variable]] = {
    "+": paddle.add,
    "-": paddle.subtract,
    "*": paddle.multiply,
    "/": paddle.divide,
    "//": paddle.floor_divide,
    "truncated //": _truncated_quotient,
    "floor": paddle.floor,
    "ceil": paddle.ceil,
    "truncate": paddle.trunc,
    "max": paddle.maximum,
    "min": paddle.minimum,
}
"""What computes a `Dimension` of each kind."""
_CURE = "export the model again if the node is wrong, or without it"
_KEPT_NAMES = frozenset(("feed", "fetch"))
"""Names that stand for the ends of each program in Paddle's files."""


def _cause(error: Exception) -> str:
    """Return why Paddle or NumPy did not take something, without the values that Paddle's bindings list."""
    lines = str(error).splitlines()
    is_binding = any(line.startswith("Invoked with:") for line in lines)
    return lines[0].partition(" The following argument types")[0] if is_binding else reason(error)


def import_model(source: OnnxModel) -> InferenceModel:
    """Return the program that computes what a model computes, with its names of inputs, outputs and tensors.

    Raises:
        InputError: an operator cannot be taken, or not as it is used; the message names the first such node.
    """
    return Importer(source).run()


class Importer:
    """Builds the program of one model."""

    def __init__(self, source: OnnxModel) -> None:
        self._source = source
        self._program, self._begin = paddle.static.Program(), paddle.static.Program()
        self._weights: dict[str, Array] = {}
        self._names: dict[str, str] = {}  # of a variable: the ONNX tensor that it is
        self._tensors: dict[str, tuple[Array, Variable]] = {}  # constants that were made weights, by ONNX name
        self._lengths: dict[Dimension, Variable] = {}
        self._told: dict[str, Sequence[Number | None]] = {}  # lengths of a variable's axes
        self._symbols: dict[str, Dimension] = {}
        self._shapes = known_shapes(source)
        self.reals: set[str] = set()  # ONNX tensors that hold lengths as real numbers
        self.folded_bytes = 0  # of constants that were computed
        self.constant_bytes = 0  # of the file's own
        self.trips = 0  # of loops that were written out
        self._now = ""  # the output of the node at work, for what it needs beside

    def run(self) -> InferenceModel:
        with (
            paddle.static.program_guard(self._program, self._begin),
            paddle.utils.unique_name.guard(_PREFIX),
        ):
            self._check_names()
            values: dict[str, Value] = {}
            feeds = [self._feed(each, values) for each in self._source.inputs]
            for tensor in self._source.graph.initializer:
                values[tensor.name] = self.array(tensor)
                self.constant_bytes += values[tensor.name].nbytes
            self.subgraph(self._source.graph, values)
            fetches = self._fetches(values, feeds)
        return self._finish(feeds, fetches)

    def _check_names(self) -> None:
        for role, values in (("input", self._source.inputs), ("output", self._source.graph.output)):
            for name in (each.name for each in values if each.name in _KEPT_NAMES):
                raise InputError(
                    f"{self._source.path}: its {role} is called `{name}`, a name that Paddle's files keep for "
                    f"themselves; rename that {role} and export the model again"
                )

    # What operators are built with.

    @property
    def block(self) -> Any:
        return self._program.global_block()

    def array(self, tensor: onnx.TensorProto) -> Array:
        """Return the values of a tensor, half precision as float32; unsigned numbers, which wrap around, as such."""
        try:
            values = numpy_helper.to_array(tensor)
        except Exception as error:  # damaged tensors raise all kinds
            raise InputError(
                f"{self._source.path}: tensor `{tensor.name}` is damaged: {error}; export the model again"
            ) from None
        held = HELD_AS.get(values.dtype.name, values.dtype.name)
        if held not in _DTYPES:
            raise InputError(
                f"{self._source.path}: tensor `{tensor.name}` is of {values.dtype.name}, which Paddle does not have; "
                "export the model in float32"
            )
        return values if values.dtype.kind == "u" else values.astype(held, copy=False)

    def tensor(self, value: Array, name: str = "", has_axis: bool = False, dtype: str = "int64") -> Variable:
        """Return a constant as a weight of the program, and lengths as a tensor that is computed, of a dtype.

        Paddle's files hold no weights without axes: such a one has an axis of length 1, which a reshape takes away
        where `has_axis` does not allow it.
        """
        if is_symbolic(value):
            is_real = name in self.reals and not dtype.startswith("float")
            return self._computed(value, "float32" if is_real else dtype)
        known, variable = self._tensors.get(name, (None, None))
        if known is not value:
            variable = self.weight(value if value.ndim else value.reshape(1), name)
            if name:
                self._tensors[name] = (value, variable)
        return variable if value.ndim or has_axis else paddle.reshape(variable, [])

    def weight(self, value: Array, name: str = "") -> Variable:
        """Declare a new weight; its name is free where another tensor has it."""
        if not value.ndim:
            return paddle.reshape(self.weight(value.reshape(1), name), [])
        dtype = dtype_of(value)
        if value.dtype == np.uint64 and value.max(initial=0) > _LARGEST_INT64:
            raise Refused("it has numbers of uint64 that int64 does not hold; export the model with int64")
        variable = self.block.create_var(
            name=paddle.utils.unique_name.generate("weight"), shape=value.shape, dtype=dtype, persistable=True
        )
        variable.stop_gradient = True
        self._weights[variable.name] = value.astype(dtype, copy=False)
        self._names.setdefault(variable.name, name or f"{self._now}.constant")
        return variable

    def values(self, weight: Variable) -> Array:
        """Return the values of a weight."""
        return self._weights[weight.name]

    def op(self, kind: str, inputs: Mapping[str, Sequence[Variable]], attributes: Mapping[str, Any], like: str) -> Any:
        """Append an operator of Paddle's own type with one output in slot `Out`, of a dtype, and return that."""
        result = self.block.create_var(name=paddle.utils.unique_name.generate(kind), dtype=like)
        self.block.append_op(type=kind, inputs=dict(inputs), outputs={"Out": [result]}, attrs=dict(attributes))
        return result

    def shape(self, variable: Variable) -> list[Number]:
        """Return the lengths of a variable's axes; a `Dimension` where one is not known."""
        known = self._shapes.get(self._names.get(variable.name, variable.name), ())
        own_lengths = self._told.get(variable.name, [None] * len(variable.shape))
        result: list[Number] = []
        for axis, length in enumerate(variable.shape):
            if length >= 0:
                result.append(int(length))
                continue
            if own_lengths[axis] is not None:
                result.append(own_lengths[axis])
                continue
            own = dimension("axis", variable.name, axis)
            symbol = known[axis] if axis < len(known) else None
            result.append(self._symbols.setdefault(symbol, own) if isinstance(symbol, str) else own)
        return result

    def inferred_shape(self, name: str) -> list[int | str | None]:
        """Return the lengths that ONNX's shape inference finds of a tensor; an empty list where it finds none."""
        return self._shapes.get(name, [])

    def reshape(self, variable: Variable, target: Sequence[Number], before: Sequence[Number] | None = None) -> Variable:
        """Reshape; lengths that stay where they are become 0, and of others that are not known the last one -1.

        `before` is the shape so far, where more of it is known than of the variable's own.
        """
        before = self.shape(variable) if before is None else before
        target = [
            0 if isinstance(each, Dimension) and axis < len(before) and before[axis] == each else each
            for axis, each in enumerate(target)
        ]
        unknown = [axis for axis, each in enumerate(target) if isinstance(each, Dimension)]
        if unknown and -1 not in target:
            target[unknown[-1]] = -1
        return paddle.reshape(variable, [self.length(e) if isinstance(e, Dimension) else int(e) for e in target])

    def where(self, condition: Variable, first: Variable, second: Variable) -> Variable:
        """Return the first of two tensors of one shape where a truth value of no axes holds, else the second."""
        return paddle.where(paddle.logical_and(condition, paddle.ones_like(first).astype("bool")), first, second)

    def length(self, number: Number, dtype: str = "int32") -> Variable:
        """Return a length as a tensor of shape [1]."""
        if not isinstance(number, Dimension):
            return paddle.full([1], number, dtype)
        if number not in self._lengths:
            self._lengths[number] = self._length(number)
        found = self._lengths[number]
        return found if DTYPES[found.desc.dtype()] == dtype else paddle.cast(found, dtype)

    def _length(self, number: Dimension) -> Variable:
        if number.kind == "axis":
            name, axis = number.operands
            shape = self.op("shape", {"Input": [self.block.var(name)]}, {}, "int32")
            return paddle.slice(shape, [0], [axis], [axis + 1])
        # What is rounded is computed as real numbers.
        is_rounded = number.kind in ("floor", "ceil", "truncate")
        whole = "int64" if number.is_large else "int32"
        dtype = whole if number.is_whole and not is_rounded else "float32"
        result = _OF_LENGTHS[number.kind](*(self.length(each, dtype) for each in number.operands))
        return paddle.cast(result, whole) if is_rounded else result

    def _computed(self, values: Array, dtype: str) -> Variable:
        flat = [self.length(each, dtype) for each in values.reshape(-1)]
        joined = paddle.concat(flat) if len(flat) > 1 else flat[0]
        return paddle.reshape(joined, list(values.shape))

    # Node by node.

    def subgraph(self, graph: onnx.GraphProto, values: dict[str, Value]) -> None:
        """Import the nodes of a graph; `values` has what is known before, and gets what they compute."""
        for proto in graph.node:
            node = Node(
                proto,
                self._source.version(proto.domain),
                [self._input(name, proto, values) for name in proto.input],
                self,
            )
            self._now = next((name for name in proto.output if name), proto.op_type)
            try:
                results = self._results(node, proto, values)
            except (Refused, TooDeep) as refusal:
                raise self._error(proto, str(refusal)) from None
            except InputError:
                raise
            except Exception as error:  # Paddle and NumPy raise all kinds on what they do not take
                raise self._error(proto, f"Paddle does not take it: {_cause(error)}; {_CURE}") from error
            for name, value in zip(proto.output, results):
                if name and value is not None:
                    values[name] = value
                    if not isinstance(value, np.ndarray):
                        self._claim(value, name)
            self._tell(node, results)

    def _input(self, name: str, proto: onnx.NodeProto, values: Mapping[str, Value]) -> Value | None:
        if not name:
            return None
        if name not in values:
            raise self._error(proto, f"its input `{name}` is nowhere computed; export the model again")
        return values[name]

    def _results(self, node: Node, proto: onnx.NodeProto, values: dict[str, Value]) -> Sequence[Value]:
        if (control := folding.CONTROL.get(proto.op_type)) is not None:
            return control(node, values)
        check(proto, node.version)
        folded = folding.fold(node, proto, self._source)
        if folded is not None:
            return folded
        function = find(proto.domain, proto.op_type, node.version)
        if function is None:
            raise Refused(self._what_lacks())
        result = function(node)
        return result if isinstance(result, tuple) else (result,)

    def _what_lacks(self) -> str:
        """Return the operators of the file that cannot be imported: one of them was met."""
        lacking = set()
        for proto in self._source.nodes:
            known = proto.op_type in folding.ALWAYS or proto.op_type in folding.CONTROL
            if not known and find(proto.domain, proto.op_type, self._source.version(proto.domain)) is None:
                lacking.add(f"{proto.domain}.{proto.op_type}" if proto.domain else proto.op_type)
        return f"these operators cannot be imported: {quoted(sorted(lacking))}; export the model without them"

    def _claim(self, variable: Variable, name: str) -> None:
        """Let a variable have an ONNX tensor's name, and what is known of its shape."""
        self._names.setdefault(variable.name, name)
        self._settle(variable, self._shapes.get(name, []))

    def _tell(self, node: Node, results: Sequence[Value]) -> None:
        """Note the lengths of what a node computed, where they follow from those of its inputs and Paddle has -1."""
        if all(isinstance(each, np.ndarray) or each is None or -1 not in each.shape for each in results):
            return
        for value, lengths in zip(results, told(node)):
            if isinstance(value, np.ndarray) or value is None or lengths is None or len(lengths) != len(value.shape):
                continue
            self._settle(value, lengths)
            self._told.setdefault(value.name, lengths)

    @staticmethod
    def _settle(variable: Variable, known: Sequence[Number | None]) -> None:
        """Set lengths that Paddle does not know, but which are known."""
        shape = list(variable.shape)
        if -1 in shape and len(shape) == len(known):
            settled = [have if have >= 0 or not isinstance(k, int) or k < 0 else k for have, k in zip(shape, known)]
            if settled != shape:
                variable.desc.set_shape(settled)

    def _error(self, proto: onnx.NodeProto, why: str) -> RefusedNode:
        label = proto.name or next((name for name in proto.output if name), "")
        version = self._source.version(proto.domain)
        message = f"{self._source.path}: node `{label}` ({proto.op_type}, opset {version}): {why}"
        return RefusedNode(message, proto.output)

    # Ends.

    def _feed(self, value: onnx.ValueInfoProto, values: dict[str, Value]) -> Variable:
        name, tensor = value.name, value.type.tensor_type
        dtype = self._source.dtype(value)
        lengths = [
            each.dim_value if each.HasField("dim_value") and each.dim_value > 0 else -1 for each in tensor.shape.dim
        ]
        variable = self.block.create_var(
            name=paddle.utils.unique_name.generate("feed"),
            shape=lengths,
            dtype=dtype,
            is_data=True,
            need_check_feed=True,
        )
        variable.stop_gradient = True
        self._names[variable.name] = name
        held = HELD_AS.get(dtype, dtype)
        values[name] = variable if held == dtype else paddle.cast(variable, held)
        self._shapes[values[name].name] = self._shapes.get(name, [])
        self.shape(values[name])  # lengths that have a name are those of the first tensor with it
        return variable

    def _fetches(self, values: Mapping[str, Value], feeds: Sequence[Variable]) -> list[Variable]:
        taken = {variable.name for variable in feeds}
        named = {value.name for value in (*self._source.inputs, *self._source.graph.output)}
        result = []
        for value in self._source.graph.output:
            found = values.get(value.name)
            if found is None:
                raise InputError(
                    f"{self._source.path}: output `{value.name}` is nowhere computed; export the model again"
                )
            variable = found
            if isinstance(found, np.ndarray):
                variable = self.tensor(found, value.name if is_symbolic(found) else "")
            wanted = self._source.dtype(value)
            if DTYPES[variable.desc.dtype()] != wanted:
                variable = paddle.cast(variable, wanted)
            now = self._names.get(variable.name)
            foreign = now in named and now != value.name
            if variable.name in taken or variable.name in self._weights or foreign:
                variable = paddle.assign(variable)
            taken.add(variable.name)
            self._names[variable.name] = value.name
            result.append(variable)
        return result

    def _finish(self, feeds: Sequence[Variable], fetches: Sequence[Variable]) -> InferenceModel:
        """Return the program with what its outputs need alone, `feed` and `fetch`, and ONNX's names."""
        description = framework_pb2.ProgramDesc.FromString(self._program.desc.serialize_to_string())
        block = description.blocks[0]
        wanted, kept = {variable.name for variable in fetches}, []
        for op in reversed(block.ops):
            if any(name in wanted for slot in op.outputs for name in slot.arguments):
                wanted.update(name for slot in op.inputs for name in slot.arguments)
                kept.append(op)
        wanted.update(variable.name for variable in feeds)
        del block.ops[:]
        block.ops.extend(reversed(kept))
        used = {name for op in block.ops for slot in (*op.inputs, *op.outputs) for name in slot.arguments} | wanted
        variables = [variable for variable in block.vars if variable.name in used]
        names = self._final_names([variable.name for variable in variables], feeds, fetches)
        for variable in variables:
            variable.name = names[variable.name]
        for op in block.ops:
            for slot in (*op.inputs, *op.outputs):
                slot.arguments[:] = [names[name] for name in slot.arguments]
            kept_attributes = [each for each in op.attrs if each.name != "op_callstack"]
            del op.attrs[:]
            op.attrs.extend(kept_attributes)
        del block.vars[:]
        block.vars.extend(variables)
        program = paddle.static.Program.parse_from_string(description.SerializeToString(deterministic=True))
        model = InferenceModel(
            with_ends(program, [names[v.name] for v in feeds], [names[v.name] for v in fetches]),
            paddle.static.Scope(),
            [names[v.name] for v in feeds],
            [names[v.name] for v in fetches],
        )
        for old, value in self._weights.items():
            if old in used:
                model.set_weight(names[old], value)
        return model

    def _final_names(
        self, old: Sequence[str], feeds: Sequence[Variable], fetches: Sequence[Variable]
    ) -> dict[str, str]:
        """Return the name of each variable: its ONNX tensor's, or for what is computed on the way a new one."""
        ends = [variable.name for variable in (*feeds, *fetches)]
        result, taken = {}, set(_KEPT_NAMES)
        for name in [*ends, *(each for each in old if each in self._names), *old]:
            if name in result:
                continue
            wanted = base = self._names.get(name, name.removeprefix(_PREFIX))
            count = 0
            while wanted in taken:
                count += 1
                wanted = f"{base}.{count}"
            taken.add(wanted)
            result[name] = wanted
        return result
