"""`python -m benchmarks.latency_model`: how well the latency of a model that was never measured is predicted.

Each of twenty models is measured as a whole on OpenVINO and ONNX Runtime with one thread, in fp32, bf16 and int8,
whole and with 30 % of its channels pruned. Then its latency is predicted from the table that `act.strategy.profile`
made on this machine and from the other models' kernels, never from its own. Beside it stand what is simpler:
MACs, the nearest neighbour of each kernel on raw features (PaddleSlim's way), and the sum of operators that
are measured one by one.

Prints a table by model, writes `benchmarks/results/latency_model.json`, and ends with code 1, naming each figure that
was not reached.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from act import machine
from act.engines.base import RuntimePrecision
from act.engines.process import EngineProcess
from act.engines.writer import ExportedVariants, export_variants
from act.errors import InputError, exit_on_input_error
from act.program.model import InferenceModel
from act.pruning.groups import find_groups
from act.pruning.ratios import in_blocks
from act.pruning.shrink import shrink
from act.settings import EngineName
from act.strategy.latency.features import costs, features
from act.strategy.latency.kernel import Kernel
from act.strategy.latency.model import LatencyModel, Measured
from act.strategy.latency.table import FOLDER, Header, Row, Table, find_table
from act.strategy.profile.measure import Way, measure
from benchmarks import zoo
from benchmarks.bench import ROOT, conclude
from benchmarks.one_by_one import OneByOne

RESULT = ROOT / "benchmarks" / "results" / "latency_model.json"
TABLES = ROOT / FOLDER
MODELS = tuple(dict.fromkeys((*zoo.MODELS, *zoo.FURTHER)))
PRECISIONS: Mapping[EngineName, tuple[RuntimePrecision, ...]] = {
    "openvino": ("fp32", "bf16", "int8"),
    "onnxruntime": ("fp32", "int8"),
}
PRUNED = " pruned"
RATIO = 0.3
LEAST_WITHIN = {0.10: 0.90, 0.15: 0.95}
LEAST_RANKED, APART = 0.95, 1.05
LONGEST_SECONDS = 0.05
TIME_LIMIT_SECONDS = 3600.0
# Neighbours may be at work for minutes.
SWEEPS = 2
# Predictions of a model of which the median time counts.
TIMED = 3
# Models that are measured in turn.
TOGETHER = 4


@dataclass(frozen=True)
class Case:
    """One variant of one model on one engine, measured and predicted.

    Attributes:
        variant: the precision, with `PRUNED` where channels are gone.
        seconds: measured.
        predicted: seconds, by the name of the method.
        low, high: our own error bar.
    """

    model: str
    engine: str
    variant: str
    seconds: float
    predicted: dict[str, float]
    low: float
    high: float
    took: float

    def error(self, method: str) -> float:
        """Return the error relative to what was measured."""
        return self.predicted[method] / self.seconds - 1


def main() -> int:
    """Measure, predict, compare; 1 when a figure was not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency_model", description="Predicted latencies.")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="(default: all)")
    parser.add_argument(
        "--engines", nargs="+", choices=list(PRECISIONS), default=list(PRECISIONS), help="(default: all)"
    )
    parser.add_argument("--tables", type=Path, default=TABLES, help="folder of tables (default: %(default)s)")
    parser.add_argument("--sweeps", type=int, default=SWEEPS, help="times that all is measured (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="beside what runs before measured; the quickest counts")
    arguments = parser.parse_args()
    with exit_on_input_error():
        tables: list[tuple[EngineName, Table, Path]] = []
        for engine in arguments.engines:
            table = read_table(arguments.tables, engine)
            path = RESULT.parent / f"latency_{engine}.jsonl"
            if not arguments.keep:
                path.unlink(missing_ok=True)
            for _ in range(arguments.sweeps):
                _measure(engine, arguments.models, Table.open(path, table.header))
            tables.append((engine, table, path))
        cases = [case for engine, table, path in tables for case in predict(engine, table, Table.read(path))]
        misses = _report(cases)
    told = [{**vars(case), "error": case.error("ours")} for case in cases]
    return conclude(RESULT, {"machine": machine.describe(), "cases": told}, misses)


def read_table(folder: Path, engine: EngineName) -> Table:
    """Read this machine's table.

    Raises:
        InputError: there is none, or none with one thread.
    """
    with EngineProcess(engine, Path(), "fp32") as process:
        table = find_table(Header.here(engine, process.offer()[0]), folder)
    if table is None or not table.measured(1):
        raise InputError(
            f"{folder}: no table of {engine} with one thread on this machine; run `python -m act.strategy.profile "
            f"--target {engine}/cpu`"
        )
    return table


def _measure(engine: EngineName, models: Sequence[str], found: Table) -> None:
    start = partial(EngineProcess, engine, time_limit_seconds=TIME_LIMIT_SECONDS)
    with OneByOne(engine) as alone:
        for place in range(0, len(models), TOGETHER):
            with tempfile.TemporaryDirectory() as folder:
                everything: list[tuple[ExportedVariants, str, Way]] = []
                for name in models[place : place + TOGETHER]:
                    prepared = zoo.prepared(name)
                    whole = prepared.model()
                    batch = next(prepared.calibration().batches(1))
                    for suffix, model in (("", whole), (PRUNED, _pruned(whole))):
                        own = Path(folder, name + suffix)
                        own.mkdir()
                        written = export_variants(name, model, batch, engine, PRECISIONS[engine], own)
                        everything += [(written, each + suffix, (each, 1)) for each in PRECISIONS[engine]]
                        if model is not whole:
                            model.discard()
                    alone.add(found, name, whole, batch)
                    whole.discard()
                rows = measure([(written, way) for written, _, way in everything], start)
            for (written, variant, _), row in zip(everything, rows):
                if row.failure is not None:
                    print(f"{written.name}: {engine} {variant}: {row.failure}")
                    continue
                found.add(replace(row, precision=variant))
                print(f"{written.name:22}{engine:14}{variant:14}{row.measured.seconds * 1e3:9.3f} ms", flush=True)


def _pruned(model: InferenceModel) -> InferenceModel:
    """Remove 30 % of each convolution's channels, as far as the graph allows; which ones does not matter here."""
    plan = find_groups(model)
    removed = {}
    for group in plan.groups:
        if group.kind != "heads" and any(len(plan.trace.shape(name)) == 4 for name, _ in group.outputs):
            count = in_blocks(group, RATIO)
            if count:
                removed[group.key] = list(range(count))
    return shrink(model, plan, removed)


def predict(engine: EngineName, table: Table, found: Table) -> Iterator[Case]:
    """Predict every variant that was measured by models that did not see it."""
    quickest: dict[tuple[str, str, int], Row] = {}
    for row in found.rows:
        if row.failure is None and row.precision != OneByOne.PRECISION:
            quickest[row.key] = min(row, quickest.get(row.key, row), key=lambda each: each.measured.seconds)
    rows = list(quickest.values())
    drawn = table.measured(1)
    for name in dict.fromkeys(row.measured.name for row in rows):
        others = [*drawn, *(row.measured for row in rows if row.measured.name != name)]
        model = LatencyModel(others, errors=table.noted.get(1, ()))
        work = _ByWork(others)
        nearest = _Nearest(others)
        for row in [row for row in rows if row.measured.name == name]:
            kernels = [kernel for kernel, _ in row.measured.kernels]
            ours = model.predict(kernels)
            took = float(np.median([_seconds(model, kernels) for _ in range(TIMED)]))
            predicted = {
                "ours": ours.seconds,
                "MACs": work.predict(kernels),
                "nearest": nearest.predict(kernels),
            }
            if row.precision == "fp32":
                predicted |= OneByOne.predicted(found, name)
            yield Case(name, engine, row.precision, row.measured.seconds, predicted, ours.low, ours.high, took)


def _seconds(model: LatencyModel, kernels: Sequence[Kernel]) -> float:
    """Time a prediction when nothing is known of the kernels."""
    for known in (costs, features):
        known.cache_clear()
    new = [Kernel.of(kernel.to_json()) for kernel in kernels]
    began = time.perf_counter()
    model.predict(new)
    return time.perf_counter() - began


class _ByWork:
    """A start and a rate of MACs in each precision, fitted for relative errors."""

    def __init__(self, measured: Sequence[Measured]) -> None:
        table = np.array([self._costs([kernel for kernel, _ in each.kernels]) for each in measured])
        whole = np.array([each.seconds for each in measured])
        self._rates = np.linalg.lstsq(table / whole[:, None], np.ones(len(whole)), rcond=None)[0]

    @staticmethod
    def _costs(kernels: Sequence[Kernel]) -> npt.NDArray[np.float64]:
        work = {"f32": 0.0, "bf16": 0.0, "int8": 0.0}
        for kernel in kernels:
            precision = kernel.computes_in if kernel.computes_in in work else "f32"
            work[precision] += kernel.macs
        return np.array([1.0, *work.values()])

    def predict(self, kernels: Sequence[Kernel]) -> float:
        return float(max(self._costs(kernels) @ self._rates, 1e-6))


class _Nearest:
    """For each kernel the time of the one of its kind whose raw sizes are nearest."""

    def __init__(self, measured: Sequence[Measured]) -> None:
        self._groups: dict[tuple[str, str], tuple[npt.NDArray[np.float64], list[float]]] = {}
        gathered: dict[tuple[str, str], dict[Kernel, float]] = {}
        for each in measured:
            for kernel, seconds in each.kernels:
                gathered.setdefault((kernel.kind, kernel.computes_in), {})[kernel] = seconds
        for kind, members in gathered.items():
            self._groups[kind] = (np.array([self._raw(kernel) for kernel in members]), list(members.values()))

    @staticmethod
    def _raw(kernel: Kernel) -> list[float]:
        stride = kernel.strides[0] if kernel.strides else 1
        return [*map(float, (*kernel.channels, *kernel.image, kernel.groups, kernel.taps, stride))]

    def predict(self, kernels: Sequence[Kernel]) -> float:
        total = 0.0
        for kernel in kernels:
            group = self._groups.get((kernel.kind, kernel.computes_in))
            if group is not None:
                distances = np.linalg.norm(group[0] - np.array(self._raw(kernel)), axis=1)
                total += group[1][int(np.argmin(distances))]
        return max(total, 1e-6)


def _report(cases: Sequence[Case]) -> list[str]:
    methods = ("ours", "MACs", "nearest", OneByOne.METHOD)
    print(
        f"\n{'model':22}{'engine':14}{'variant':14}{'measured':>10}{'ours':>10}" + "".join(f"{m:>15}" for m in methods)
    )
    for case in cases:
        errors = "".join(f"{case.error(m):>+15.1%}" if m in case.predicted else f"{'-':>15}" for m in methods)
        times = f"{case.seconds * 1e3:7.3f} ms{case.predicted['ours'] * 1e3:7.3f} ms"
        print(f"{case.model:22}{case.engine:14}{case.variant:14}{times}{errors}")
    wanted = [case for case in cases if case.variant in ("fp32", "int8")]
    misses: list[str] = []
    print(f"\nfp32 and int8 of {len({case.model for case in wanted})} models, {len(wanted)} predictions")
    for method in methods:
        told = np.array([abs(case.error(method)) for case in wanted if method in case.predicted])
        if not len(told):
            continue
        shares = {limit: float(np.mean(told <= limit)) for limit in LEAST_WITHIN}
        ranked, pairs = _ranked(cases, method)
        text = ", ".join(f"{share:.1%} within {limit:.0%}" for limit, share in shares.items())
        print(f"  {method:24}{text}; median error {np.median(told):.1%}; {ranked:.1%} of {pairs} pairs in order")
        if method == "ours":
            misses += [
                f"{share:.1%} of the predictions are within {limit:.0%}, {LEAST_WITHIN[limit]:.0%} are wanted"
                for limit, share in shares.items()
                if share < LEAST_WITHIN[limit]
            ]
            if ranked < LEAST_RANKED:
                misses.append(f"{ranked:.1%} of the pairs of variants are in order, {LEAST_RANKED:.0%} are wanted")
    inside = np.mean([case.low <= case.seconds <= case.high for case in cases])
    longest = max(case.took for case in cases)
    print(f"  error bars hold {inside:.1%} of the measurements; a prediction takes at most {longest * 1e3:.0f} ms")
    if longest > LONGEST_SECONDS:
        misses.append(f"a prediction takes {longest * 1e3:.0f} ms, {LONGEST_SECONDS * 1e3:.0f} are allowed")
    return misses


def _ranked(cases: Sequence[Case], method: str) -> tuple[float, int]:
    """Return which share of the pairs of a model's variants, more than 5 % apart, are in order, and their number."""
    right = pairs = 0
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        if method in case.predicted:
            groups.setdefault((case.model, case.engine), []).append(case)
    for members in groups.values():
        for one, other in combinations(members, 2):
            slow, fast = sorted((one, other), key=lambda case: -case.seconds)
            if slow.seconds > APART * fast.seconds:
                pairs += 1
                right += slow.predicted[method] > fast.predicted[method]
    return (right / pairs if pairs else 1.0), pairs


if __name__ == "__main__":
    sys.exit(main())
