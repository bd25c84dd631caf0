"""What took how long at its quickest, kept between processes for a day, in a file of the user's cache.

A neighbour may be at work for minutes, and a process that begins beside it would take for usual what it meets.
"""

from __future__ import annotations

import json
import math
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from act import machine

_SECONDS = 24 * 3600.0
MOST_QUICKER = 2.5
"""What is kept counts only if neighbours can explain how much quicker it is than what is seen."""

BETTER = 0.98
"""Written anew when this much better."""


class Kept:
    """The file, for reading and writing by name; names count for this kind of CPU.

    Args:
        path: of the file, made when it is missing; None keeps nothing.
        most: so many names are kept, the newest.
    """

    def __init__(self, path: Path | None = None, most: int = 256) -> None:
        self._path = path
        self._most = most

    def read(self, name: str) -> float:
        """The seconds that are kept; infinity where there are none of today."""
        found = self._all().get(self._key(name))
        return found["seconds"] if found else math.inf

    def write(self, name: str, seconds: float) -> None:
        """Keep them; what cannot be written is no more than not remembered."""
        if self._path is None:
            return
        told = {**self._all(), self._key(name): {"seconds": seconds, "at": time.time()}}
        newest = sorted(told, key=lambda key: told[key]["at"])[-self._most :]
        partial = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps({key: told[key] for key in newest}) + "\n", encoding="utf-8")
            partial.replace(self._path)
        except OSError:
            with suppress(OSError):
                partial.unlink()

    @staticmethod
    def _key(name: str) -> str:
        return f"{machine.cpu_name()}: {name}"

    def _all(self) -> dict[str, dict[str, float]]:
        """All that is of today and as it must be."""
        try:
            told = json.loads(self._path.read_text(encoding="utf-8")) if self._path is not None else {}
        except (OSError, ValueError):
            return {}
        return {key: each for key, each in told.items() if _is_of_today(each)} if isinstance(told, dict) else {}


def of_the_user(file: str) -> Kept:
    """What the user's programs keep under a file's name; nothing where there is no place for such things."""
    try:
        folder = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    except RuntimeError:
        return Kept()
    return Kept(Path(folder) / "act-pipeline" / file)


def _is_of_today(each: Any) -> bool:
    if not isinstance(each, dict):
        return False
    seconds, at = each.get("seconds"), each.get("at")
    if not isinstance(seconds, float) or not isinstance(at, float):
        return False
    return seconds > 0 and 0 <= time.time() - at < _SECONDS
