"""Reading settings from files; one message names every wrong key."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ValidationError

from act.errors import InputError
from act.settings.base import Settings
from act.settings.data import Data, settings_of_reader
from act.settings.job import Job, Params

DEFAULT_PATH = Path("params.yaml")

Checked = TypeVar("Checked", bound=Settings)

# Not `repr`: a few lines of YAML with references can stand for more values than any memory holds.
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 80, 80


def load(path: Path = DEFAULT_PATH) -> Params:
    """Read and check all settings.

    Raises:
        InputError: the file is missing, is not YAML, or a key or value is wrong. Every wrong key is named.
    """
    return validate(Params, read_mapping(path, "run from the folder that holds params.yaml"), str(path))


def read_mapping(path: Path, cure: str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        InputError: the file is missing (the message adds the cure), is not YAML, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {cure}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that does not exist
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path}: must hold a mapping (`key: value`), found {type(raw).__name__}")
    return raw


def validate(kind: type[Checked], raw: Mapping[str, Any], origin: str) -> Checked:
    """Check what a file holds.

    Raises:
        InputError: a key or value is wrong. Every wrong key is named, after the origin.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{origin}: {_explain(kind, raw, error)}") from None


def load_job(name: str, path: Path = DEFAULT_PATH) -> Job:
    """Read and check all settings, and return those of one job.

    Raises:
        InputError: as `load`, or there is no job of that name.
    """
    jobs = load(path).jobs
    if name not in jobs:
        raise InputError(f"{path}: there is no job `{name}` under `jobs`; there are: {', '.join(jobs)}")
    return jobs[name]


def settings_in(annotation: Any) -> type[Settings] | None:
    """Return the settings in an annotation such as `Qat | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    return next(filter(None, map(settings_in, get_args(annotation))), None)


def _explain(kind: type[Settings], raw: Any, error: ValidationError) -> str:
    """Return for each wrong setting its key, the value found, and what is allowed."""
    parts = []
    for problem in error.errors():
        key = ".".join(map(str, problem["loc"]))
        allowed = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            known = _known_keys(kind, raw, problem["loc"][:-1])
            parts.append(f"`{key}` is not a known key; known here: {', '.join(known)}")
        elif problem["type"] == "missing":
            parts.append(f"`{key}` is missing")
        else:
            parts.append(f"`{key}` is {_SHORT.repr(problem['input'])}: {allowed}" if key else allowed)
    return "; ".join(parts)


def _known_keys(kind: type[Settings], raw: Any, location: tuple[int | str, ...]) -> Iterable[str]:
    """Return the keys that are known at a place in a file."""
    for part in location:
        raw = raw[part]
        if part in kind.model_fields:  # other parts count a list, or name a job
            kind = settings_in(kind.model_fields[str(part)].annotation) or kind
            kind = settings_of_reader(raw) if kind is Data else kind
    return kind.model_fields
