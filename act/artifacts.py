"""The form of what passes between stages: folders that are either whole or absent, and JSON with a schema version.

A stage fills a fresh folder beside its final place and renames it when complete; an older one is renamed away before.
So a stage that is killed at any moment leaves nothing that a rerun would take for whole.
"""

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from act.errors import InputError

ROOT = Path("artifacts")
DEPLOY_ROOT = Path("deploy")
SCHEMA_VERSION = 1


def stage_folder(job: str, stage: str) -> Path:
    """Return where a stage of a job leaves its artefacts."""
    return ROOT / job / stage


@contextmanager
def replace_folder(final: Path) -> Iterator[Path]:
    """Give a fresh folder to fill; rename it to `final` when the block ends well, remove it when it does not."""
    made = [folder for folder in final.parents if not folder.exists()]
    final.parent.mkdir(parents=True, exist_ok=True)
    for kind in ("partial", "old"):
        for leftover in final.parent.glob(f".{final.name}.{kind}-*"):
            shutil.rmtree(leftover)
    partial = final.with_name(f".{final.name}.partial-{os.getpid()}")
    old = final.with_name(f".{final.name}.old-{os.getpid()}")
    partial.mkdir()
    try:
        yield partial
        if final.exists():
            final.rename(old)
        partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def fingerprint(settings: Any, inputs: Iterable[Path], code: Iterable[Path] = ()) -> str:
    """Return a name that changes with what work is made of: settings, files, and Python files of code, in folders."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for path in (*_files(inputs, "*"), *_files(code, "*.py")):
        digest.update(path.name.encode() + sha256(path))
    return digest.hexdigest()[:32]


def _files(places: Iterable[Path], pattern: str) -> list[Path]:
    """Return the files among some places and below them, in an order that is always the same."""
    found = [path for place in places for path in ([place] if place.is_file() else sorted(place.rglob(pattern)))]
    return [path for path in found if path.is_file()]


def sha256(path: Path) -> bytes:
    """Return the digest of a file, which may be larger than what should be held in memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.digest()


def write_json(path: Path, payload: dict[str, Any]) -> None:
    """Write a file with its schema version, whole or not at all; NaN and infinity are refused, as JSON has none.

    Results have types for it (`act/results`); this serves what engines' interpreters read, which have NumPy alone.
    """
    text = json.dumps({"schema_version": SCHEMA_VERSION, **payload}, indent=2, allow_nan=False, ensure_ascii=False)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.rename(path)


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a table; its first row is the heading."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def read_json(path: Path, version: int = SCHEMA_VERSION) -> dict[str, Any]:
    """Read what `write_json` wrote; `InputError` where it is missing, no JSON, or has another schema version."""
    try:
        payload: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the stage that writes it, or `dvc repro`") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}; remove it and run its stage again") from None
    if not isinstance(payload, dict) or payload.get("schema_version") != version:
        raise InputError(f"{path}: not of schema version {version}; remove it and run its stage again")
    return payload
