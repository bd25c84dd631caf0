"""Reads what is needed of a model before it is measured: its files, its inputs, and whether it is quantized.

Nothing of the model is changed or run here; engines see its files in a folder of their own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from act.errors import InputError
from act.program.files import PROGRAM_FILE, WEIGHTS_FILE, check_files, find_files, join_files, read_signature
from act.samples.dataset import Array, FeedSpec, Ragged, Samples

_BATCHES = 4
_PICTURE_CHANNELS = 3
# Kinds of ONNX operators that compute on integers begin with one of these.
_INTEGER_OPERATORS = ("QLinear", "ConvInteger", "MatMulInteger", "QGemm")


@dataclass(frozen=True)
class Model:
    """A model as the user named it."""

    name: str
    kind: Literal["paddle", "onnx"]
    files: Mapping[str, Sequence[Path]]  # what the engine loads, in one or several, by the names that it wants
    feeds: list[FeedSpec]
    quantized: bool  # whether it holds quantize/dequantize or integer operators

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for parts in self.files.values() for path in parts)

    def link(self, folder: Path) -> Path:
        """Link to the files in a fresh folder; return what an engine takes as the model's path."""
        if self.kind == "onnx":
            return next(iter(self.files.values()))[0]
        folder.mkdir()
        for name, parts in self.files.items():
            if len(parts) == 1:
                (folder / name).symlink_to(parts[0].resolve())
            else:
                join_files(parts, folder / name)
        return folder


def read_model(path: Path, model_filename: str | None = None, params_filename: str | None = None) -> Model:
    """Read a model's description; `InputError` where a file is missing or damaged.

    Args:
        path: folder, `.pdmodel` file or `.onnx` file.
        model_filename: program file, or `.onnx` file, in the folder; found when left out, as `params_filename` is.
    """
    if model_filename is not None and model_filename.endswith(".onnx"):
        path = path / model_filename
    if path.suffix == ".onnx":
        return _read_onnx(path)
    found = find_files(path, model_filename, params_filename)
    check_files(found)
    feeds, types = read_signature(found.program)
    quantized = any("quantize" in kind for kind in types)
    return Model(str(path), "paddle", {PROGRAM_FILE: [found.program], WEIGHTS_FILE: found.weights}, feeds, quantized)


def _read_onnx(path: Path) -> Model:
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (DecodeError, OSError) as error:
        raise InputError(f"{path}: not an ONNX model, or damaged ({error}); export it again") from None
    if not graph.node:
        raise InputError(f"{path}: not an ONNX model, or empty; export it again")
    weights = {initialiser.name for initialiser in graph.initializer}
    feeds = [_onnx_feed(value, path) for value in graph.input if value.name not in weights]
    quantized = any("Quantize" in node.op_type or node.op_type.startswith(_INTEGER_OPERATORS) for node in graph.node)
    return Model(str(path), "onnx", {path.name: [path]}, feeds, quantized)


def _onnx_feed(value: onnx.ValueInfoProto, path: Path) -> FeedSpec:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        raise InputError(f"{path}: its input `{value.name}` is no tensor of known rank; export the model with shapes")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    shape = tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in tensor.shape.dim)
    return FeedSpec(value.name, np.dtype(dtype).name, shape)


def input_shapes(model: Model, batch: int, size: tuple[int, int], length: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each input, batch axis first.

    Axes that the model fixes keep their length. Of four axes the two that follow or precede the channels are the
    picture's, height and width; every other axis of any length gets `length`. `InputError` where an input has no batch
    axis, or fixes it to another length.
    """
    shapes = {}
    for feed in model.feeds:
        where, axes = f"{model.name}: input `{feed.name}`", feed.shape
        if not axes:
            raise InputError(f"{where} has no batch axis; only models whose inputs have one can be measured")
        if axes[0] not in (-1, batch):
            raise InputError(f"{where} has a batch axis of {axes[0]}, but `batch_size` is {batch}; set it to that")
        wanted = [batch] + [length] * (len(axes) - 1)
        if len(axes) == 4:
            channels_last = 0 < axes[3] <= 4 and axes[1] < 0
            wanted[1:] = [*size, _PICTURE_CHANNELS] if channels_last else [_PICTURE_CHANNELS, *size]
        shapes[feed.name] = tuple(want if have < 0 else have for want, have in zip(wanted, axes))
    return shapes


def random_samples(model: Model, shapes: Mapping[str, tuple[int, ...]], batch: int, seed: int) -> Samples:
    """Return random values of the inputs' own types: floats in [0, 1), whole numbers 0 or 1.

    `InputError` where an input is of a type that has no random values, such as text.
    """
    generator, feeds = np.random.default_rng(seed), {}
    values: Array
    for feed in model.feeds:
        dtype, shape = np.dtype(feed.dtype), (_BATCHES * batch, *shapes[feed.name][1:])
        if np.issubdtype(dtype, np.floating):
            values = generator.random(shape, dtype=np.float32)
        elif np.issubdtype(dtype, np.integer) or dtype == np.bool_:
            values = generator.integers(2, size=shape)  # token numbers and masks: what every vocabulary has
        else:
            problem = f"is of type {feed.dtype}, for which there is no random data"
            raise InputError(f"{model.name}: input `{feed.name}` {problem}")
        feeds[feed.name] = Ragged.of(list(values.astype(dtype)))
    return Samples(feeds)
