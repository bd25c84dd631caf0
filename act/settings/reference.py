"""Where the user's model is: a folder, a `.pdmodel` file, or a small YAML file that names an installed package.

The reference file exists because DVC follows paths in the checkout, and a package's files have no fixed path there:
it names the package, its version and a folder or file inside it. The package is never imported.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from act.errors import InputError

REFERENCE_SUFFIXES = (".yaml", ".yml")


class PackageReference(BaseModel):
    """A model that ships in a package: the contents of a reference file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    package: str = Field(min_length=1)
    version: str = Field(min_length=1)
    folder: str = Field(min_length=1)
    alphabet: str | None = None


def resolve(path: Path, what: Literal["folder", "alphabet"]) -> Path:
    """The path itself, or what a reference file points to.

    Raises:
        InputError: a reference file is wrong, its package is not installed in that version, or lacks the file.
    """
    if path.suffix not in REFERENCE_SUFFIXES:
        return path
    reference = _read(path)
    inside = reference.folder if what == "folder" else reference.alphabet
    if inside is None:
        raise InputError(f"{path}: `{what}` is missing")
    parts = PurePosixPath(inside)
    if parts.is_absolute() or ".." in parts.parts:
        raise InputError(f"{path}: `{what}` is {inside!r}: it must be a path inside the package, without `..`")
    try:
        package = distribution(reference.package)
    except PackageNotFoundError:
        raise InputError(
            f"{path}: {reference.package} is not installed; install {reference.package}=={reference.version}"
        ) from None
    if package.version != reference.version:
        raise InputError(
            f"{path}: `version` is {reference.version}, but {reference.package} {package.version} is installed; "
            "make them the same"
        )
    found = Path(str(package.locate_file(inside)))
    if not found.exists():
        raise InputError(f"{path}: {reference.package} {reference.version} has no {inside}")
    return found


def _read(path: Path) -> PackageReference:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        return PackageReference.model_validate(raw)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; name a model folder, a .pdmodel file or a reference file") from None
    except ValidationError as error:
        problems = "; ".join(f"`{'.'.join(map(str, e['loc'])) or 'the file'}`: {e['msg']}" for e in error.errors())
        raise InputError(
            f"{path}: {problems}; a reference file has the keys package, version, folder and optionally alphabet"
        ) from None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
