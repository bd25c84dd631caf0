"""Plans what is measured (which model on which engine in which precision), and measures it side by side."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import cast

from act import machine
from act.engines.base import RuntimePrecision
from act.engines.process import EngineFailure, EngineProcess
from act.engines.spec import all_specs
from act.results.benchmark import InferFailed, InferFigures, InferModel, InferRan, NoFigures
from act.results.machine import Machine
from act.timing.infer.models import Model, input_shapes, random_samples, read_model
from act.timing.infer.settings import Infer, split_precision
from act.timing.rounds import TimedModel
from act.timing.side_by_side import Measured, figures_of, measure_side_by_side, stream_count


@dataclass(frozen=True)
class Plan:
    """One row of the table: a model on an engine, or why it is not tried."""

    model: Model
    row: InferModel
    refusal: str | None


def plans(settings: Infer) -> list[Plan]:
    """Return all rows: the first model's, then those of the models beside it."""
    first = read_model(Path(settings.inference_model_dir), settings.model_filename, settings.params_filename)
    found = list(_plans_of(first, settings.precision, settings))
    for entry in settings.compare:
        path, precision = split_precision(entry)
        model = read_model(Path(path))
        found += _plans_of(model, precision or ("int8" if model.quantized else "fp32"), settings)
    return found


def _plans_of(model: Model, precision: str, settings: Infer) -> Iterator[Plan]:
    note = refusal = None
    if "int8" in precision and not model.quantized:
        refusal = (
            "int8 is asked for, but the model holds no quantize/dequantize operators and no engine adds them: give the "
            "quantized model, or set use_int8: false"
        )
    elif "int8" not in precision and model.quantized:
        if model.kind == "onnx":
            precision = "int8+bf16" if precision == "bf16" else "int8"
            note = "it is a quantized file, and this engine runs its int8 operators whatever use_int8 says"
        else:
            note = "it is quantized, but use_int8 is not set: its quantize/dequantize pairs run one by one in float"
    # The engines that read the model and that the switches choose; among several, those that are asked for.
    able = [
        spec.name
        for spec in all_specs()
        if spec.reads == model.kind
        and spec.infer is not None
        and all(getattr(settings, switch) == value for switch, value in spec.infer.items())
    ]
    for engine in able if len(able) == 1 else [name for name in settings.engines if name in able]:
        size, quantized = model.bytes, model.quantized
        row = InferModel(
            model=model.name, engine=engine, precision=precision, quantized=quantized, bytes=size, note=note
        )
        yield Plan(model, row, refusal)


def measure(chosen: Sequence[Plan], settings: Infer, progress: Callable[[str], None]) -> InferFigures:
    """Measure all rows side by side on random data; `progress` is told what was done."""
    threads = settings.cpu_num_threads
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        everything = []
        for number, plan in enumerate(chosen, start=1):
            folder = scratch / str(number)
            folder.mkdir()
            model, precision = plan.model.link(folder / "model"), cast(RuntimePrecision, plan.row.precision)
            process = EngineProcess(plan.row.engine, model, precision, threads, settings.time_limit_seconds)
            measured = Measured(process, _timed(process, plan.model, settings, folder))
            everything.append(measured)
            try:
                if plan.refusal is not None:
                    raise EngineFailure("unsupported", plan.refusal)
                measured.info = stack.enter_context(process).load()
            except EngineFailure as failure:
                measured.fail(failure)
            progress(f"row {number} loaded")
        rows = {f"row {number}": measured for number, measured in enumerate(everything, start=1)}
        noise = measure_side_by_side(everything, rows, threads, settings, progress)
    compared = next((index for index, one in enumerate(everything) if one.failure is None), None)
    reference = everything[compared] if compared is not None else None
    models: list[InferRan | InferFailed] = []
    for plan, measured in zip(chosen, everything):
        figures = figures_of(measured, reference, stream_count(settings, threads), settings.seed)
        kind = InferFailed if isinstance(figures, NoFigures) else InferRan
        models.append(kind(**dict(plan.row), **dict(figures)))
    return InferFigures(
        settings=settings.model_dump(mode="json"),
        measured_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        machine=Machine.model_validate(machine.describe()),
        compared_with=compared,
        noise=noise,
        models=models,
    )


def _timed(process: EngineProcess, model: Model, settings: Infer, folder: Path) -> list[TimedModel]:
    """Return one for each size that makes a difference to the model."""
    batch = settings.batch_size
    found: list[TimedModel] = []
    for size in settings.image_size:
        shapes = input_shapes(model, batch, size, settings.sequence_length)
        if shapes not in [timed.inputs for timed in found]:
            samples = folder / f"{size[0]}x{size[1]}"
            random_samples(model, shapes, batch, settings.seed).save(samples)
            found.append(TimedModel(process, samples, batch, settings.runs_per_round, shapes))
    return found
