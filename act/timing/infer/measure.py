"""Plans what is measured (which model on which engine in which precision), and measures it side by side."""

from __future__ import annotations

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
from act.results.benchmark import InferFailed, InferFigures, InferRan, NoFigures
from act.results.machine import Machine
from act.timing.infer.models import Model, input_shapes, random_samples, read_model
from act.timing.infer.settings import Infer, split_precision
from act.timing.rounds import TimedModel
from act.timing.side_by_side import Measured, figures_of, measure_side_by_side, stream_count


@dataclass(frozen=True)
class Plan:
    """One row of the table: a model on an engine; with what the reader must know about it, or why it is not tried."""

    model: Model
    engine: str
    precision: RuntimePrecision
    note: str | None = None
    refusal: str | None = None


def plans(settings: Infer) -> list[Plan]:
    """Return all rows: the first model's, then those of the models beside it.

    Raises:
        InputError: a model's files are missing or damaged.
    """
    first = read_model(Path(settings.inference_model_dir), settings.model_filename, settings.params_filename)
    found = list(_plans_of(first, settings.precision, settings))
    for entry in settings.compare:
        path, precision = split_precision(entry)
        model = read_model(Path(path))
        wanted = precision or ("int8" if model.quantized else "fp32")
        found += _plans_of(model, cast(RuntimePrecision, wanted), settings)
    return found


def _plans_of(model: Model, precision: RuntimePrecision, settings: Infer) -> Iterator[Plan]:
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
    for engine in _engines(model, settings):
        yield Plan(model, engine, precision, note, refusal)


def _engines(model: Model, settings: Infer) -> list[str]:
    """List the engines that read the model and that the switches choose; among several, those that are asked for."""
    found = [
        spec.name
        for spec in all_specs()
        if spec.reads == model.kind
        and spec.infer is not None
        and all(getattr(settings, switch) == value for switch, value in spec.infer.items())
    ]
    return found if len(found) == 1 else [name for name in settings.engines if name in found]


def measure(chosen: list[Plan], settings: Infer, progress: Callable[[str], None]) -> InferFigures:
    """Measure all rows side by side on random data; `progress` is told what was done.

    Raises:
        InputError: a model's inputs cannot be given random data of `batch_size`.
    """
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        everything = []
        for number, plan in enumerate(chosen):
            folder = scratch / str(number)
            folder.mkdir()
            model, threads = plan.model.link(folder / "model"), settings.cpu_num_threads
            process = EngineProcess(plan.engine, model, plan.precision, threads, settings.time_limit_seconds)
            measured = Measured(process, _timed(process, plan.model, settings, folder))
            everything.append(measured)
            if plan.refusal is not None:
                measured.fail(EngineFailure("unsupported", plan.refusal))
                continue
            try:
                measured.info = stack.enter_context(process).load()
            except EngineFailure as failure:
                measured.fail(failure)
            progress(f"row {number + 1} loaded")
        rows = {f"row {number}": measured for number, measured in enumerate(everything, start=1)}
        noise = measure_side_by_side(everything, rows, settings.cpu_num_threads, settings, progress)
    models, compared = _rows(chosen, everything, settings)
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


def _rows(
    chosen: Sequence[Plan], measured: Sequence[Measured], settings: Infer
) -> tuple[list[InferRan | InferFailed], int | None]:
    """Return the rows, and the index of the one that speed-ups compare with."""
    compared = next((index for index, one in enumerate(measured) if one.failure is None), None)
    reference = measured[compared] if compared is not None else None
    streams = stream_count(settings, settings.cpu_num_threads)
    rows: list[InferRan | InferFailed] = []
    for plan, one in zip(chosen, measured):
        figures = figures_of(one, reference, streams, settings.seed)
        kind = InferFailed if isinstance(figures, NoFigures) else InferRan
        rows.append(
            kind(
                model=plan.model.name,
                engine=plan.engine,
                precision=plan.precision,
                quantized=plan.model.quantized,
                bytes=plan.model.bytes,
                note=plan.note,
                **dict(figures),
            )
        )
    return rows, compared
