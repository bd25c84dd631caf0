"""Zip archives, looked at without unpacking them: what is in a file, and whether it is as large as it says."""

import zipfile
from pathlib import Path

from act.errors import InputError

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


def read_stored(path: Path) -> dict[str, bytes]:
    """Return all that is in an archive, by name.

    Raises:
        InputError: it is damaged, or holds something compressed or twice, so that it would be larger in memory; the
            message does not name the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            stored = all(each.compress_type == zipfile.ZIP_STORED for each in entries)
            whole = sum(each.file_size for each in entries) <= path.stat().st_size
            if not stored or not whole or len({each.filename for each in entries}) < len(entries):
                raise InputError("its archive is packed as PyTorch packs none; save the model again")
            return {each.filename: archive.read(each) for each in entries}
    except _BROKEN as error:
        raise InputError(f"its archive is damaged ({error}); copy or save the model again") from None
