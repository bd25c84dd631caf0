"""A model's files: the program as Paddle's `ProgramDesc`, and the weights, in one file or in one each.

Files are checked before Paddle sees them, because its loader crashes the process on damaged ones. The weights file
holds the program's persistable variables sorted by name, each a version, levels of detail, a `TensorDesc` and values.
Old exporters wrote each of them into a file that is named after it; one behind the other, these are the weights file.
"""

import math
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from act.errors import InputError
from act.program.paddle_setup import paddle  # noqa: F401 (before Paddle's own modules)
from act.samples.dataset import Array, FeedSpec

from paddle.base.proto import framework_pb2  # isort: skip

PROGRAM_FILE = "model.pdmodel"
WEIGHTS_FILE = "model.pdiparams"
FILE_NAMES = [
    (PROGRAM_FILE, WEIGHTS_FILE),
    ("inference.pdmodel", "inference.pdiparams"),
    ("__model__", "__params__"),
    ("model", "params"),
]

_Type = framework_pb2.VarType
# What holds no values, even where it is persistable.
HOLDERS = frozenset((_Type.FEED_MINIBATCH, _Type.FETCH_LIST, _Type.RAW, _Type.READER))
DTYPES = {_Type.FP16: "float16", _Type.BF16: "uint16", _Type.FP32: "float32", _Type.FP64: "float64"}
DTYPES |= {getattr(_Type, name.upper()): name for name in ("bool", "int8", "uint8", "int16", "int32", "int64")}


class ModelFiles(NamedTuple):
    """The files of one model.

    Attributes:
        weights: one file, or one for each weight, in the order of the weights file.
    """

    program: Path
    weights: tuple[Path, ...]


def join_files(parts: Sequence[Path], target: Path) -> None:
    """Write files one behind the other into one, as separate weights become the weights file."""
    with target.open("wb") as whole:
        for path in parts:
            with path.open("rb") as part:
                shutil.copyfileobj(part, whole)


def find_files(path: Path, model_filename: str | None = None, params_filename: str | None = None) -> ModelFiles:
    """Find the files of a model by its folder or its program file, and the names that are not the usual ones.

    Raises:
        InputError: there is no model, or are several, or a file of its weights is not there.
    """
    program, weights = _find_pair(path, model_filename, params_filename)
    if not program.is_file():
        raise InputError(f"{program}: no such file; the model needs its program file")
    if weights.is_file():
        return ModelFiles(program, (weights,))
    if params_filename is not None:
        raise InputError(f"{weights}: no such file; `params_filename` names it")
    return ModelFiles(program, _separate_weights(program, weights))


def is_program(path: Path) -> bool:
    """Tell whether a file begins as a serialised program does: with its first block, which has no parent."""
    with path.open("rb") as file:
        head = file.read(16)
    length = next((index for index, byte in enumerate(head[1:], 2) if byte < 0x80), len(head))
    return head[:1] == b"\x0a" and head[length:].startswith(b"\x08\x00\x10\xff")


def _find_pair(path: Path, model_filename: str | None, params_filename: str | None) -> tuple[Path, Path]:
    """Return the path of a model's program file, and where the file of all its weights would be."""
    if not path.is_dir():
        if not path.is_file():
            raise InputError(f"{path}: no such folder or file; name a folder with an inference model, or its program")
        return path, path.parent / (params_filename or _weights_name(path.name))
    if model_filename is not None:
        return path / model_filename, path / (params_filename or _weights_name(model_filename))
    if params_filename is not None:
        raise InputError(f"{path}: `params_filename` is given without `model_filename`; give both")
    pairs = [(path / program, path / weights) for program, weights in FILE_NAMES if (path / program).is_file()]
    pairs = pairs or [(each, path / _weights_name(each.name)) for each in sorted(path.glob("*.pdmodel"))]
    if not pairs:
        raise InputError(f"{path}: no inference model in this folder; looked for *.onnx, *.pdmodel, __model__")
    if len(pairs) > 1:
        found = ", ".join(program.name for program, _ in pairs)
        raise InputError(f"{path}: several models in this folder ({found}); set `model_filename`")
    return pairs[0]


def _weights_name(program: str) -> str:
    """Return what the file of all weights is usually called beside a program file."""
    return dict(FILE_NAMES).get(program, PurePath(program).with_suffix(".pdiparams").name)


def _separate_weights(program: Path, combined: Path) -> tuple[Path, ...]:
    """Return a file for each weight of a program, which are named after them; `combined` does not exist."""
    names = [variable.name for variable in _persistable(_parse(program))]
    if not names:
        raise InputError(
            f"{program}: has no weights, neither inside nor in a file {combined.name}, so that nothing of it can be "
            "compressed; name the model that computes with weights"
        )
    for name in names:
        if "\0" in name or PurePath(name).is_absolute() or not {".", ".."}.isdisjoint(PurePath(name).parts) or not name:
            raise InputError(f"{program}: weight `{name[:100]!r}` cannot be a file; export the model again")
    files = tuple(program.parent / name for name in names)
    missing = [file for file in files if not file.is_file()]
    if len(missing) == len(files):
        raise InputError(
            f"{combined}: no such file, and no files that are called after the weights (such as {files[0].name}) "
            f"either; put the weights of {program.name} beside it"
        )
    if missing:
        raise InputError(
            f"{missing[0]}: no such file; the weights are in files of their own, and {len(missing)} of {len(files)} "
            "are not there: copy the model again"
        )
    return files


def read_signature(program_file: Path) -> tuple[list[FeedSpec], frozenset[str]]:
    """Read the inputs of a program file in order, and the types of its operators, without loading it."""
    block = _parse(program_file).blocks[0]
    variables = {variable.name: variable for variable in block.vars}
    feeds: dict[int, FeedSpec] = {}
    for op in block.ops:
        if op.type == "feed":
            column = next((attribute.i for attribute in op.attrs if attribute.name == "col"), len(feeds))
            name = next((slot.arguments[0] for slot in op.outputs if slot.arguments), "")
            tensor = variables[name].type.lod_tensor.tensor if name in variables else None
            if tensor is None or tensor.data_type not in DTYPES:
                raise InputError(f"{program_file}: its input `{name}` is no tensor; export the model again")
            feeds[column] = FeedSpec(name, DTYPES[tensor.data_type], tuple(tensor.dims))
    return [feeds[column] for column in sorted(feeds)], frozenset(op.type for op in block.ops)


def read_kernels(program_file: Path) -> list[tuple[str, str, list[str]]]:
    """Read each operator of a program file: type, precision that oneDNN's passes gave it ("" for none), outputs."""
    found = []
    for op in _parse(program_file).blocks[0].ops:
        precision = next((attribute.s for attribute in op.attrs if attribute.name == "mkldnn_data_type"), "")
        outputs = [str(name) for slot in op.outputs for name in slot.arguments]
        found.append((str(op.type), str(precision), outputs))
    return found


def check_files(files: ModelFiles) -> None:
    """Refuse damaged files before Paddle reads them.

    Raises:
        InputError: the program does not parse, or the weights are cut off, too long, or made for another program.
    """
    weights, program = _persistable(_parse(files.program)), files.program.name
    groups = [weights] if len(files.weights) == 1 else [[each] for each in weights]
    for path, variables in zip(files.weights, groups, strict=True):
        size = path.stat().st_size
        with path.open("rb") as file:
            for variable in variables:
                _skip_weight(file, size, variable, f"{path}: weight `{variable.name}`", program)
            if file.tell() != size:
                raise InputError(f"{path}: longer than {program} asks for; they do not belong together")


def _skip_weight(file: BinaryIO, size: int, variable: Any, where: str, program: str) -> None:
    """Read past one weight of a file; `InputError` where it is damaged, or not what the program declares."""
    try:
        description = _read_tensor_header(file, size)
    except (struct.error, ValueError, DecodeError):
        raise InputError(f"{where} is cut off or damaged; copy or export the model again") from None
    dtype = DTYPES.get(description.data_type)
    # Paddle's own quantizer declares float32 [n] and stores int8 or [1, n]: only the sizes agree.
    declared = variable.type.lod_tensor.tensor.dims
    if dtype is None or np.prod(description.dims) != np.prod(declared):
        raise InputError(f"{where} does not fit {program}; the two files belong to different models")
    values = int(np.prod(description.dims, dtype=np.int64)) * np.dtype(dtype).itemsize
    if file.tell() + values > size:
        raise InputError(f"{where} is cut off; copy or export the model again")
    file.seek(values, 1)


def read_weights(program_file: Path, weights_file: Path, expected: Sequence[FeedSpec]) -> dict[str, Array]:
    """Read a file that holds the weights of a program in the order of their names; bfloat16 as its bits, uint16.

    Raises:
        InputError: it is cut off, too long, or does not hold these weights.
    """
    found: dict[str, Array] = {}
    size = weights_file.stat().st_size
    with weights_file.open("rb") as file:
        for spec in sorted(expected, key=lambda each: each.name.encode()):
            where = f"{weights_file}: weight `{spec.name}`"
            try:
                description = _read_tensor_header(file, size)
            except (struct.error, ValueError, DecodeError):
                raise InputError(f"{where} is cut off or damaged; copy or export the model again") from None
            if DTYPES.get(description.data_type) != spec.dtype or tuple(description.dims) != spec.shape:
                raise InputError(f"{where} does not fit {program_file.name}; the two files belong to different models")
            length = math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
            if file.tell() + length > size:
                raise InputError(f"{where} is cut off; copy or export the model again")
            found[spec.name] = np.frombuffer(file.read(length), spec.dtype).reshape(spec.shape)
        if file.tell() != size:
            raise InputError(f"{weights_file}: longer than {program_file.name} asks for; they do not belong together")
    return found


def write_files(folder: Path, serialised: bytes, weight: Callable[[str], Array]) -> None:
    """Write a model's two files into an existing folder; equal models give equal bytes.

    Paddle's own `save_inference_model` renames the outputs and writes a different file every time.

    Args:
        serialised: a `ProgramDesc`.
        weight: the values of a weight by its name; `ValueError` where they do not fit what the program declares.
    """
    program = _canonical(serialised)
    (folder / PROGRAM_FILE).write_bytes(program.SerializeToString(deterministic=True))
    with (folder / WEIGHTS_FILE).open("wb") as file:
        for variable in _persistable(program):
            tensor = variable.type.lod_tensor.tensor
            value = weight(variable.name)
            if DTYPES[tensor.data_type] != value.dtype.name or tuple(tensor.dims) != value.shape:
                raise ValueError(
                    f"weight `{variable.name}` is {value.dtype} {value.shape}, but declared "
                    f"{DTYPES[tensor.data_type]} {tuple(tensor.dims)}"
                )
            description = tensor.SerializeToString(deterministic=True)
            file.write(struct.pack("<IQIi", 0, 0, 0, len(description)) + description)
            file.write(np.ascontiguousarray(value).data)


def what_is_saved(serialised: bytes) -> tuple[bytes, list[str]]:
    """Return a `ProgramDesc` as `write_files` writes it, and the names of the weights beside it."""
    program = _canonical(serialised)
    return bytes(program.SerializeToString(deterministic=True)), [each.name for each in _persistable(program)]


def _parse(program_file: Path) -> Any:
    try:
        program = framework_pb2.ProgramDesc.FromString(program_file.read_bytes())
    except (DecodeError, OSError) as error:
        reason = f"not a Paddle program, or damaged ({error}); export the model again"
        raise InputError(f"{program_file}: {reason}") from None
    if not program.blocks or not program.blocks[0].ops:
        raise InputError(f"{program_file}: holds no operators; it is empty or damaged, export the model again")
    return program


def _read_tensor_header(file: BinaryIO, size: int) -> Any:
    """Read what stands before a tensor's values: versions, level of detail, description."""
    version, levels = struct.unpack("<IQ", file.read(12))
    if version == 0 and levels <= 8:
        for _ in range(levels):
            (length,) = struct.unpack("<Q", file.read(8))
            file.seek(min(length, size), 1)
        version, length = struct.unpack("<Ii", file.read(8))
        if version == 0 and 0 < length < 4096:
            return framework_pb2.VarType.TensorDesc.FromString(file.read(length))
    raise ValueError("not a tensor")


def _canonical(serialised: bytes) -> Any:
    """Drop unused variables and Python call stacks and sort the rest: Paddle keeps them in no fixed order."""
    program = framework_pb2.ProgramDesc.FromString(serialised)
    slots = [slot for block in program.blocks for op in block.ops for slot in (*op.inputs, *op.outputs)]
    used = {name for slot in slots for name in slot.arguments}
    for block in program.blocks:
        _keep_sorted(block.vars, lambda variable: variable.name in used)
        for op in block.ops:
            _keep_sorted(op.attrs, lambda attribute: attribute.name != "op_callstack")
            op.inputs.sort(key=lambda slot: slot.parameter)
            op.outputs.sort(key=lambda slot: slot.parameter)
    return program


def _keep_sorted(field: Any, fits: Callable[[Any], bool]) -> None:
    kept = sorted(filter(fits, field), key=lambda each: each.name)
    del field[:]
    field.extend(kept)


def _persistable(program: Any) -> list[Any]:
    """Return the weights of a program description in the order of the weights file."""
    return sorted(
        (v for block in program.blocks for v in block.vars if v.persistable and v.type.type not in HOLDERS),
        key=lambda v: v.name.encode(),
    )
