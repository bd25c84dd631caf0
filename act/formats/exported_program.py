"""PyTorch's exported programs: a `.pt2` file that `torch.export.save` wrote."""

from collections.abc import Sequence
from pathlib import Path

from act.environments import PYTORCH as ENVIRONMENT
from act.formats._archive import names_in
from act.formats._pytorch import WORKER, is_exported_program, only_file

__all__ = ["ENVIRONMENT", "WORKER", "find", "recognises"]


def recognises(path: Path) -> bool:
    """Tell whether a file is an archive with a program in it."""
    return path.is_file() and is_exported_program(names_in(path))


def find(path: Path, model_filename: str | None = None, params_filename: str | None = None) -> Sequence[Path]:
    """Return the file."""
    return only_file(path, model_filename, params_filename)
