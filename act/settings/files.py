"""Reading settings from files; one message names every wrong key."""

import reprlib
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from act.errors import InputError
from act.settings.base import Settings, Text
from act.settings.data import Data, settings_of_reader
from act.settings.job import Job, Params

DEFAULT_PATH = Path("params.yaml")
REFERENCES = (".yaml", ".yml")
"""Suffixes of files that name what is inside an installed package."""

Checked = TypeVar("Checked", bound=Settings)

# Not `repr`: a few lines of YAML with references can stand for more values than any memory holds.
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 80, 80


def load(path: Path = DEFAULT_PATH) -> Params:
    """Read and check all settings; `InputError`, which names every wrong key, where the file is none."""
    return validate(Params, read_mapping(path, "run from the folder that holds params.yaml"), str(path))


def read_text(path: Path, cure: str) -> str:
    """Read a text in UTF-8; `InputError` where it is missing (the message adds the cure) or something else."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {cure}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def read_mapping(path: Path, cure: str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping; `InputError` as `read_text`, or where it holds something else."""
    try:
        raw = parse(read_text(path, cure))
    except ValueError as error:
        raise InputError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path}: must hold a mapping (`key: value`), found {type(raw).__name__}")
    return raw


def parse(text: str) -> Any:
    """Return what a text in YAML 1.2 stands for; `ValueError`, of one line, where it is none.

    DVC reads params.yaml by the same rules, and writes by them: `1e-05` is a number, `on` a text.
    """
    try:
        return YAML(typ="safe").load(text)
    except (YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that does not exist
        raise ValueError(" ".join(str(error).split())) from None


def validate(kind: type[Checked], raw: Mapping[str, Any], origin: str) -> Checked:
    """Check what a file holds; `InputError` names every wrong key, after the origin."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{origin}: {_explain(kind, raw, error)}") from None


def load_job(name: str, path: Path = DEFAULT_PATH) -> Job:
    """Read and check all settings, and return those of one job; `InputError` as `load`, or where there is none."""
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
    parts = iter(location)
    for part in parts:
        raw, annotation = raw[part], kind.model_fields[str(part)].annotation
        kind = settings_in(annotation) or kind
        if get_origin(annotation) in (list, dict):
            raw = raw[next(parts)]  # by its number, or the name of a job
        kind = settings_of_reader(raw) if kind is Data else kind
    return kind.model_fields


class _Reference(Settings):
    package: Text
    version: Text
    folder: Text
    alphabet: str | None = None


def resolve(path: Path, what: Literal["folder", "alphabet"]) -> Path:
    """Return the path itself, or what a reference file points to: something inside an installed package.

    DVC follows paths in the checkout, and a package's files have no fixed path there: a small YAML file names the
    package, its version and what is inside it. The package is never imported.

    Raises:
        InputError: a reference file is wrong, its package is not installed in that version, or lacks the file.
    """
    if path.suffix not in REFERENCES:
        return path
    raw = read_mapping(path, "name a model, its folder or a reference file")
    reference = validate(_Reference, raw, str(path))
    inside = reference.folder if what == "folder" else reference.alphabet
    if inside is None:
        raise InputError(f"{path}: `{what}` is missing")
    parts = PurePosixPath(inside)
    if parts.is_absolute() or ".." in parts.parts:
        raise InputError(f"{path}: `{what}` is {inside!r}: it must be a path inside the package, without `..`")
    name, version = reference.package, reference.version
    try:
        package = distribution(name)
    except PackageNotFoundError:
        raise InputError(f"{path}: {name} is not installed; install {name}=={version}") from None
    if package.version != version:
        there = f"{name} {package.version} is installed"
        raise InputError(f"{path}: `version` is {version}, but {there}; make them the same")
    found = Path(str(package.locate_file(inside)))
    if not found.exists():
        raise InputError(f"{path}: {name} {version} has no {inside}")
    return found
