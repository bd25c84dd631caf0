"""Paddle's inference models, as Paddle 2 saves them: a program (`.pdmodel`, `__model__`) and its weights."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from act.formats._paddle_tail import split as split_program
from act.formats._quantized import restore
from act.program.files import FILE_NAMES, PROGRAM_FILE, WEIGHTS_FILE, ModelFiles, find_files, is_program, join_files
from act.program.model import InferenceModel
from act.program.outputs import reference_outputs
from act.program.passes.normalise import set_inference_mode
from act.results.quantization import GivenQuantization
from act.samples.dataset import Samples
from act.tail.split import SplitModel

_SUFFIX = ".pdmodel"


def recognises(path: Path) -> bool:
    """Tell whether a file is a program, or a folder has one."""
    if path.is_dir():
        usual = (path / program for program, _ in FILE_NAMES)
        return any(path.glob(f"*{_SUFFIX}")) or any(map(_is_program, usual))
    return path.suffix == _SUFFIX or _is_program(path)


def find(path: Path, model_filename: str | None = None, params_filename: str | None = None) -> list[Path]:
    """Return the program file, and that of the weights or one for each of them."""
    files = find_files(path, model_filename, params_filename)
    return [files.program, *files.weights]


def load(files: Sequence[Path]) -> InferenceModel:
    """Read the files in inference mode."""
    return _read(files)[0]


def split(files: Sequence[Path]) -> SplitModel:
    """Read the files in inference mode, without rounding, and cut off the tail."""
    model, rounding = _read(files)
    parts = split_program(model)
    if rounding is None:
        return parts
    return replace(parts, rounding=rounding, outputs_as_given=partial(_outputs, files, parts.body.fetch_names))


def copy_to(files: Sequence[Path], folder: Path) -> Path:
    """Copy the program and its weights, as two files of the names that engines load, into a folder."""
    shutil.copyfile(files[0], folder / PROGRAM_FILE)
    join_files(files[1:], folder / WEIGHTS_FILE)
    return folder / PROGRAM_FILE


def _read(files: Sequence[Path]) -> tuple[InferenceModel, GivenQuantization | None]:
    model = _as_given(files)
    return model, restore(model, files[0])


def _as_given(files: Sequence[Path]) -> InferenceModel:
    model = InferenceModel.read(ModelFiles(files[0], tuple(files[1:])))
    set_inference_mode(model)
    return model


def _outputs(files: Sequence[Path], names: Sequence[str], samples: Samples, scratch: Path) -> Samples:
    """Return tensors of the program, rounding included, on samples."""
    model = _as_given(files)
    model.fetch_names = list(names)
    return reference_outputs(model, samples, files[0], scratch)


def _is_program(path: Path) -> bool:
    return path.is_file() and is_program(path)
