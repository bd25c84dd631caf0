"""`python -m tasks.analyze --job NAME`: what the model is made of and what that costs on this machine.

Writes `analysis.json`, and in `own/ENGINE.jsonl` the kernels that each engine made of the model.
"""

import logging
from pathlib import Path

from act.artifacts import replace_folder, stage_folder
from act.errors import InputError
from act.results.analyze import Analysis, Sensitivity
from act.results.machine import Machine
from act.results.prepare import Preparation
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
    from act.engines.inspection import ask_engines, convert, describe_engines, kernel_times
    from act.program import foldable, structure
    from act.program.graph import Graph
    from act.program.model import InferenceModel
    from act.program.resources import activation_memory, assign_latency, count_types, list_operators
    from act.quantization.sensitivity import measure_layers
    from act.samples.dataset import Samples
    from act.strategy.profile.measure import measure_baseline

    prepared_as = Preparation.read(prepared / "prepare.json")
    if prepared_as.batch == "one" and job.target.batch > 1:
        raise InputError(
            f"`target.batch` is {job.target.batch}, but the model takes one sample at a time, and its operators do not "
            "allow more; set it to 1, or export the model with a batch of any length"
        )
    model = InferenceModel.load(prepared / "model")
    samples = Samples.load(prepared / "calibration")
    graph = Graph(model, next(samples.batches(1)))
    fp32, no_onnx = convert(model, job.target.engines)
    if no_onnx:
        log.info("analyze: the model has no ONNX form, so it is run as it is, not quantized or pruned: %s", no_onnx)
    inspected = ask_engines(job, graph, fp32, prepared)
    kernels = next((each.timed for each in inspected.values() if each.timed), [])
    operators, source = assign_latency(list_operators(graph), kernels)
    found, parameters = structure.describe(graph, operators), model.count_parameters()
    settings, few = job.analyze, samples.head(job.analyze.samples)
    sensitivity = Sensitivity(why="the model has no ONNX form, by which layers are measured")
    if fp32 is not None:
        sensitivity = measure_layers(fp32, graph, operators, few, settings.prune_ratios, settings.time_limit_seconds)
    macs = sum(operator.macs for operator in operators)
    with replace_folder(final) as folder:
        batch = samples.first(job.target.batch)
        own = measure_baseline(name, model, batch, job.target, folder / "own", fp32, inspected)
        Analysis(
            inputs=prepared_as.inputs,
            outputs=prepared_as.outputs,
            dynamic_axes={
                feed.name: [axis for axis, size in enumerate(feed.shape) if size == -1] for feed in prepared_as.inputs
            },
            sample_shapes={feed: list(value.shape) for feed, value in graph.sample.items()},
            parameters=parameters,
            macs=macs,
            structure=found,
            census=count_types(operators),
            memory=activation_memory(graph),
            foldable=foldable.find(graph),
            prepared=prepared_as.normalised,
            latency_source=source,
            operators=operators,
            own=own,
            sensitivity=sensitivity,
            kernels=kernel_times(kernels),
            engines=describe_engines(inspected, operators, fp32, graph),
            no_onnx=no_onnx,
            machine=Machine.model_validate(machine.describe()),
        ).write(folder / "analysis.json")
    log.info(f"analyze: {found.kind}, {parameters / 1e6:.2f} M parameters, {macs / 1e6:.0f} M MACs; latency {source}")
    if sensitivity.why:
        log.info("analyze: sensitivity: %s", sensitivity.why)


if __name__ == "__main__":
    main()
