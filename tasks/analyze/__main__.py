"""`python -m tasks.analyze --job NAME`: what the model is made of and what that costs on this machine.

Writes `analysis.json`:

- `inputs`, `outputs`, `dynamic_axes` {input: [axis]}, `sample_shapes`;
- `parameters` and `macs` of the whole model; `operators`, the table that `operators.Operator` explains;
  `latency_source`, where its latency shares come from; `census`, the same by operator type;
- `structure`: kind, backbone, blocks, joins and heads (`structure.py`); `memory` of the activations (`costs.py`);
- `foldable`: operators that the model could do without (`foldable.py`), and `prepared`, what `prepare` took away;
- `own` {engine: {precision: seconds, or failure}}: the whole model as it is, int8 with ranges that nothing searched;
  its kernels are in `own/ENGINE.jsonl` (`own.py`);
- `sensitivity` of each layer to int8 and to pruning (`sensitivity.py`), which a time limit may cut short;
- `engines` {name: version, precisions that it has here, `multiplying`, `fusion` (`fusion.py`) or None, int8_layers,
  int8_parameters, int8_macs, and failure where it cannot run the model}; `kernels` of the fp32 model by kind,
  in seconds; `machine`.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from act.artifacts import read_json, replace_folder, stage_folder, write_json
from act.settings import Job
from tasks.stage import job_from_command_line

log = logging.getLogger(__name__)


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.analyze", "Analyse one job's model.") as (name, job):
        _analyze(name, job, stage_folder(name, "prepare"), stage_folder(name, "analyze"))


def _analyze(name: str, job: Job, prepared: Path, final: Path) -> None:
    # Paddle takes seconds to import, and wrong settings are told before.
    from act import machine
    from act.engines.inspection import ask_engines, describe_engines, kernel_times
    from act.onnx_graph.conversion import to_onnx
    from act.program import costs, foldable, structure
    from act.program.graph import Graph, observe
    from act.program.model import InferenceModel
    from act.program.operators import assign_latency, list_operators
    from act.quantization.sensitivity import measure_layers
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
    inspected = ask_engines(job, model, fp32, prepared / "calibration")
    kernels = next((each.timed for each in inspected.values() if each.timed), [])
    source = assign_latency(operators, kernels)
    found = structure.Structure(graph, tensors)
    settings, few = job.analyze, samples.head(job.analyze.samples)
    sensitivity = measure_layers(
        model, fp32, graph, operators, few, settings.prune_ratios, settings.time_limit_seconds
    ).to_json()
    macs = sum(operator.macs for operator in operators)
    with replace_folder(final) as folder:
        own = measure_baseline(name, model, samples.first(job.target.batch), job.target, folder / "own", fp32)
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
                "parameters": model.count_parameters(),
                "macs": macs,
                "structure": structure.describe(found, operators),
                "census": structure.census(operators),
                "memory": costs.activation_memory(graph, tensors).to_json(),
                "foldable": [asdict(finding) for finding in foldable.find(model, graph, tensors)],
                "prepared": described["normalised"],
                "latency_source": source,
                "operators": [asdict(operator) for operator in operators],
                "own": own,
                "sensitivity": sensitivity,
                "kernels": kernel_times(kernels),
                "engines": describe_engines(inspected, operators, fp32, graph, tensors, sample),
                "machine": machine.describe(),
            },
        )
    log.info(
        f"analyze: {found.kind}, {model.count_parameters() / 1e6:.2f} M parameters, {macs / 1e6:.0f} M "
        f"MACs; latency {source}"
    )
    if sensitivity["why"]:
        log.info("analyze: sensitivity: %s", sensitivity["why"])


if __name__ == "__main__":
    main()
