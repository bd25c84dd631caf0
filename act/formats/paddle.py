"""Paddle's inference models, as Paddle 2 saves them: a program (`.pdmodel`, `__model__`) and its weights."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from act.formats._paddle_tail import split as split_program
from act.formats._quantized import restore
from act.program.files import PROGRAM_FILE, WEIGHTS_FILE
from act.program.files import find_files as find
from act.program.model import InferenceModel
from act.program.passes.normalise import set_inference_mode
from act.tail.split import SplitModel

__all__ = ["GIVEN_NAMES", "find", "load", "recognises", "split"]

GIVEN_NAMES = (PROGRAM_FILE, WEIGHTS_FILE)


def recognises(path: Path) -> bool:
    """Tell whether a path is a folder, or names a program file."""
    return path.is_dir() or path.suffix == ".pdmodel"


def load(files: Sequence[Path]) -> InferenceModel:
    """Read the two files in inference mode."""
    return _read(files)[0]


def split(files: Sequence[Path]) -> SplitModel:
    """Read the two files in inference mode, without rounding, and cut off the tail."""
    model, rounded = _read(files)
    return replace(split_program(model), rounded=rounded)


def _read(files: Sequence[Path]) -> tuple[InferenceModel, int]:
    program, weights = files
    model = InferenceModel.load(program.parent, program.name, weights.name)
    set_inference_mode(model)
    return model, restore(model, program)
