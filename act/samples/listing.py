"""Which pictures a folder holds, or a list in it names, in the many ways in which people write such lists."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from act.errors import InputError
from act.samples.pictures import FORMATS

Item = TypeVar("Item")

LONGEST_LIST = 64_000_000  # bytes
# What systems and editors leave beside pictures.
_LEFTOVERS = ("__MACOSX", "Thumbs.db")
# A name, then the class behind a space, a tab, a comma or a semicolon.
_LINE = re.compile(r"(?P<name>.*?)[\s,;]+(?P<label>[+-]?\d+)(\.0*)?$")
_BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


class Entry(NamedTuple):
    path: Path
    label: int | None
    where: str  # it is named, for messages


def entries(folder: str, list_file: str | None, reader: str) -> list[Entry]:
    """Return what the list names, in its order; all pictures of the folder, sorted, when there is no list."""
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{folder}: no such folder; the reader `{reader}` needs it")
    if list_file is None:
        found = sorted(pictures(root))
        if not found:
            raise InputError(f"{folder}: no pictures in it; looked for {', '.join(FORMATS)}")
        return [Entry(path, None, str(path)) for path in found]
    path = inside(root, list_file, f"`data` names the list {list_file!r}, which")
    lines = [(f"{path}, line {n}", line.strip()) for n, line in enumerate(_lines(path, folder), 1) if line.strip()]
    named = [_entry(root, line, where) for where, line in lines if not line.startswith("#")]
    if len(named) > 1 and _is_header(named[0]):
        named = named[1:]
    if not named:
        raise InputError(f"{path}: names no pictures; write a line `relative/path.jpg CLASS` for each")
    return named


def pictures(root: Path) -> Iterator[Path]:
    """Yield the pictures of a folder, at whatever depth; links to folders are followed once."""
    seen = set()
    for place, folders, files in os.walk(root, followlinks=True):
        here = os.path.realpath(place)
        folders[:] = sorted(each for each in folders if _is_data(each)) if here not in seen else []
        if here not in seen:
            yield from (Path(place, name) for name in files if _is_data(name) and Path(name).suffix.lower() in FORMATS)
        seen.add(here)


def inside(root: Path, name: str, what: str) -> Path:
    """Return the path of a name in a folder, unless it leads out of it: a list from elsewhere must not reach other
    files. Links that lie in the folder are the user's own, and may."""
    try:
        path = Path(os.path.normpath(Path(root.absolute(), name)))
        path.stat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # too long, a null byte, links in a circle
        raise InputError(f"{what} is no path: {error}; name a picture inside {root}") from None
    for base in (root.absolute(), root.resolve()):
        if path.is_relative_to(base):
            return root / path.relative_to(base)
    raise InputError(f"{what} leads out of {root}; name what lies inside it")


def thinned(items: Sequence[Item], count: int) -> list[Item]:
    """Return at most so many, evenly from the whole list, which may be sorted by class."""
    count = min(count, len(items))
    return [items[position * len(items) // count] for position in range(count)]


def dealt(items: Sequence[Item], origin: str) -> tuple[Sequence[Item], Sequence[Item]]:
    """Deal pictures out for calibration and evaluation, so that these never share one."""
    if len(items) < 2:
        cause = "it takes two, to calibrate on one and judge by another"
        raise InputError(f"{origin}: {len(items)} pictures; {cause}")
    return items[0::2], items[1::2]


def _lines(path: Path, folder: str) -> list[str]:
    try:
        if path.stat().st_size > LONGEST_LIST:
            raise InputError(f"{path}: {path.stat().st_size / 1e6:.0f} MB are no list of pictures; name a text file")
        content = path.read_bytes()
        encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
        return content.decode(encoding).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        cure = f"name a text file in UTF-8 inside {folder}"
        raise InputError(f"{path}: cannot be read as a list: {error}; {cure}") from None


def _entry(root: Path, line: str, where: str) -> Entry:
    parts = _LINE.match(line)
    name, label = (parts["name"], parts["label"]) if parts else (line, None)
    if label is not None and not 0 <= int(label[:20]) < 2**31:
        raise InputError(f"{where}: the class is {label[:20]}; classes are counted from 0")
    name = name.strip().rstrip(",;").strip()
    if len(name) > 1 and name[0] == name[-1] and name[0] in "\"'":
        name = name[1:-1]
    path = inside(root, name, f"{where}: {name!r}")
    if "\\" in name and not path.exists():  # written on Windows
        path = inside(root, name.replace("\\", "/"), f"{where}: {name!r}")
    return Entry(path, None if label is None else int(label), where)


def _is_header(entry: Entry) -> bool:
    return entry.label is None and entry.path.suffix.lower() not in FORMATS and not entry.path.exists()


def _is_data(name: str) -> bool:
    return not name.startswith(".") and name not in _LEFTOVERS
