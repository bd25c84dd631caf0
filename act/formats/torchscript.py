"""TorchScript: a `.pt` file that `torch.jit.save` wrote. It says no shapes, so the job has to."""

from collections.abc import Sequence
from pathlib import Path

from act.environments import PYTORCH as ENVIRONMENT
from act.formats._archive import names_in
from act.formats._pytorch import WORKER, is_torchscript, only_file

__all__ = ["ENVIRONMENT", "NEEDS_INPUTS", "WORKER", "find", "recognises"]

NEEDS_INPUTS = True


def recognises(path: Path) -> bool:
    """Tell whether a file is an archive with code in it."""
    return path.is_file() and is_torchscript(names_in(path))


def find(path: Path, model_filename: str | None = None, params_filename: str | None = None) -> Sequence[Path]:
    """Return the file."""
    return only_file(path, model_filename, params_filename)
