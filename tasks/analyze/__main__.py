"""`python -m tasks.analyze --job NAME`: what the model is made of and what that costs on this machine.

Writes `analysis.json`:

- `inputs`, `outputs`, `dynamic_axes` {input: [axis]}, `sample_shapes`;
- `parameters` and `multiply_adds` of the whole model; `operators`, the table that `operators.Operator` explains;
  `latency_source`, where its latency shares come from; `census`, the same by operator type;
- `structure`: kind, backbone, blocks, joins and heads (`structure.py`); `memory` of the activations (`costs.py`);
- `foldable`: operators that the model could do without (`foldable.py`), and `prepared`, what `prepare` took away;
- `own` {engine: {precision: seconds, or failure}}: the whole model as it is, int8 with ranges that nothing searched;
  its kernels are in `own/ENGINE.jsonl` (`own.py`);
- `sensitivity` of each layer to int8 and to pruning (`sensitivity.py`), which a time limit may cut short;
- `engines` {name: version, precisions that it has here, `multiplying`, `fusion` (`fusion.py`) or None, int8_layers,
  int8_parameters, int8_multiply_adds, and failure where it cannot run the model}; `kernels` of the fp32 model by kind,
  in seconds; `machine`.

Also `operators.csv`, the same table for `dvc plots`.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from act.artifacts import read_json, replace_folder, stage_folder, write_json
from act.settings import Job
from tasks.stage import job_from_command_line

if TYPE_CHECKING:  # Paddle takes seconds to import, and wrong settings are told before
    import onnx

    from act.engines.inspection import Told
    from act.program.graph import Graph, Tensor
    from act.program.model import InferenceModel
    from act.program.operators import Operator
    from act.samples.dataset import Array, Samples
    from act.settings import EngineName


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.analyze", "Analyse one job's model.") as (name, job):
        _analyze(name, job, stage_folder(name, "prepare"), stage_folder(name, "analyze"))


def _analyze(name: str, job: Job, prepared: Path, final: Path) -> None:
    from act import machine
    from act.engines.inspection import ask_engines
    from act.onnx_graph.conversion import to_onnx
    from act.program import costs, foldable, structure
    from act.program.graph import Graph, observe
    from act.program.model import InferenceModel
    from act.program.operators import assign_latency, list_operators
    from act.samples.dataset import Samples
    from act.strategy.baseline import measure_baseline

    described = read_json(prepared / "prepare.json")
    model = InferenceModel.load(prepared / "model")
    samples = Samples.load(prepared / "calibration")
    sample = next(samples.batches(1))
    graph = Graph.of(model)
    tensors = observe(model, graph, sample)
    operators = list_operators(model, sample, graph, tensors)
    fp32 = to_onnx(model)
    told = ask_engines(job, model, fp32, prepared / "calibration")
    kernels = next((each.timed for each in told.values() if each.timed), [])
    source = assign_latency(operators, kernels)
    parameters = sum(int(model.weight(name).size) for name in model.weight_names())
    multiply_adds = sum(operator.multiply_adds for operator in operators)
    found = structure.Structure(graph, tensors)
    sensitivity = _sensitivity(job, model, fp32, graph, operators, samples)
    with replace_folder(final) as folder:
        own = measure_baseline(name, model, _batch(samples, job.target.batch), job.target, folder / "own", fp32)
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
                "structure": structure.describe(found, operators),
                "census": structure.census(operators),
                "memory": costs.activation_memory(graph, tensors).to_json(),
                "foldable": [asdict(finding) for finding in foldable.find(model, graph, tensors)],
                "prepared": described["normalised"],
                "latency_source": source,
                "operators": [asdict(operator) for operator in operators],
                "own": own,
                "sensitivity": sensitivity,
                "kernels": _by_kind(kernels),
                "engines": _engines(told, operators, fp32, graph, tensors, sample),
                "machine": machine.describe(),
            },
        )
    print(
        f"analyze: {found.kind}, {parameters / 1e6:.2f} M parameters, {multiply_adds / 1e6:.0f} M multiply-adds; "
        f"latency {source}"
    )
    if sensitivity["why"]:
        print(f"analyze: sensitivity: {sensitivity['why']}")


def _batch(samples: Samples, size: int) -> dict[str, Array]:
    """The first batch, filled up by repetition."""
    import numpy as np

    first = next(samples.batches(size))
    return {name: np.ascontiguousarray(np.resize(each, (size, *each.shape[1:]))) for name, each in first.items()}


def _sensitivity(
    job: Job,
    model: InferenceModel,
    fp32: onnx.ModelProto,
    graph: Graph,
    operators: Sequence[Operator],
    samples: Samples,
) -> dict[str, Any]:
    from act.quantization.sensitivity import Sensitivity, measure_layers

    settings = job.analyze
    if settings.samples == 0 or settings.time_limit_seconds == 0:
        return Sensitivity(why="not asked for").to_json()
    few, limit = samples.head(settings.samples), settings.time_limit_seconds
    return measure_layers(model, fp32, graph, operators, few, settings.prune_ratios, limit).to_json()


def _engines(
    told: Mapping[EngineName, Told],
    operators: Sequence[Operator],
    fp32: onnx.ModelProto,
    graph: Graph,
    tensors: Mapping[str, Tensor],
    sample: Mapping[str, Array],
) -> dict[str, Any]:
    """What is told of each engine: what it said itself, what it fuses, and which layers it has int8 kernels for."""
    from act.engines import fusion
    from act.engines.spec import spec_of

    twins: dict[str, int] | None = {}
    if any(each.kernels for name, each in told.items() if spec_of(name).reads == "onnx"):
        try:
            twins = fusion.onnx_twins(fp32, graph, tensors, sample)
        except Exception as error:  # whatever ONNX Runtime does not like about a model that another engine runs
            twins = None
            print(f"analyze: what engines fuse cannot be told: {' '.join(str(error).split())[:200]}")
    result: dict[str, Any] = {}
    for name, each in told.items():
        spec = spec_of(name)
        able = [operator for operator in operators if operator.quantizable and operator.type in spec.int8_operators]
        known = twins if spec.reads == "onnx" else graph.makers
        result[name] = {
            **each.to_json(),
            "fusion": fusion.describe(graph, each.kernels, known) if each.kernels and known is not None else None,
            "int8_layers": len(able),
            "int8_parameters": sum(operator.parameters for operator in able),
            "int8_multiply_adds": sum(operator.multiply_adds for operator in able),
        }
    return result


def _by_kind(kernels: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Count and seconds of the kernels of each kind, slowest kind first."""
    groups: dict[str, list[float]] = defaultdict(list)
    for kernel in kernels:
        groups[kernel["kind"]].append(kernel["seconds"])
    rows = [{"kind": kind, "count": len(times), "seconds": sum(times)} for kind, times in groups.items()]
    return sorted(rows, key=lambda row: -float(str(row["seconds"])))


def _write_table(path: Path, operators: Sequence[Operator]) -> None:
    from act.program.operators import Operator

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=[column.name for column in fields(Operator)])
        writer.writeheader()
        for operator in operators:
            weights = " ".join("x".join(map(str, shape)) for shape in operator.weights)
            writer.writerow({**asdict(operator), "shape": "x".join(map(str, operator.shape)), "weights": weights})


if __name__ == "__main__":
    main()
