"""The files of a candidate with the tail put back in each."""

from __future__ import annotations

import shutil
from pathlib import Path

from act.engines.spec import title_of
from act.engines.writer import CALIBRATION_TABLE, INT8_ONNX, size_of
from act.errors import InputError
from act.results.export import BODIES, DeviceFile, ExportedCandidate
from act.tail.files import SavedTail


def put_back(tail: SavedTail, candidate: ExportedCandidate, folder: Path) -> ExportedCandidate:
    """Write a candidate's files with the tail, and return where they are and which engines have none.

    Args:
        candidate: whose files are below `BODIES` of a folder.
        folder: gets those with the tail, under the same names.
    """
    (folder / candidate.name).mkdir()
    causes: dict[str, str] = {}
    # The Paddle model and its twin are there whatever engines take.
    for name in dict.fromkeys([candidate.name, *candidate.files.values(), f"{candidate.name}/{INT8_ONNX}"]):
        body, target = folder / BODIES / name, folder / name
        if not body.exists():
            continue
        try:
            target.mkdir(exist_ok=True) if body.is_dir() else target.parent.mkdir(exist_ok=True)
            tail.put_back(body, target)
        except InputError as error:
            causes[name] = f"{error}; the file without the tail is {BODIES}/{name}"
    if (table := folder / BODIES / candidate.name / CALIBRATION_TABLE).exists():
        shutil.copyfile(table, folder / candidate.name / CALIBRATION_TABLE)
    files = {engine: name for engine, name in candidate.files.items() if name not in causes}
    lacking = {engine: causes[name] for engine, name in candidate.files.items() if name in causes}
    return candidate.model_copy(
        update={
            "files": files,
            "bodies": {engine: f"{BODIES}/{name}" for engine, name in candidate.files.items()},
            "bytes": {engine: size_of(folder / name) for engine, name in files.items()},
            "refused": {**candidate.refused, **{e: f"{title_of(e)} gets {cause}" for e, cause in lacking.items()}},
            "elsewhere": {e: [_without_tail(each) for each in all_] for e, all_ in candidate.elsewhere.items()},
        }
    )


def _without_tail(file: DeviceFile) -> DeviceFile:
    path = f"{BODIES}/{file.file}" if file.file is not None else None
    return file.model_copy(update={"kind": f"{file.kind}, without the tail", "file": path})
