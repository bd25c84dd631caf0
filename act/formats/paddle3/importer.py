"""A Paddle 3 program as a program of Paddle 2.6: operation by operation, by the table of operators.

What Paddle 3 computes with operators of its own (`full`, `full_int_array`) only to hand it to others is constant: it
becomes an attribute where 2.6 has one for it, and a tensor where not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from act.errors import InputError, quoted
from act.formats.paddle3.reading import (
    INPUTS,
    LARGEST_TENSOR,
    OUTPUT,
    Operation,
    Parameter,
    PirProgram,
    Refused,
    Result,
    Type,
)
from act.formats.paddle3.special import SPECIAL
from act.formats.paddle3.table import Computed, Row, rows
from act.program.files import DTYPES, read_weights
from act.program.model import InferenceModel, reason
from act.program.paddle_setup import paddle
from act.program.parts import with_ends
from act.program.passes.normalise import set_inference_mode
from act.samples.dataset import Array, FeedSpec

from paddle.base.framework import OpProtoHolder  # isort: skip
from paddle.base.proto import framework_pb2  # isort: skip

Variable = Any
"""A Paddle variable: a tensor that is known when the model runs."""
Value = Any
"""A variable, a constant (an array), a weight (`Parameter`), a list of them, or None where there is nothing."""

_KEPT_NAMES = frozenset(("feed", "fetch"))
"""Names that stand for the ends of each program in Paddle's files."""
_HELD_AS = {"float16": "float32", "bfloat16": "float32"}
_NUMBERS = {name: int(number) for number, name in DTYPES.items()}
_Attribute = framework_pb2.AttrType
_WHOLE = frozenset((_Attribute.INT, _Attribute.LONG))
_WHOLES = frozenset((_Attribute.INTS, _Attribute.LONGS))
_REALS = frozenset((_Attribute.FLOATS, _Attribute.FLOAT64S))
_LARGEST_INT = 2**31 - 1
# Ends of slices, which mean the same wherever they lie behind the axis.
_CLIPPED = frozenset(("starts", "ends"))


def held_as(dtype: str) -> str:
    """Return the dtype in which a tensor is computed: half precision is float32."""
    return _HELD_AS.get(dtype, dtype)


def import_model(source: PirProgram, weights_file: Path | None) -> InferenceModel:
    """Return the program that computes what a program of Paddle 3 computes, with its names of inputs and outputs.

    Raises:
        InputError: the weights do not fit the program, or an operation cannot be taken; names the first such.
    """
    _refuse_unknown(source)
    return Importer(source, _weights(source, weights_file)).run()


def _refuse_unknown(source: PirProgram) -> None:
    names = {each.name for each in source.operations} - INPUTS - {OUTPUT} - set(SPECIAL)
    unknown = sorted(name for name in names if name.partition(".")[0] != "pd_op" or _short(name) not in rows())
    if unknown:
        raise InputError(
            f"{source.path}: these operators cannot be imported: {quoted(unknown)}; export the model without them"
        )


def _weights(source: PirProgram, weights_file: Path | None) -> Mapping[str, Array]:
    """Return the weights by name, those of half precision as float32."""
    stored = [each for each in source.parameters if each.is_stored]
    if weights_file is None:
        if stored:
            raise InputError(
                f"{source.path}: has {len(stored)} weights, and no file with their values lies beside it; "
                "put its `.pdiparams` there, or name it as `params_filename`"
            )
        return {}
    expected = [
        FeedSpec(each.name, "uint16" if each.type.dtype == "bfloat16" else each.type.dtype, each.type.shape)
        for each in stored
    ]
    found = read_weights(source.path, weights_file, expected)
    for each in stored:
        if each.type.dtype == "bfloat16":
            found[each.name] = (found[each.name].astype(np.uint32) << 16).view(np.float32)
        elif each.type.dtype == "float16":
            found[each.name] = found[each.name].astype(np.float32)
    return found


def _short(name: str) -> str:
    return name.partition(".")[2]


@cache
def _attribute_types(kind: str) -> Mapping[str, int]:
    """Return the types of an operator's attributes in Paddle 2.6."""
    return {each.name: each.type for each in OpProtoHolder.instance().get_op_proto(kind).attrs}


class Importer:
    """Builds the program of one model."""

    def __init__(self, source: PirProgram, weights: Mapping[str, Array]) -> None:
        self._source, self._weights = source, weights
        self._program, self._begin = paddle.static.Program(), paddle.static.Program()
        self._values: dict[int, Value] = {0: None, **{each.number: each for each in source.parameters}}
        self._made: dict[str, Variable] = {}  # weights by name
        self._parts: dict[str, Sequence[Value]] = {}  # what a variable was stacked of
        self._feeds: list[Variable] = []
        self._fetches: dict[str, tuple[int, Variable]] = {}  # by name, with the column
        self._taken = set(_KEPT_NAMES) | set(weights)
        self._read = {number for each in source.operations for number in each.operands}
        self._now = ""

    def run(self) -> InferenceModel:
        with paddle.static.program_guard(self._program, self._begin):
            self._check_names()
            for index, operation in enumerate(self._source.operations):
                self._now = _short(operation.name)
                try:
                    self._build(operation)
                except Refused as refusal:
                    raise self._error(index, operation, str(refusal)) from None
                except InputError:
                    raise
                except (KeyError, IndexError, TypeError) as error:
                    raise self._error(index, operation, f"is not as Paddle writes it ({error!r})") from error
                except Exception as error:  # Paddle and NumPy raise all kinds on what they do not take
                    raise self._error(index, operation, f"Paddle 2.6 does not take it: {reason(error)}") from error
            return self._finish()

    def _error(self, index: int, operation: Operation, why: str) -> InputError:
        where = f"operation {len(self._source.parameters) + index} ({operation.name})"
        return InputError(f"{self._source.path}: {where}: {why}; report this model or export it otherwise")

    def _check_names(self) -> None:
        ends = [each for each in self._source.operations if each.name in INPUTS or each.name == OUTPUT]
        names = [each.attributes["name"] for each in ends]
        if len(set(names)) < len(names) or self._taken.intersection(names):
            raise InputError(
                f"{self._source.path}: two of its inputs, outputs and weights have the same name, or one has a name "
                "that Paddle's files keep for themselves (`feed`, `fetch`); export the model with others"
            )
        if all(each.name != OUTPUT for each in ends):
            raise InputError(f"{self._source.path}: it has no outputs; export the model again")
        self._taken.update(names)

    # What operators are built with.

    @property
    def block(self) -> Any:
        return self._program.global_block()

    def new(self, dtype: str, name: str = "") -> Variable:
        """Declare a tensor whose name begins like the given one, or like the operation at work."""
        return self.block.create_var(name=self._free(name or f"{self._now}.part"), dtype=held_as(dtype))

    def _free(self, base: str) -> str:
        """Return a name that begins like the given one and is nobody's yet, and take it."""
        wanted, count = base, 0
        while wanted in self._taken:
            count += 1
            wanted = f"{base}.{count}"
        self._taken.add(wanted)
        return wanted

    def append(
        self,
        kind: str,
        inputs: Mapping[str, Sequence[Variable]],
        outputs: Mapping[str, Sequence[Variable]],
        attributes: Mapping[str, Any],
    ) -> None:
        """Append an operator of Paddle 2.6; attributes get the types that it wants."""
        types = _attribute_types(kind)
        typed = {}
        for name, value in attributes.items():
            if name not in types:
                raise Refused(f"has an attribute `{name}`, which Paddle 2.6 does not know")
            if value is not None:
                typed[name] = _typed(name, value, types[name])
        given = {slot: list(variables) for slot, variables in inputs.items() if variables}
        self.block.append_op(type=kind, inputs=given, outputs=dict(outputs), attrs=typed)
        for variable in (each for variables in outputs.values() for each in variables):
            if np.prod([abs(length) for length in variable.shape], dtype=object) > LARGEST_TENSOR:
                raise Refused(f"gives a tensor of shape {list(variable.shape)}, which no memory holds")

    def one(
        self,
        kind: str,
        inputs: Mapping[str, Sequence[Variable]],
        attributes: Mapping[str, Any],
        dtype: str,
        slot: str = "Out",
    ) -> Variable:
        """Append an operator with one output of a dtype, and return that."""
        result = self.new(dtype)
        self.append(kind, inputs, {slot: [result]}, attributes)
        return result

    def tensor(self, value: Value) -> Variable:
        """Return a value as a variable."""
        if value is None or isinstance(value, list):
            raise Refused("reads a list or nothing where it needs a tensor")
        if isinstance(value, Parameter):
            if not value.is_stored:
                raise Refused(f"reads the weight `{value.name}`, whose values are in no file")
            return self._weight(value.name)
        return self._constant(value) if isinstance(value, np.ndarray) else value

    def tensors(self, value: Value) -> list[Variable]:
        """Return a value as what stands in a slot: the tensors of a list, or one."""
        return [self.tensor(each) for each in (value if isinstance(value, list) else [value])]

    def cast(self, variable: Variable, dtype: str) -> Variable:
        """Return a tensor in another dtype."""
        if self.dtype(variable) == held_as(dtype):
            return variable
        return self.one("cast", {"X": [variable]}, {"in_dtype": self.dtype(variable), "out_dtype": dtype}, dtype)

    @staticmethod
    def dtype(variable: Variable) -> str:
        """Return NumPy's name of a variable's dtype."""
        return DTYPES[variable.desc.dtype()]

    @staticmethod
    def filling(number: bool | int | float) -> dict[str, Any]:
        """Return the attributes of `fill_constant` for a number: as text, which holds more digits than its float32."""
        return {"value": float(number), "str_value": str(int(number) if isinstance(number, bool) else number)}

    def note_parts(self, variable: Variable, parts: Sequence[Value]) -> None:
        """Note that a tensor of one axis is stacked of values."""
        self._parts[variable.name] = parts

    def computed(self, target: Computed, value: Value, inputs: dict[str, Sequence[Variable]]) -> Any:
        """Return the attribute that a value is in Paddle 2.6, None where it goes into a slot of `inputs`."""
        if value is None:
            return None
        if isinstance(value, list) and all(isinstance(each, np.ndarray) for each in value):
            value = np.concatenate([each.reshape(-1) for each in value])
        if isinstance(value, np.ndarray):
            return value
        parts = value if isinstance(value, list) else self._parts.get(getattr(value, "name", ""))
        if parts is not None and target.tensors is not None:
            inputs[target.tensors] = [self.tensor(each) for each in parts]
            return [int(each.item()) if isinstance(each, np.ndarray) else target.unknown for each in parts]
        if target.tensor is None or isinstance(value, list):
            raise Refused(f"its `{target.attribute}` is computed by the model, and must be constant in Paddle 2.6")
        inputs[target.tensor] = [self.tensor(value)]
        return None

    def results(self, operation: Operation) -> list[list[Variable]]:
        """Declare the tensors that an operation gives."""
        return [self._declare(operation, result) for result in operation.results]

    def _declare(self, operation: Operation, result: Result) -> list[Variable]:
        base = f"{_short(operation.name)}_{result.number}"
        if result.is_list:
            return [self.new(each.dtype, f"{base}_{index}") for index, each in enumerate(result.types)]
        return [self.new(result.types[0].dtype if result.types else "float32", base)]

    def _weight(self, name: str) -> Variable:
        if name in self._made:
            return self._made[name]
        value = self._weights[name]
        # Paddle's files hold no weights without axes.
        variable = self.block.create_var(
            name=name, shape=value.shape or (1,), dtype=value.dtype.name, persistable=True, stop_gradient=True
        )
        self._made[name] = variable
        if not value.shape:
            self._made[name] = self._reshaped(variable, ())
        return self._made[name]

    def _reshaped(self, variable: Variable, shape: Sequence[int]) -> Variable:
        dtype = self.dtype(variable)
        result = self.new(dtype)
        outputs = {"Out": [result], "XShape": [self.new(dtype)]}
        self.append("reshape2", {"X": [variable]}, outputs, {"shape": list(shape)})
        return result

    def _constant(self, value: Array) -> Variable:
        """Return a constant as a tensor: one number everywhere is computed, all else is a weight."""
        if value.size and np.all(value == value.flat[0]):
            number = value.flat[0].item()
            attributes = {"shape": list(value.shape), "dtype": value.dtype.name, **self.filling(number)}
            return self.one("fill_constant", {}, attributes, value.dtype.name)
        variable = self.new(value.dtype.name, f"{self._now}.constant")
        variable.desc.set_shape(list(value.shape))
        variable.persistable = variable.stop_gradient = True
        self._weights = {**self._weights, variable.name: value}
        self._made[variable.name] = variable
        return variable

    # Operation by operation.

    def _build(self, operation: Operation) -> None:
        if operation.name == OUTPUT:
            self._fetch(operation)
            return
        if operation.name in INPUTS:
            values: Sequence[Value] = [self._feed(operation)]
        elif operation.name in SPECIAL:
            values = SPECIAL[operation.name](self, operation, [self._values[number] for number in operation.operands])
        else:
            values = self.by_row(operation, rows()[_short(operation.name)])
        for result, value in zip(operation.results, values, strict=True):
            used = result.number in self._read
            self._values[result.number] = self._checked(result, value) if used else value

    def by_row(self, operation: Operation, row: Row) -> list[Value]:
        """Append an operation as the table has it."""
        values = [self._values[number] for number in operation.operands]
        if any(value is not None for value in values[len(row.inputs) :]):
            raise Refused(f"has {len(values)} inputs where {len(row.inputs)} are known")
        inputs: dict[str, Sequence[Variable]] = {}
        attributes = dict(row.fixed)
        for target, value in zip(row.inputs, values):
            if isinstance(target, Computed):
                attributes[target.attribute] = self.computed(target, value, inputs)
            elif target is not None and value is not None:
                inputs[target] = self.tensors(value)
        for name, value in operation.attributes.items():
            if name in row.only:
                if value != row.only[name]:
                    raise Refused(f"its `{name}` is {value}, and Paddle 2.6 knows {row.only[name]} alone")
            elif name not in row.ignored:
                attributes[row.attributes.get(name, name)] = value
        results = self.results(operation)
        outputs: dict[str, Sequence[Variable]] = {}
        for slot, variables in zip_longest(row.outputs, results):
            if slot is None:
                raise Refused(f"gives {len(results)} values where {len(row.outputs)} are known")
            outputs[slot] = inputs[row.same[slot]] if slot in row.same else variables or [self.new("float32")]
        self.append(row.type, inputs, outputs, attributes)
        return [
            list(outputs[slot]) if result.is_list else outputs[slot][0]
            for slot, result in zip(row.outputs, operation.results)
        ]

    def _checked(self, result: Result, value: Value) -> Value:
        """Return a value in the dtype that the file says, and refuse one of another shape."""
        if isinstance(value, list):
            if len(value) != len(result.types):
                raise Refused(f"gives {len(value)} tensors here, and {len(result.types)} in the file")
            return [self._checked_tensor(*each) for each in zip(result.types, value)]
        return self._checked_tensor(result.types[0], value) if result.types else value

    def _checked_tensor(self, type_: Type, value: Value) -> Value:
        if value is None or isinstance(value, Parameter):
            return value
        here, there = tuple(value.shape), type_.shape
        # Its own inference of ranks with unknown lengths is wrong for some operators, which do not care.
        if len(here) == len(there) and any(a != b for a, b in zip(here, there) if a >= 0 and b >= 0):
            raise Refused(f"gives a tensor of shape {list(here)} here, and of {list(there)} in the file")
        if isinstance(value, np.ndarray):
            return value.astype(held_as(type_.dtype), copy=False)
        if len(here) == len(there) and -1 in here:
            value.desc.set_shape([b if a < 0 <= b else a for a, b in zip(here, there)])
        return self.cast(value, type_.dtype)

    # Ends.

    def _feed(self, operation: Operation) -> Variable:
        type_ = operation.results[0].types[0]
        name, dtype = operation.attributes["name"], _fed(type_.dtype)
        variable = self.block.create_var(name=name, shape=type_.shape, dtype=dtype, is_data=True, need_check_feed=True)
        variable.stop_gradient = True
        self._feeds.append(variable)
        return self.cast(variable, type_.dtype)

    def _fetch(self, operation: Operation) -> None:
        number = operation.operands[0]
        variable = self.tensor(self._values[number])
        if self._source.dtype_of(number) == "float16":
            variable = self._half(variable)
        # An input, a weight or another output keeps its own name.
        others = {each.name for each in self._feeds} | {each.name for each in self._made.values()}
        if variable.name in others or any(variable is each for _, each in self._fetches.values()):
            variable = self.one("assign", {"X": [variable]}, {}, self.dtype(variable))
        self._fetches[operation.attributes["name"]] = (operation.attributes["col"], variable)

    def _half(self, variable: Variable) -> Variable:
        """Return a tensor in half precision, in which an output is given."""
        result = self.block.create_var(name=self._free("half"), dtype="float16")
        attributes = {"in_dtype": self.dtype(variable), "out_dtype": _NUMBERS["float16"]}
        self.append("cast", {"X": [variable]}, {"Out": [result]}, attributes)
        return result

    def _finish(self) -> InferenceModel:
        """Return the program with what its outputs need alone, their names, and the weights."""
        feeds = [each.name for each in self._feeds]
        fetches = sorted(self._fetches, key=lambda name: self._fetches[name][0])
        names = {variable.name: name for name, (_, variable) in self._fetches.items()}
        program = with_ends(_renamed(self._program, names), feeds, fetches)
        model = InferenceModel(program, paddle.static.Scope(), feeds, fetches)
        for op in reversed(model.ops):
            if not any(name in fetches or model.consumers(name) for name in op.output_arg_names):
                model.remove(op)
        for name, value in self._weights.items():
            if model.has(name) and model.consumers(name):
                model.set_weight(name, value if value.shape else value.reshape(1))
        set_inference_mode(model)
        return model


def _renamed(program: Any, names: Mapping[str, str]) -> Any:
    """Return a program with other names of some tensors, and without the Python lines that built it."""
    description = framework_pb2.ProgramDesc.FromString(program.desc.serialize_to_string())
    block = description.blocks[0]
    for variable in block.vars:
        variable.name = names.get(variable.name, variable.name)
    for op in block.ops:
        for slot in (*op.inputs, *op.outputs):
            slot.arguments[:] = [names.get(name, name) for name in slot.arguments]
        kept = [each for each in op.attrs if each.name != "op_callstack"]
        del op.attrs[:]
        op.attrs.extend(kept)
    return paddle.static.Program.parse_from_string(description.SerializeToString(deterministic=True))


def _fed(dtype: str) -> str:
    if dtype == "bfloat16":
        raise Refused("is an input of bfloat16, which NumPy does not have; export the model with one of float32")
    return dtype


def _typed(name: str, value: Any, kind: int) -> Any:
    """Return an attribute's value in the type that Paddle 2.6 has for it."""
    if isinstance(value, np.ndarray):
        value = value.reshape(-1).tolist() if kind in _WHOLES | _REALS else value.item()
    if kind in _WHOLE:
        return _number(value) if isinstance(value, str) else _bounded(name, value, kind == _Attribute.INT)
    if kind in _WHOLES:
        listed = value if isinstance(value, list) else [value]
        return [_bounded(name, each, kind == _Attribute.INTS) for each in listed]
    if kind in _REALS:
        return [float(each) for each in (value if isinstance(value, list) else [value])]
    if kind in (_Attribute.FLOAT, _Attribute.FLOAT64):
        return float(value)
    if kind == _Attribute.BOOLEAN:
        return bool(value)
    if kind == _Attribute.STRING and isinstance(value, str):
        return value
    if kind == _Attribute.SCALARS:
        return list(value)
    raise Refused(f"its `{name}` is {value!r}, which Paddle 2.6 does not take")


def _bounded(name: str, value: Any, is_short: bool) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise Refused(f"its `{name}` is {value}, and no whole number")
    value = int(value)
    if is_short and abs(value) > _LARGEST_INT:
        if name not in _CLIPPED:
            raise Refused(f"its `{name}` is {value}, which Paddle 2.6 does not hold")
        return max(-_LARGEST_INT, min(value, _LARGEST_INT))
    return value


def _number(dtype: str) -> int:
    """Return Paddle's number of the dtype in which one is held; -1 where it is not said."""
    return -1 if dtype == "undefined" else _NUMBERS[held_as(dtype)]
