"""Paddle's inference models, as Paddle 2 saves them: a program (`.pdmodel`, `__model__`) and its weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from act.program.files import find_files
from act.program.model import InferenceModel
from act.program.passes.normalise import set_inference_mode


def recognises(path: Path) -> bool:
    """Tell whether a path is a folder, or names a program file."""
    return path.is_dir() or path.suffix == ".pdmodel"


def find(path: Path, model_filename: str | None, params_filename: str | None) -> Sequence[Path]:
    """Return the program file and the weights file.

    Raises:
        InputError: there is none, or the folder holds several.
    """
    return find_files(path, model_filename, params_filename)


def load(files: Sequence[Path]) -> InferenceModel:
    """Read the two files.

    Raises:
        InputError: a file is damaged, or does not fit the other.
    """
    program, weights = files
    model = InferenceModel.load(program.parent, program.name, weights.name)
    set_inference_mode(model)
    return model
