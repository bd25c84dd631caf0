"""The model itself on each engine, in every precision that is there: measured as it is, int8 with unsearched ranges.

Ranges and rounding do not change how long int8 takes, so that a model is known to be fast enough, or not, before
anything is searched or trained. With it are the kernels that the engine made, for what does not exist yet.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import onnx

from act.engines.base import RuntimePrecision
from act.engines.process import EngineFailure, EngineProcess
from act.engines.spec import spec_of
from act.engines.variants import ExportedVariants, export_variants
from act.program.model import InferenceModel
from act.results.analyze import Baseline
from act.samples.dataset import Array
from act.settings import EngineName, Target
from act.strategy.latency.model import Measured
from act.strategy.latency.table import Header, Row, Table
from act.strategy.profile.measure import Way, measure

_LIMIT_SECONDS = 600
# All else is compared with what is measured here.
_LEAST_SECONDS = 3.0
_WANTED = ("fp32", "bf16", "int8")


def measure_baseline(
    name: str,
    model: InferenceModel,
    batch: Mapping[str, Array],
    target: Target,
    folder: Path,
    fp32: onnx.ModelProto,
) -> dict[str, dict[str, Baseline]]:
    """Measure, and write `ENGINE.jsonl` for each engine of the target into a folder.

    Args:
        name: of the job.
        batch: samples of the target's batch size, batch axis first.
        fp32: what `to_onnx` made of the model.
    """
    told: dict[str, dict[str, Baseline]] = {}
    for engine in target.engines:
        # The others run elsewhere, or take minutes to load.
        if spec_of(engine).not_first is None:
            try:
                with EngineProcess(engine, Path(), "fp32", target.threads, _LIMIT_SECONDS) as process:
                    version, offered = process.offer()
            except EngineFailure as failure:
                told[engine] = {"fp32": Baseline(failure=str(failure))}
                continue
            wanted = [each for each in offered if each in _WANTED and each in target.precisions]
            table = Table.open(folder / f"{engine}.jsonl", Header.here(engine, version))
            told[engine] = _measure(name, model, batch, engine, target.threads, wanted, table, fp32)
    return told


def _measure(
    name: str,
    model: InferenceModel,
    batch: Mapping[str, Array],
    engine: EngineName,
    threads: int,
    precisions: Sequence[RuntimePrecision],
    table: Table,
    fp32: onnx.ModelProto,
) -> dict[str, Baseline]:
    told: dict[str, Baseline] = {}
    with tempfile.TemporaryDirectory() as scratch:
        written = export_variants(name, model, batch, engine, precisions, Path(scratch), fp32)
        everything: list[tuple[ExportedVariants, Way]] = [(written, (precision, threads)) for precision in precisions]
        size = len(next(iter(batch.values())))
        start = partial(EngineProcess, engine, time_limit_seconds=_LIMIT_SECONDS)
        everyone = measure(everything, start, size, least_seconds=_LEAST_SECONDS)
        for (_, (precision, _)), found in zip(everything, everyone):
            table.add(Row.of(name, precision, threads, found))
            if isinstance(found, Measured):
                told[precision] = Baseline(seconds=found.seconds)
            else:
                told[precision] = Baseline(failure=str(found))
    return told
