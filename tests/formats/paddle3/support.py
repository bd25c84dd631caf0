"""Small programs in the form that Paddle 3 writes, without Paddle 3."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from act.formats import SourceModel
from act.formats.paddle3.importer import import_model
from act.formats.paddle3.reading import read
from act.program.model import InferenceModel

from paddle.base.proto import framework_pb2  # isort: skip

Array = npt.NDArray[Any]
_TYPES = {
    "float32": ("0.t_f32", framework_pb2.VarType.FP32),
    "float16": ("0.t_f16", framework_pb2.VarType.FP16),
    "float64": ("0.t_f64", framework_pb2.VarType.FP64),
    "int32": ("0.t_i32", framework_pb2.VarType.INT32),
    "int64": ("0.t_i64", framework_pb2.VarType.INT64),
    "uint8": ("0.t_ui8", framework_pb2.VarType.UINT8),
    "bool": ("0.t_bool", framework_pb2.VarType.BOOL),
}


def tensor(shape: Sequence[int], dtype: str = "float32") -> dict[str, Any]:
    """Return a tensor's type as it is written."""
    return {"#": "0.t_dtensor", "D": [{"#": _TYPES[dtype][0]}, list(shape), "NCHW", [], 0]}


def dtype_of(name: str) -> dict[str, Any]:
    """Return an attribute that is a dtype as it is written."""
    return {"#": "1.a_dtype", "D": name}


def attribute(value: Any) -> dict[str, Any]:
    """Return an attribute's value as it is written; what has no type in Python is given as it is written."""
    if isinstance(value, dict):
        return value
    if isinstance(value, (list, tuple)):
        return {"#": "0.a_array", "D": [attribute(each) for each in value]}
    kind = {bool: "bool", int: "i32", float: "f32", str: "str"}[type(value)]
    return {"#": f"0.a_{kind}", "D": value}


class Net:
    """Writes one program, value by value."""

    def __init__(self) -> None:
        self.ops: list[dict[str, Any]] = []
        self.weights: dict[str, Array] = {}
        self._last = 0

    def parameter(self, name: str, value: Array) -> int:
        self.weights[name] = value
        self._last += 1
        result = {"%": self._last, "TT": tensor(value.shape, value.dtype.name)}
        self.ops.append({"#": "p", "A": [0, 1, 1, name], "DA": [], "O": result, "OA": [1, 0, 1], "QA": []})
        return self._last

    def op(self, name: str, operands: Sequence[int], types: Sequence[dict[str, Any]], /, **attributes: Any) -> Any:
        """Add an operation, and return the numbers of what it gives, or the one."""
        numbers = [self._last + 1 + index for index in range(len(types))]
        self._last += len(types)
        self.ops.append(
            {
                "#": name if name[1] == "." else f"1.{name}",
                "A": [{"N": each, "AT": attribute(value)} for each, value in attributes.items()],
                "I": [{"%": number} for number in operands],
                "O": [{"%": number, "TT": type_} for number, type_ in zip(numbers, types)],
                "OA": [],
            }
        )
        return numbers[0] if len(numbers) == 1 else numbers

    def data(self, name: str, shape: Sequence[int], dtype: str = "float32") -> int:
        lengths = {"#": "1.a_intarray", "D": list(shape)}
        attributes = {"shape": lengths, "dtype": dtype_of(dtype), "place": {"#": "1.a_place", "D": [0, 0, ""]}}
        number: int = self.op("data", [], [tensor(shape, dtype)], name=name, **attributes)
        return number

    def full(self, value: float, shape: Sequence[int] = (1,), dtype: str = "float32") -> int:
        attributes = {"shape": {"#": "1.a_intarray", "D": list(shape)}, "value": {"#": "0.a_f64", "D": value}}
        number: int = self.op("full", [], [tensor(shape, dtype)], **attributes, dtype=dtype_of(dtype))
        return number

    def ints(self, *values: int) -> int:
        number: int = self.op(
            "full_int_array", [], [tensor([len(values)], "int64")], value=list(values), dtype=dtype_of("int64")
        )
        return number

    def fetch(self, number: int, type_: dict[str, Any], name: str | None = None) -> None:
        column = sum(op["#"] == "1.fetch" for op in self.ops)
        self.op("fetch", [number], [type_], name=name or f"fetch_name_{column}", col=column)

    def document(self) -> dict[str, Any]:
        block = {"#": "block_0", "args": [], "ops": self.ops}
        program = {"regions": [{"#": "region_0", "blocks": [block]}]}
        return {"base_code": {"magic": "pir", "trainable": True, "version": 4}, "program": program}

    def save(self, folder: Path) -> Path:
        """Write the two files into a folder, and return that of the program."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "inference.json").write_text(json.dumps(self.document()))
        if self.weights:
            (folder / "inference.pdiparams").write_bytes(packed(self.weights))
        return folder / "inference.json"

    def load(self, folder: Path) -> InferenceModel:
        self.save(folder)
        return imported(folder)


def imported(folder: Path) -> InferenceModel:
    """Import a folder's model in this process, which `load` would do in another."""
    program, *weights = SourceModel.find(folder).files
    return import_model(read(program), weights[0] if weights else None)


def packed(weights: Mapping[str, Array]) -> bytes:
    """Return the bytes of a weights file."""
    stream = b""
    for name in sorted(weights):
        value = weights[name]
        kind = framework_pb2.VarType.TensorDesc(data_type=_TYPES[value.dtype.name][1], dims=value.shape)
        description = kind.SerializeToString()
        stream += struct.pack("<IQIi", 0, 0, 0, len(description)) + description + value.tobytes()
    return stream


def values(shape: Sequence[int], seed: int = 0) -> npt.NDArray[np.float32]:
    """Draw numbers around zero."""
    return np.random.default_rng(seed).normal(size=tuple(shape)).astype(np.float32)
