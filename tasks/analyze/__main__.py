"""`python -m tasks.analyze --job NAME`: what the model is made of and what that costs on this machine.

Writes `analysis.json`: `inputs`, `outputs`, `dynamic_axes` {input: [axis]}, `sample_shapes`; `parameters` and
`multiply_adds` of the whole model; `operators`, the table that `operators.Operator` explains; `latency_source`, where
its latency shares come from; `engines` {name: version, precisions that it has here, int8_layers, int8_parameters,
int8_multiply_adds, and failure where it cannot run the model}; `kernels` of the fp32 model by kind, in seconds;
`machine`. Also `operators.csv`, the same table for `dvc plots`.
"""

from __future__ import annotations

import csv
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from act.artifacts import read_json, replace_folder, stage_folder, write_json
from act.params import Job
from act.stage import job_from_command_line

if TYPE_CHECKING:  # Paddle takes seconds to import, and wrong settings are told before
    from act.model import InferenceModel
    from tasks.analyze.operators import Operator

PROFILE_LIMIT_SECONDS = 120


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.analyze", "Analyse one job's model.") as (name, job):
        _analyze(job, stage_folder(name, "prepare"), stage_folder(name, "analyze"))


def _analyze(job: Job, prepared: Path, final: Path) -> None:
    from act import machine
    from act.engines.int8_operators import INT8_OPERATORS
    from act.model import InferenceModel
    from act.samples import Samples
    from tasks.analyze.operators import assign_latency, list_operators

    described = read_json(prepared / "prepare.json")
    model = InferenceModel.load(prepared / "model")
    sample = next(Samples.load(prepared / "calibration").batches(1))
    operators = list_operators(model, sample)
    kernels, engines = _ask_engines(job, model, prepared / "calibration")
    source = assign_latency(operators, kernels)
    parameters = sum(int(model.weight(name).size) for name in model.weight_names())
    multiply_adds = sum(operator.multiply_adds for operator in operators)
    int8 = {
        name: [operator for operator in operators if operator.quantizable and operator.type in INT8_OPERATORS[name]]
        for name in job.target.engines
    }
    with replace_folder(final) as folder:
        _write_table(folder / "operators.csv", operators)
        write_json(
            folder / "analysis.json",
            {
                "inputs": described["inputs"],
                "outputs": described["outputs"],
                "dynamic_axes": {
                    feed["name"]: [axis for axis, size in enumerate(feed["shape"]) if size == -1]
                    for feed in described["inputs"]
                },
                "sample_shapes": {name: list(value.shape) for name, value in sample.items()},
                "parameters": parameters,
                "multiply_adds": multiply_adds,
                "latency_source": source,
                "operators": [asdict(operator) for operator in operators],
                "kernels": _by_kind(kernels),
                "engines": {
                    name: {
                        **engines[name],
                        "int8_layers": len(able),
                        "int8_parameters": sum(operator.parameters for operator in able),
                        "int8_multiply_adds": sum(operator.multiply_adds for operator in able),
                    }
                    for name, able in int8.items()
                },
                "machine": machine.describe(),
            },
        )
    print(f"analyze: {parameters / 1e6:.2f} M parameters, {multiply_adds / 1e6:.0f} M multiply-adds; latency {source}")


def _ask_engines(
    job: Job, model: InferenceModel, samples: Path
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """The kernels of the fp32 model where an engine tells, and each engine's version and precisions or its failure."""
    from act.engines.process import EngineFailure, EngineProcess
    from act.evaluation import write_for_engine
    from act.onnx_format import to_onnx

    kernels: list[dict[str, Any]] = []
    engines: dict[str, dict[str, Any]] = {}
    fp32_onnx = to_onnx(model)
    for name in job.target.engines:
        with tempfile.TemporaryDirectory() as scratch:
            path = write_for_engine(name, model, None, Path(scratch), fp32_onnx)
            # DVC keeps the answer, so what may fail in passing is asked twice.
            for last in (False, True):
                try:
                    with EngineProcess(name, path, "fp32", job.target.threads, PROFILE_LIMIT_SECONDS) as process:
                        info = process.load()
                        engines[name] = {"version": info.version, "precisions": list(info.precisions)}
                        kernels = kernels or process.profile(samples, batch=1)
                    break
                except EngineFailure as failure:
                    engines[name] = {"version": None, "precisions": [], "failure": str(failure)}
                    if last or failure.kind in ("missing", "unsupported"):
                        print(f"analyze: {name} cannot be used here: {failure}")
                        break
    return kernels, engines


def _by_kind(kernels: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Count and seconds of the kernels of each kind, slowest kind first."""
    groups: dict[str, list[float]] = defaultdict(list)
    for kernel in kernels:
        groups[kernel["kind"]].append(kernel["seconds"])
    rows = [{"kind": kind, "count": len(times), "seconds": sum(times)} for kind, times in groups.items()]
    return sorted(rows, key=lambda row: -float(str(row["seconds"])))


def _write_table(path: Path, operators: Sequence[Operator]) -> None:
    from tasks.analyze.operators import Operator

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=[column.name for column in fields(Operator)])
        writer.writeheader()
        for operator in operators:
            weights = " ".join("x".join(map(str, shape)) for shape in operator.weights)
            writer.writerow({**asdict(operator), "shape": "x".join(map(str, operator.shape)), "weights": weights})


if __name__ == "__main__":
    main()
