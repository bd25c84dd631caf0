"""What each engine of the target says of the fp32 model: version, precisions, kernels and their times, or a failure."""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from act.engines import fusion
from act.engines.agreement import check_outputs
from act.engines.base import ExecutedKernel, RuntimePrecision
from act.engines.process import EngineFailure, EngineProcess
from act.engines.self_test import wrong_kernels
from act.engines.spec import all_specs, spec_of
from act.engines.writer import writer_of
from act.errors import InputError
from act.onnx_graph.conversion import NotConvertible, to_onnx
from act.program.graph import Graph
from act.program.layers import quantizable_layers
from act.program.model import InferenceModel
from act.results.analyze import EngineAnalysis, KernelTime, Operator, WrongKernel
from act.settings import EngineName, Job

log = logging.getLogger(__name__)

LIMIT_SECONDS = 240


@dataclass
class Inspection:
    """The answers of one engine; kernels and their times, as `EngineProcess` gives them, where it tells."""

    version: str | None = None
    precisions: list[str] = field(default_factory=list)
    failure: str | None = None  # why it could not be asked
    kernels: list[ExecutedKernel] = field(default_factory=list)
    timed: list[dict[str, Any]] = field(default_factory=list)
    # For each precision that it is asked for, how many kernels multiply matrices in which.
    multiplying: dict[str, dict[str, int]] = field(default_factory=dict)
    wrong: list[WrongKernel] = field(default_factory=list)  # kinds of layers that it computes wrongly in int8

    @property
    def in_float(self) -> set[str]:
        """Return the layers that it would compute wrongly in int8."""
        return {name for each in self.wrong for name in each.layers}


def convert(model: InferenceModel, engines: Sequence[EngineName]) -> tuple[onnx.ModelProto | None, str]:
    """Return the model as ONNX, or None and why it cannot be had.

    `InputError` where none of the engines runs it then.
    """
    try:
        return to_onnx(model), ""
    except NotConvertible as error:
        if any(not spec_of(name).reads_onnx for name in engines):
            return None, error.cause
        others = [spec.name for spec in all_specs() if not spec.reads_onnx and spec.writer and spec.not_first is None]
        raise InputError(f"{error}, or name an engine that needs no ONNX: `target.engines: [{others[0]}]`") from None


def ask_engines(job: Job, graph: Graph, fp32: onnx.ModelProto | None, prepared: Path) -> dict[EngineName, Inspection]:
    """Ask each engine of the target; the first that tells the times of kernels is the only one that measures them.

    One that does not give what the given model gives has failed. Where int8 is wanted the kernels for it are tested; an
    engine that computes no kind of the model's layers rightly has no int8. Samples, and the outputs that are expected
    of some, are in the folder that `prepare` left.
    """
    named = fusion.named_by_outputs(fp32) if fp32 is not None else None
    found: dict[EngineName, Inspection] = {}
    for name in job.target.engines:
        if named is None and spec_of(name).reads_onnx:
            found[name] = Inspection(failure="the model has no ONNX form")
            continue
        timed = any(each.timed for each in found.values())
        with tempfile.TemporaryDirectory() as scratch:
            path = writer_of(name).write(graph.model, None, Path(scratch), named)
            # Without an ONNX form nothing is quantized.
            tested = graph if named is not None and "int8" in job.target.precisions else None
            found[name] = _ask(name, path, job, prepared, not timed, tested)
    return found


def _test_int8(name: EngineName, result: Inspection, graph: Graph, threads: int, process: EngineProcess | None) -> None:
    """Note what an engine computes wrongly in int8, and that it has no int8 where nothing else is left."""
    # The others run elsewhere, or take minutes to load.
    if "int8" not in result.precisions or spec_of(name).not_first is not None:
        return
    result.wrong = wrong_kernels(name, graph, threads, process)
    layers = {layer.name for layer in quantizable_layers(graph.model, spec_of(name).int8_operators)}
    if result.wrong and layers <= result.in_float:
        result.precisions = [each for each in result.precisions if not each.startswith("int8")]


def describe_engines(
    inspections: Mapping[EngineName, Inspection],
    operators: Sequence[Operator],
    fp32: onnx.ModelProto | None,
    graph: Graph,
) -> dict[str, EngineAnalysis]:
    """Return for each engine what it said itself, what it fuses, and which layers it has int8 kernels for."""
    twins: dict[str, int] | None = None
    if fp32 is not None and any(each.kernels for name, each in inspections.items() if spec_of(name).reads_onnx):
        try:
            twins = fusion.onnx_twins(fp32, graph)
        except Exception as error:  # whatever ONNX Runtime does not like about a model that another engine runs
            log.info("analyze: what engines fuse cannot be found out: %s", " ".join(str(error).split())[:200])
    result = {}
    for name, each in inspections.items():
        spec = spec_of(name)
        able = [
            operator
            for operator in operators
            if operator.quantizable and operator.type in spec.int8_operators and operator.name not in each.in_float
        ]
        known = twins if spec.reads_onnx else graph.producers
        result[name] = EngineAnalysis(
            version=each.version if each.failure is None else None,
            precisions=each.precisions if each.failure is None else [],
            multiplying=each.multiplying,
            fusion=fusion.describe(graph, each.kernels, known) if each.kernels and known is not None else None,
            int8_layers=len(able),
            int8_parameters=sum(operator.parameters for operator in able),
            int8_macs=sum(operator.macs for operator in able),
            wrong_int8=each.wrong,
            failure=each.failure,
        )
    return result


def kernel_times(kernels: Sequence[Mapping[str, Any]]) -> list[KernelTime]:
    """Return count and seconds of the kernels of each kind, slowest kind first."""
    groups: dict[str, list[float]] = {}
    for kernel in kernels:
        groups.setdefault(kernel["kind"], []).append(kernel["seconds"])
    rows = [KernelTime(kind=kind, count=len(times), seconds=sum(times)) for kind, times in groups.items()]
    return sorted(rows, key=lambda row: -row.seconds)


def _ask(name: EngineName, path: Path, job: Job, prepared: Path, is_timed: bool, tested: Graph | None) -> Inspection:
    """Ask an engine, and test its int8 kernels for the layers of a graph, if one is given.

    DVC keeps the answer, so what may fail in passing is asked twice.
    """
    for is_last in (False, True):
        result = Inspection()
        try:
            _answer(result, name, path, job, prepared, is_timed, tested)
            break
        except EngineFailure as failure:
            result.failure = str(failure)
            if is_last or failure.kind in ("missing", "unsupported", "wrong_output"):
                log.info("analyze: %s cannot be used here: %s", name, failure)
                break
    return result


def _answer(
    result: Inspection,
    name: EngineName,
    path: Path,
    job: Job,
    prepared: Path,
    is_timed: bool,
    tested: Graph | None,
) -> None:
    with EngineProcess(name, path, "fp32", job.target.threads, LIMIT_SECONDS) as process:
        info = process.load()
        if (expected := prepared / "expected").exists():
            check_outputs(process, prepared / "evaluation", expected)
        # Known even where what follows fails: the baseline is measured all the same.
        result.version, result.precisions = info.version, info.precisions
        timed = process.profile(prepared / "calibration", batch=1) if is_timed else []
        multiplying = {"fp32": _multiplying(process)}
        result.kernels, result.timed, result.multiplying = process.kernels(), timed, multiplying
        wanted: RuntimePrecision = "bf16"
        if wanted in result.precisions and wanted in job.target.precisions:
            try:
                process.load(precision=wanted)
                multiplying[wanted] = _multiplying(process)
            except EngineFailure as failure:  # the benchmark will meet it again, and make a row of it
                log.info("analyze: %s cannot run the model in %s: %s", name, wanted, failure)
        # Last, because kernels that are wrong may end the process.
        if tested is not None:
            _test_int8(name, result, tested, job.target.threads, None if process.is_gone else process)


def _multiplying(process: EngineProcess) -> dict[str, int]:
    return {precision: sum(kinds.values()) for precision, kinds in process.operators().get("multiplying", {}).items()}
