"""Paddle's inference models, as Paddle 2 saves them: a program (`.pdmodel`, `__model__`) and its weights."""

from collections.abc import Sequence
from pathlib import Path

from act.program.files import PROGRAM_FILE, WEIGHTS_FILE
from act.program.files import find_files as find
from act.program.model import InferenceModel
from act.program.passes.normalise import set_inference_mode

__all__ = ["GIVEN_NAMES", "find", "load", "recognises"]

GIVEN_NAMES = (PROGRAM_FILE, WEIGHTS_FILE)


def recognises(path: Path) -> bool:
    """Tell whether a path is a folder, or names a program file."""
    return path.is_dir() or path.suffix == ".pdmodel"


def load(files: Sequence[Path]) -> InferenceModel:
    """Read the two files in inference mode."""
    program, weights = files
    model = InferenceModel.load(program.parent, program.name, weights.name)
    set_inference_mode(model)
    return model
