"""Zip archives, looked at without unpacking them."""

import zipfile
from pathlib import Path

_SIGNATURE = b"PK"
_BROKEN = (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeError)


def names_in(path: Path) -> list[str]:
    """Return the names in an archive; none where a file is no archive, or a damaged one."""
    try:
        with path.open("rb") as file:
            if file.read(len(_SIGNATURE)) != _SIGNATURE:
                return []
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except _BROKEN:
        return []
