"""A training on disk, to go on from: arrays in an `.npz`, the rest in a `.json` that names it and is written last.

So there is always one whole checkpoint, whenever the process is killed. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from act.artifacts import read_json, write_json
from act.errors import InputError
from act.samples.dataset import Array

_INDEX = "checkpoint.json"


class Checkpoint:
    """The checkpoint of one training.

    Args:
        folder: of its own; made when there is something to keep.
        identity: what the training is made of, as plain values; a checkpoint of another one is refused.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self._folder = folder
        self._identity = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def save(self, progress: Mapping[str, Any], groups: Mapping[str, Mapping[str, Array]]) -> None:
        """Replace the checkpoint by plain values and groups of arrays by name."""
        self._folder.mkdir(parents=True, exist_ok=True)
        names = [(group, name) for group, arrays in groups.items() for name in arrays]
        path = self._folder / f"state-{progress['step']}-{os.getpid()}.npz"
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            # By number: names of variables may hold what an archive's must not.
            np.savez(file, **{str(number): groups[group][name] for number, (group, name) in enumerate(names)})
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        index = {"identity": self._identity, "arrays": path.name, "names": names, "progress": dict(progress)}
        write_json(self._folder / _INDEX, index)
        for other in self._folder.glob("state-*"):
            if other != path:
                other.unlink()

    def load(self) -> tuple[dict[str, Any], dict[str, dict[str, Array]]] | None:
        """Return what was saved last; None where nothing was.

        Raises:
            InputError: it is damaged, or of another training.
        """
        path = self._folder / _INDEX
        if not path.exists():
            return None
        cure = f"remove the folder {self._folder} to train from the start"
        try:
            index = read_json(path)
            if index["identity"] != self._identity:
                raise InputError(f"{path}: of a training with other settings or another model; {cure}")
            groups: dict[str, dict[str, Array]] = {}
            with np.load(self._folder / Path(index["arrays"]).name, allow_pickle=False) as arrays:
                for number, (group, name) in enumerate(index["names"]):
                    groups.setdefault(group, {})[name] = arrays[str(number)]
            return dict(index["progress"]), groups
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise InputError(f"{self._folder}: damaged checkpoint: {error}; {cure}") from None
