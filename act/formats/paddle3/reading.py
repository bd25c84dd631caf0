"""A Paddle 3 program (PIR, written as JSON) as typed operations, checked before anything is built of it.

The form (Paddle 3.3, `paddle/fluid/pir/serialize_deserialize`): `program.regions[0].blocks[0].ops`, each with its name
(`#`, a dialect's number and a name), operands (`I`) and results (`O`) by number (`%`), the results' types (`TT`) and
attributes (`A`: name `N`, value `AT` with its type `#` and data `D`). A parameter (`p`) has its attributes in order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from act.errors import InputError

NO_VALUE = 0
"""The number of an operand that is left out."""
HALF = frozenset(("float16", "bfloat16"))
LARGEST_TENSOR = 2**31 - 1
"""The number of elements that a tensor of a program may have."""
INPUTS = frozenset(("pd_op.data", "pd_op.feed"))
OUTPUT = "pd_op.fetch"
_VERSIONS = range(0, 5)
_LARGEST_TEXT = 256 * 2**20
_DIALECTS = {"0": "builtin", "1": "pd_op", "2": "cf", "3": "custom_op", "4": "dist_op"}
_DTYPES = {
    "t_bool": "bool",
    "t_bf16": "bfloat16",
    "t_f16": "float16",
    "t_f32": "float32",
    "t_f64": "float64",
    "t_i8": "int8",
    "t_ui8": "uint8",
    "t_i16": "int16",
    "t_i32": "int32",
    "t_i64": "int64",
}
# Where operators were written from, who computes them and what training needs: nothing of what they compute.
_WITHOUT_MEANING = frozenset(
    (
        *(
            "struct_name",
            "op_callstack",
            "op_role",
            "op_role_var",
            "op_device",
            "op_namescope",
            "op_dist_attr",
            "place",
        ),
        *("stop_gradient", "persistable", "is_persistable", "exec_stream", "event_to_record", "events_to_wait"),
    )
)
_BROKEN = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError)


class Refused(Exception):
    """An operator cannot be taken; says why, and what to do."""


@dataclass(frozen=True)
class Type:
    """A tensor's dtype, by Paddle's name, and the lengths of its axes, -1 where one is known at run time only."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Result:
    """What an operation gives: one value, which is a tensor, a list of tensors, or nothing.

    Attributes:
        number: by which others name it.
        types: of the tensors.
        is_list: whether it is a list, however long.
    """

    number: int
    types: tuple[Type, ...]
    is_list: bool = False


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        name: with its dialect, as in `pd_op.conv2d`.
        operands: the numbers of the values that it reads, `NO_VALUE` where one is left out.
        attributes: as Python has them; a dtype by its name.
    """

    name: str
    operands: tuple[int, ...]
    results: tuple[Result, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Parameter:
    """A weight.

    Attributes:
        is_stored: whether its values are in the other file; those of what training alone needs are not.
    """

    name: str
    number: int
    type: Type
    is_stored: bool = True


@dataclass(frozen=True)
class PirProgram:
    """A program whose operations stand in an order in which they can run."""

    path: Path
    parameters: Sequence[Parameter]
    operations: Sequence[Operation]

    def dtype_of(self, number: int) -> str:
        """Return the dtype of a value that is one tensor; empty of others."""
        return self._dtypes.get(number, "")

    @cached_property
    def _dtypes(self) -> Mapping[int, str]:
        found = {each.number: each.type.dtype for each in self.parameters}
        results = (result for each in self.operations for result in each.results)
        return found | {each.number: each.types[0].dtype for each in results if len(each.types) == 1}

    @property
    def has_half_precision(self) -> bool:
        types = [each.type for each in self.parameters]
        types += [type_ for each in self.operations for result in each.results for type_ in result.types]
        return any(each.dtype in HALF for each in types)


def read(path: Path) -> PirProgram:
    """Read a program.

    Raises:
        InputError: it is damaged, of a newer form, too large, or has control flow.
    """
    ops = _blocks_operations(path, _parse(path))
    parameters: list[Parameter] = []
    operations: list[Operation] = []
    known = {NO_VALUE}
    for index, op in enumerate(ops):
        try:
            if op["#"] == "p":
                parameters.append(_parameter(op))
                results = [parameters[-1].number]
            else:
                operations.append(_operation(op))
                results = [each.number for each in operations[-1].results]
                _check_order(operations[-1], known)
        except Refused as refusal:
            raise InputError(f"{path}: operation {index} ({_label(op)}): {refusal}") from None
        except _BROKEN:
            raise InputError(
                f"{path}: operation {index} ({_label(op)}) is damaged; copy or export the model again"
            ) from None
        if known.intersection(results) or len(set(results)) < len(results):
            raise InputError(
                f"{path}: operation {index} ({_label(op)}) gives a value that another gives, too; export the model "
                "again"
            )
        known.update(results)
    names = [each.name for each in parameters]
    if len(set(names)) < len(names):
        raise InputError(f"{path}: two of its parameters have the same name; export the model again")
    return PirProgram(path, parameters, operations)


def _parse(path: Path) -> Any:
    if path.stat().st_size > _LARGEST_TEXT:
        raise InputError(
            f"{path}: larger than {_LARGEST_TEXT // 2**20} MiB, which is no program but its weights; export the model "
            "with its weights in a file of their own"
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise InputError(f"{path}: is nested deeper than any program; export the model again") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a Paddle 3 program, or damaged ({error}); export the model again") from None


def _blocks_operations(path: Path, document: Any) -> list[Any]:
    """Return the operations of a program's only block as they are written."""
    try:
        version = document["base_code"]["version"]
        regions = document["program"]["regions"]
        blocks = regions[0]["blocks"]
        ops = blocks[0]["ops"]
        arguments = [*blocks[0].get("args", ()), *blocks[0].get("kwargs", ())]
    except _BROKEN:
        raise InputError(f"{path}: not a Paddle 3 program, or damaged; export the model again") from None
    if not isinstance(version, int) or version not in _VERSIONS:
        raise InputError(
            f"{path}: is of version {version} of Paddle 3's form, and {_VERSIONS[0]} to {_VERSIONS[-1]} are known; "
            "export the model with Paddle 3.0 to 3.3"
        )
    if len(regions) != 1 or len(blocks) != 1 or arguments or not isinstance(ops, list) or not ops:
        raise InputError(f"{path}: is no inference program of one block; export the model with `paddle.jit.save`")
    return ops


def _label(op: Any) -> str:
    name = op.get("#") if isinstance(op, dict) else None
    return _full_name(name) if isinstance(name, str) else "without a name"


def _full_name(written: str) -> str:
    dialect, dot, name = written.partition(".")
    return f"{_DIALECTS.get(dialect, dialect)}{dot}{name}"


def _parameter(op: Any) -> Parameter:
    name = op["A"][3]
    result = _result(op["O"])
    if not isinstance(name, str) or not name or result.is_list or len(result.types) != 1:
        raise ValueError
    type_ = result.types[0]
    if any(length < 0 for length in type_.shape):
        raise ValueError
    return Parameter(name, result.number, type_, bool(op.get("OA", [1])[0]))


def _operation(op: Any) -> Operation:
    name = _full_name(_text(op["#"]))
    if op.get("regions") or name.startswith("cf."):
        raise Refused("control flow (a branch or a loop) cannot be imported; export the model without it")
    operation = Operation(
        name,
        tuple(_whole(each["%"]) for each in op["I"]),
        tuple(map(_result, op["O"])),
        {_text(each["N"]): _attribute(each["AT"]) for each in op["A"] if each["N"] not in _WITHOUT_MEANING},
    )
    if name in INPUTS or name == OUTPUT:
        _check_end(operation)
    return operation


def _check_end(operation: Operation) -> None:
    """Refuse an input or output of the model that is none."""
    name, values = operation.attributes["name"], operation.results if operation.name in INPUTS else operation.operands
    if not _text(name) or len(values) != 1:
        raise ValueError
    if operation.name in INPUTS and len(operation.results[0].types) != 1:
        raise ValueError
    if operation.name == OUTPUT:
        _whole(operation.attributes["col"])


def _check_order(operation: Operation, known: set[int]) -> None:
    missing = [number for number in operation.operands if number not in known]
    if missing:
        raise Refused(f"reads value {missing[0]}, which nothing before it gives; export the model again")


def _result(written: Any) -> Result:
    number = _whole(written["%"])
    if number <= NO_VALUE:
        raise ValueError
    kind = _text(written["TT"]["#"])
    is_list = kind == "0.t_vec"
    return Result(number, tuple(_tensor_types(written["TT"])), is_list)


def _tensor_types(written: Any) -> Iterator[Type]:
    """Yield the types of the tensors that a value holds; none of one that is nothing."""
    kind = _text(written["#"])
    if kind == "NULL":
        return
    if kind == "0.t_vec":
        for each in written["D"]:
            if each["#"] == "0.t_vec":
                raise ValueError
            yield from _tensor_types(each)
    elif kind == "0.t_dtensor":
        dtype, lengths = written["D"][:2]
        name = _text(dtype["#"]).partition(".")[2]
        if name not in _DTYPES:
            raise Refused(f"gives a tensor of {name.removeprefix('t_')}; export the model in float32")
        shape = tuple(map(_whole, lengths))
        if math.prod(abs(length) for length in shape) > LARGEST_TENSOR:
            raise Refused(f"gives a tensor of shape {list(shape)}, which no memory holds; export the model again")
        yield Type(_DTYPES[name], shape)
    else:
        raise Refused(
            f"gives a {kind.partition('.')[2].removeprefix('t_')}, and not a tensor; export the model without it"
        )


def _attribute(written: Any) -> Any:
    """Return an attribute's value; None where it has none."""
    kind = _text(written["#"])
    if kind == "NULL":
        return None
    if kind not in _ATTRIBUTES:
        raise Refused(f"has an attribute of type {kind}, which is not known; export the model with Paddle 3.0 to 3.3")
    return _ATTRIBUTES[kind](written)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63:
        raise TypeError
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _real(written: Any) -> float:
    """Return a number, which stands elsewhere (`VD`) where JSON has no form for it."""
    value = {"NAN": math.nan, "INF": math.inf, "-INF": -math.inf}[written["VD"]] if "VD" in written else written["D"]
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError
    return float(value)


def _scalar(written: Any) -> bool | int | float:
    """Return a number that is written with its dtype; those of half precision are written as their bits."""
    dtype, value = written["D"][:2]
    if dtype == "float16":
        return float(np.uint16(_whole(value)).view(np.float16))
    if dtype in ("bfloat16", "uint16"):
        return float(np.uint32(_whole(value) << 16).view(np.float32))
    if dtype == "bool":
        return bool(value)
    return _real({"D": value}) if _text(dtype).startswith("float") else _whole(value)


def _dtype(written: Any) -> str:
    name = _text(written["D"])
    return "undefined" if name.lower().startswith(("undefined", "all_dtype")) else name


def _array(written: Any) -> list[Any]:
    elements = [_attribute(each) for each in written["D"]]
    if any(isinstance(each, list) for each in elements):
        raise TypeError
    return elements


_ATTRIBUTES: Mapping[str, Callable[[Any], Any]] = {
    "0.a_bool": lambda written: _truth(written["D"]),
    "0.a_i32": lambda written: _whole(written["D"]),
    "0.a_i64": lambda written: _whole(written["D"]),
    "0.a_index": lambda written: _whole(written["D"]),
    "0.a_f32": _real,
    "0.a_f64": _real,
    "0.a_str": lambda written: _text(written["D"]),
    "0.a_array": _array,
    "1.a_intarray": lambda written: [_whole(each) for each in written["D"]],
    "1.a_scalar": _scalar,
    "1.a_dtype": _dtype,
    "1.a_place": lambda written: None,
}
