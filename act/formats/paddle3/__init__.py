"""Paddle 3's inference models: a program as JSON (`inference.json`), and its weights beside it (`.pdiparams`)."""

import re
from collections.abc import Sequence
from pathlib import Path

from act.environments import PADDLE3
from act.errors import InputError
from act.program.model import InferenceModel

RUNTIME = "paddle3_inference"
GIVEN_NAMES = ("inference.json", "inference.pdiparams")
_SUFFIX = ".json"
_WEIGHTS = ".pdiparams"
# The file begins with `base_code`, which names the form; other JSON files do not have it.
_MAGIC = re.compile(rb'"magic"\s*:\s*"pir"')
_HEAD_BYTES = 4096


def recognises(path: Path) -> bool:
    """Tell whether a file is a Paddle 3 program, by its first bytes, or a folder has one, and none of Paddle 2."""
    if path.is_dir():
        older = any(path.glob("*.pdmodel")) or (path / "__model__").exists()
        return not older and any(map(_begins_like_pir, path.glob(f"*{_SUFFIX}")))
    return path.is_file() and _begins_like_pir(path)


def find(path: Path, model_filename: str | None = None, params_filename: str | None = None) -> list[Path]:
    """Return the program's file, and that of its weights, where there is one."""
    if path.is_dir():
        found = (
            [path / model_filename] if model_filename else sorted(filter(_begins_like_pir, path.glob(f"*{_SUFFIX}")))
        )
        if len(found) > 1:
            raise InputError(
                f"{path}: several models in this folder ({', '.join(each.name for each in found)}); set "
                "`model_filename`"
            )
        path = found[0]
    weights = path.parent / params_filename if params_filename else path.with_suffix(_WEIGHTS)
    for file in (path, *([weights] if params_filename else [])):
        if not file.is_file():
            raise InputError(f"{file}: no such file; name a Paddle 3 program (`inference.json`) and its weights")
    return [path, weights] if weights.is_file() else [path]


def load(files: Sequence[Path]) -> InferenceModel:
    """Import the program into one of Paddle 2.6."""
    from act.formats.paddle3.apart import import_apart

    return import_apart(files)


def runtime_lacks() -> str | None:
    """Return what is missing to run Paddle 3, with the cure."""
    return PADDLE3.lacks()


def computes_in_half(files: Sequence[Path]) -> bool:
    """Tell whether any tensor is in half precision."""
    from act.formats.paddle3.reading import read

    return read(files[0]).has_half_precision


def _begins_like_pir(path: Path) -> bool:
    with path.open("rb") as file:
        return _MAGIC.search(file.read(_HEAD_BYTES)) is not None
