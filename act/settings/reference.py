"""A path in the settings that names something inside an installed package.

DVC follows paths in the checkout, and a package's files have no fixed path there: a small YAML file names the package,
its version and a folder or file inside it. The package is never imported.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from typing import Literal

from act.errors import InputError
from act.settings.base import Settings, Text
from act.settings.files import read_mapping, validate


class _Reference(Settings):
    package: Text
    version: Text
    folder: Text
    alphabet: str | None = None


def resolve(path: Path, what: Literal["folder", "alphabet"]) -> Path:
    """Return the path itself, or what a reference file points to.

    Raises:
        InputError: a reference file is wrong, its package is not installed in that version, or lacks the file.
    """
    if path.suffix not in (".yaml", ".yml"):
        return path
    raw = read_mapping(path, "name a model folder, a .pdmodel file or a reference file")
    reference = validate(_Reference, raw, str(path))
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
