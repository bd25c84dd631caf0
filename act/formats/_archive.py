"""Zip archives, looked at without unpacking them: what is in a file, and whether it is as large as it says."""

import zipfile
import zlib
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


def read_archive(path: Path, suffix: str = "", growth: int = 0) -> dict[str, bytes]:
    """Return what is in an archive and ends in a suffix, by name.

    Args:
        growth: how many bytes all of it together may be larger than the archive, which is packed where there are some.

    Raises:
        InputError: it is damaged, larger, or holds something twice; does not name the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            packed = any(each.compress_type != zipfile.ZIP_STORED for each in entries)
            larger = sum(each.file_size for each in entries) - path.stat().st_size
            if larger > growth or (packed and not growth) or len(set(archive.namelist())) < len(entries):
                raise InputError("its archive is packed as PyTorch packs none; save the model again")
            return {each.filename: archive.read(each) for each in entries if each.filename.endswith(suffix)}
    except (*_BROKEN, zlib.error) as error:
        raise InputError(f"its archive is damaged ({error}); copy or save the model again") from None
