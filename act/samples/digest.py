"""The digest of a folder of data, by which other values in files of the same sizes and times are noticed.

Folders may be large: small files are read whole, of others blocks at places that are always the same, and no more of
all together than takes a moment. Times do not count, so that a copy is the same data.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

MOST_BYTES = 2**25
"""That are read of all files together."""
_BLOCK, _WHOLE = 2**12, 2**16


def files_of(places: Iterable[Path]) -> list[Path]:
    """Return the files at some places and below them, each once, in an order that is always the same."""
    found = (path for place in places for path in ([place] if place.is_file() else sorted(place.rglob("*"))))
    return [path for path in dict.fromkeys(found) if path.is_file()]


def sampled_digest(files: list[Path]) -> str:
    """Return the SHA-256 of names, sizes and values of files, of large ones and of very many as sampled; hexadecimal.

    `OSError` where one cannot be read.
    """
    digest = hashlib.sha256()
    share = min(_WHOLE, MOST_BYTES // max(1, len(files)))
    # Where there are more than can be read a block of each, some are.
    every = -(-_BLOCK // share) if share else len(files)
    for number, path in enumerate(files):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode("utf-8", "surrogateescape"))
        if number % every == 0:
            _update(digest, path, size, max(share, _BLOCK))
    return digest.hexdigest()


def _update(digest: "hashlib._Hash", path: Path, size: int, most: int) -> None:
    """Add so many bytes of a file at most: all, or blocks from its beginning to its end."""
    with path.open("rb") as file:
        if size <= most:
            digest.update(file.read(most))
            return
        count = most // _BLOCK
        for number in range(count):
            file.seek((size - _BLOCK) * number // max(1, count - 1))
            digest.update(file.read(_BLOCK))
