"""`python -m tasks.export --job NAME`: write every candidate in the forms that the engines load, and check each.

Reads the models of `prepare` and `prune`, the candidates of `refine` that `plan` keeps, and the trained model of
`qat` where there is one. Writes a folder for fp32, for a pruned model (`pruned`, in fp32) and for each int8 candidate,
and `candidates.json`, which names the files of each candidate for each engine, their sizes, and how far each file's
outputs lie from the simulated quantized model's. With `paddle_lite` or `tensorrt` among the target's engines also their
files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from act.artifacts import read_json, replace_folder, stage_folder, write_json
from act.results.calibrate import Ranges
from act.results.plan import Plan
from act.results.prune import Pruning
from act.results.ptq_search import Candidates
from act.results.qat import Training
from act.settings import EngineName
from tasks.stage import job_from_command_line

PRUNED = "pruned"


def main() -> None:
    """Parse the command line and run the stage."""
    with (
        job_from_command_line("tasks.export", "Write the artefacts of one job.") as (name, job),
        replace_folder(stage_folder(name, "export")) as folder,
    ):
        _export(name, job.target.engines, folder)


def _export(job: str, engines: Sequence[EngineName], folder: Path) -> None:
    from act.engines.check import Checker
    from act.engines.export import write_fp32, write_int8
    from act.engines.paddle_lite import files as paddle_lite
    from act.engines.tensorrt import files as tensorrt
    from act.program.model import InferenceModel
    from act.quantization.ranges import Range
    from act.quantization.scheme import Scheme
    from act.samples.dataset import Samples

    prepared, searched = stage_folder(job, "prepare"), stage_folder(job, "refine")
    model = InferenceModel.load(prepared / "model")
    checker = Checker(Samples.load(prepared / "calibration"))
    keep = Plan.read(stage_folder(job, "plan") / "plan.json").keep
    found = [each for each in Candidates.read(searched / "candidates.json").candidates if each.id in keep]
    candidates: list[dict[str, Any]] = []

    def add(entry: dict[str, Any], source: InferenceModel, scheme: Scheme | None) -> None:
        if paddle_lite.ENGINE in engines:
            paddle_lite.add_files(entry, source, scheme, folder)
        if tensorrt.ENGINE in engines:
            tensorrt.add_files(entry, source, scheme, folder, checker)
        candidates.append(entry)

    add(write_fp32(model, folder, checker), model, None)
    is_pruned = Pruning.read(stage_folder(job, "prune") / "prune.json").pruned
    if is_pruned:
        pruned = InferenceModel.load(stage_folder(job, "prune") / "model")
        add(write_fp32(pruned, folder, checker, PRUNED), pruned, None)
    alternatives: dict[str, dict[str, Range]] = {}
    # Where it comes first, the search has found what it bears best.
    if found and "onnxruntime" in engines[1:]:
        rules = Ranges.read(stage_folder(job, "calibrate") / "ranges.json").rules
        alternatives = {
            label: {name: Range(low, high) for name, (low, high) in spans.items()} for label, spans in rules.items()
        }
    equalised = InferenceModel.load(stage_folder(job, "calibrate") / "model") if found else model
    for candidate in found:
        scheme = Scheme.from_json(read_json(searched / candidate.scheme))
        add(write_int8(candidate.id, equalised, scheme, folder, checker, alternatives), equalised, scheme)
    rank = {each.id: (each.symmetric, each.quality) for each in found}
    trained = Training.read(stage_folder(job, "qat") / "qat.json")
    if trained.candidate is not None:
        scheme = Scheme.from_json(read_json(stage_folder(job, "qat") / "scheme.json"))
        student = InferenceModel.load(stage_folder(job, "qat") / "model")
        add(write_int8(trained.candidate, student, scheme, folder, checker, alternatives), student, scheme)
        symmetric = all(span.symmetric for span in scheme.activations.values())
        rank[trained.candidate] = (symmetric, trained.quality_after or 0.0)
    # Paddle's int8 kernels and calibration tables know no zero point, so a symmetric candidate is what others can use.
    deploy = max(rank, key=lambda name: rank[name], default=PRUNED if is_pruned else None)
    write_json(folder / "candidates.json", {"candidates": candidates, "deploy": deploy})
    for entry in candidates:
        sizes = ", ".join(f"{engine} {size / 1e6:.2f} MB" for engine, size in entry["bytes"].items())
        checks = ", ".join(f"{name} {value:.4f}" for name, value in entry["check"].items())
        print(f"export: {entry['name']}: {sizes}; check: {checks}")
        for file in entry.get("paddle_lite_arm", []):
            failure = file["failure"]
            said = f"{failure['kind']}: {failure['cause']}" if failure else f"{file['bytes'] / 1e6:.2f} MB"
            print(f"export: {entry['name']}: Paddle Lite for ARM, {file['precision']}: {said}")


if __name__ == "__main__":
    main()
