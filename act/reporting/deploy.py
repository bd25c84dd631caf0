"""Fills `deploy/<job>`: the quantized model in every documented form, the winner for its engine, and checksums.

The quantized files are there whoever won: another target may want them. Everything is copied from the export stage's
folder, never rewritten.
"""

import shutil
from pathlib import Path

from act.artifacts import sha256
from act.engines.spec import spec_of
from act.errors import InputError
from act.results.benchmark import Variant
from act.results.export import ExportedCandidates
from act.results.report import DeployedFile

WINNER_FOLDER = "winner"
_PADDLE_FILES = ("model.pdmodel", "model.pdiparams")
_INT8_FILES = ("calibration_table.txt", "quant_model.onnx")


def copy_models(exported: Path, candidates: ExportedCandidates, winner: Variant, folder: Path) -> str:
    """Copy the model files from the export stage's folder into `folder`, the winner's into `folder/winner`.

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
        others = [each.file for files in candidate.elsewhere.values() for each in files if each.file is not None]
        sources |= {"/".join(Path(file).parts[1:]): exported / file for file in others}
    for target, source in sources.items():
        (folder / target).parent.mkdir(exist_ok=True, parents=True)
        try:
            shutil.copyfile(source, folder / target)
        except FileNotFoundError:
            raise InputError(f"{source}: no such file; run the stage `export` again") from None
    return name


def checksums(folder: Path) -> dict[str, DeployedFile]:
    """Return size and SHA-256 of every file below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): DeployedFile(bytes=path.stat().st_size, sha256=sha256(path).hex())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def how_to_load(winner: Variant, threads: int) -> str:
    """Return Python lines that run the winner the way it was measured, from inside the deploy folder."""
    path = Path(winner.path or "")
    file = f"{WINNER_FOLDER}/{path.name}" if path.suffix else WINNER_FOLDER
    snippet = spec_of(winner.engine).snippet
    return snippet(file, winner.precision, threads) if snippet is not None else ""
