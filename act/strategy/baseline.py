"""The model itself on each engine, in every precision that is there: measured as it is, int8 with unsearched ranges.

Ranges and rounding do not change how long int8 takes, so that a model is known to be fast enough, or not, before
anything is searched or trained. With it are the kernels that the engine made, for what does not exist yet.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import onnx

from act.engines.base import RuntimePrecision
from act.engines.inspection import Inspection
from act.engines.process import EngineProcess
from act.engines.spec import spec_of
from act.engines.writer import export_variants
from act.program.model import InferenceModel
from act.results.analyze import Baseline
from act.samples.dataset import Array
from act.settings import EngineName, Target
from act.strategy.latency.model import Measured
from act.strategy.latency.table import Header, Row, Table
from act.strategy.profile.measure import measure

_LIMIT_SECONDS = 600
# All else is compared with what is measured here.
_LEAST_SECONDS = 2.0
_WANTED: tuple[RuntimePrecision, ...] = ("fp32", "bf16", "int8")


def measure_baseline(
    name: str,
    model: InferenceModel,
    batch: Mapping[str, Array],
    target: Target,
    folder: Path,
    fp32: onnx.ModelProto,
    inspected: Mapping[EngineName, Inspection],
) -> dict[str, dict[str, Baseline]]:
    """Measure, and write `ENGINE.jsonl` for each engine of the target into a folder.

    Args:
        name: of the job.
        batch: samples of the target's batch size, batch axis first.
        fp32: what `to_onnx` made of the model.
        inspected: what each engine said of the model.
    """
    told: dict[str, dict[str, Baseline]] = {}
    # The others run elsewhere, or take minutes to load.
    for engine in [engine for engine in target.engines if spec_of(engine).not_first is None]:
        version, offered = inspected[engine].version, inspected[engine].precisions
        if version is None:
            told[engine] = {"fp32": Baseline(failure=inspected[engine].failure)}
            continue
        precisions = [each for each in _WANTED if each in offered and each in target.precisions]
        with tempfile.TemporaryDirectory() as scratch:
            written = export_variants(name, model, batch, engine, precisions, Path(scratch), fp32)
            everything = [(written, (precision, target.threads)) for precision in precisions]
            start = partial(EngineProcess, engine, time_limit_seconds=_LIMIT_SECONDS)
            measured = measure(everything, start, len(next(iter(batch.values()))), least_seconds=_LEAST_SECONDS)
        table = Table.open(folder / f"{engine}.jsonl", Header.here(engine, version))
        told[engine] = {}
        for precision, found in zip(precisions, measured):
            table.add(Row.of(name, precision, target.threads, found))
            if isinstance(found, Measured):
                told[engine][precision] = Baseline(seconds=found.seconds)
            else:
                told[engine][precision] = Baseline(failure=str(found))
    return told
