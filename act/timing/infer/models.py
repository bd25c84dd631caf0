"""Reads what is needed of a model before it is measured: its files, its inputs, and whether it is quantized.

Nothing of the model is changed or run here; engines see links to its files in a folder of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from act.errors import InputError
from act.program.files import PROGRAM_FILE, WEIGHTS_FILE, check_files, find_files, read_signature
from act.samples.dataset import Array, FeedSpec, Ragged, Samples

_BATCHES = 4
_PICTURE_CHANNELS = 3
# Kinds of ONNX operators that compute on integers begin with one of these.
_INTEGER_OPERATORS = ("QLinear", "ConvInteger", "MatMulInteger", "QGemm")
# Token numbers and masks: what every vocabulary has.
_INTEGERS_BELOW = 2


@dataclass(frozen=True)
class Model:
    """A model as the user named it.

    Attributes:
        files: what the engine loads, under the names that it wants them to have.
        feeds: its inputs; axes of any length are -1.
        quantized: whether it holds quantize/dequantize or integer operators.
    """

    name: str
    kind: Literal["paddle", "onnx"]
    files: Mapping[str, Path]
    feeds: list[FeedSpec]
    quantized: bool

    @property
    def bytes(self) -> int:
        """Return the size of its files."""
        return sum(path.stat().st_size for path in self.files.values())

    def link(self, folder: Path) -> Path:
        """Link to the files in a fresh folder; return what an engine takes as the model's path."""
        if self.kind == "onnx":
            return next(iter(self.files.values()))
        folder.mkdir()
        for name, path in self.files.items():
            (folder / name).symlink_to(path.resolve())
        return folder


def read_model(path: Path, model_filename: str | None = None, params_filename: str | None = None) -> Model:
    """Read a model's description.

    Args:
        path: folder, `.pdmodel` file or `.onnx` file.
        model_filename: program file, or `.onnx` file, in the folder; found when left out.
        params_filename: weights file in the folder; found when left out.

    Raises:
        InputError: a file is missing or damaged.
    """
    if model_filename is not None and model_filename.endswith(".onnx"):
        return _read_onnx(path / model_filename)
    if path.suffix == ".onnx":
        return _read_onnx(path)
    program, weights = find_files(path, model_filename, params_filename)
    check_files(program, weights)
    feeds, types = read_signature(program)
    quantized = any("quantize" in kind for kind in types)
    return Model(str(path), "paddle", {PROGRAM_FILE: program, WEIGHTS_FILE: weights}, feeds, quantized)


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
    return Model(str(path), "onnx", {path.name: path}, feeds, quantized)


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
    picture's; every other axis of any length gets `length`.

    Args:
        size: height and width.

    Raises:
        InputError: an input has no batch axis, or fixes it to another length.
    """
    return {feed.name: _resolve(model, feed, batch, size, length) for feed in model.feeds}


def _resolve(model: Model, feed: FeedSpec, batch: int, size: tuple[int, int], length: int) -> tuple[int, ...]:
    where = f"{model.name}: input `{feed.name}`"
    if not feed.shape:
        raise InputError(f"{where} has no batch axis; only models whose inputs have one can be measured")
    if feed.shape[0] not in (-1, batch):
        raise InputError(f"{where} has a batch axis of {feed.shape[0]}, but `batch_size` is {batch}; set it to that")
    wanted = [batch] + [length] * (len(feed.shape) - 1)
    if len(feed.shape) == 4:
        channels_last = 0 < feed.shape[3] <= 4 and feed.shape[1] < 0
        wanted[1:] = [*size, _PICTURE_CHANNELS] if channels_last else [_PICTURE_CHANNELS, *size]
    return tuple(want if have < 0 else have for want, have in zip(wanted, feed.shape))


def random_samples(model: Model, shapes: Mapping[str, tuple[int, ...]], batch: int, seed: int) -> Samples:
    """Return random values of the inputs' own types: floats in [0, 1), whole numbers 0 or 1.

    Raises:
        InputError: an input is of a type that has no random values, such as text.
    """
    generator, count = np.random.default_rng(seed), _BATCHES * batch
    feeds = {feed.name: [_random(generator, model, feed, shapes) for _ in range(count)] for feed in model.feeds}
    return Samples({name: Ragged.of(values) for name, values in feeds.items()})


def _random(
    generator: np.random.Generator, model: Model, feed: FeedSpec, shapes: Mapping[str, tuple[int, ...]]
) -> Array:
    dtype, shape = np.dtype(feed.dtype), shapes[feed.name][1:]
    if np.issubdtype(dtype, np.floating):
        return np.asarray(generator.random(shape, dtype=np.float32), dtype=dtype)
    if np.issubdtype(dtype, np.integer) or dtype == np.bool_:
        return np.asarray(generator.integers(_INTEGERS_BELOW, size=shape), dtype=dtype)
    raise InputError(f"{model.name}: input `{feed.name}` is of type {feed.dtype}, for which there is no random data")
