"""Fills `deploy/<job>`: the quantized model in every documented form, the winner for its engine, and checksums.

The quantized files are there whoever won: another target may want them. Everything is copied from the export stage's
folder, never rewritten.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from act.engines.spec import spec_of
from act.errors import InputError
from act.results.benchmark import Variant
from act.results.export import ExportedCandidate, ExportedCandidates
from act.results.report import DeployedFile

WINNER_FOLDER = "winner"
_PADDLE_FILES = ("model.pdmodel", "model.pdiparams")
_INT8_FILES = ("calibration_table.txt", "quant_model.onnx")
_READ_BLOCK = 1 << 20


def copy_models(exported: Path, candidates: ExportedCandidates, winner: Variant, folder: Path) -> str:
    """Copy the model files into `folder`.

    Args:
        exported: the export stage's folder.
        candidates: what it holds.
        winner: whose files go to `folder/winner`.
        folder: where to.

    Returns:
        The name of the candidate whose files stand at the top: the best quantized one, or fp32 when there is none.

    Raises:
        InputError: a file that the export stage should have left is missing.
    """
    by_name = {candidate.name: candidate for candidate in candidates.candidates}
    name = candidates.deploy or next(each.name for each in candidates.candidates if each.precision == "fp32")
    documented = (*_PADDLE_FILES, *(_INT8_FILES if by_name[name].precision == "int8" else ()))
    sources = {file: exported / name / file for file in documented}
    won = exported / by_name[winner.candidate].files[winner.engine]
    if won.suffix == ".onnx":
        sources[f"{WINNER_FOLDER}/{won.name}"] = won
    else:
        sources |= {f"{WINNER_FOLDER}/{file}": won / file for file in _PADDLE_FILES}
    for candidate in (by_name["fp32"], by_name[name]):
        sources |= {"/".join(Path(path).parts[1:]): exported / path for path in _for_other_devices(candidate)}
    for target, source in sources.items():
        (folder / target).parent.mkdir(exist_ok=True, parents=True)
        try:
            shutil.copyfile(source, folder / target)
        except FileNotFoundError:
            raise InputError(f"{source}: no such file; run the stage `export` again") from None
    return name


def _for_other_devices(candidate: ExportedCandidate) -> list[str]:
    """List the files of a candidate for other devices, below the export stage's folder."""
    return [file.file for files in candidate.elsewhere.values() for file in files if file.file is not None]


def checksums(folder: Path) -> dict[str, DeployedFile]:
    """Return size and SHA-256 of every file below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): DeployedFile(bytes=path.stat().st_size, sha256=_sha256(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def how_to_load(winner: Variant, threads: int) -> str:
    """Return Python lines that run the winner the way it was measured, from inside the deploy folder."""
    path = Path(winner.path or "")
    file = f"{WINNER_FOLDER}/{path.name}" if path.suffix else WINNER_FOLDER
    snippet = spec_of(winner.engine).snippet
    return snippet(file, winner.precision, threads) if snippet is not None else ""


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BLOCK):
            digest.update(block)
    return digest.hexdigest()
