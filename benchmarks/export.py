"""`python -m benchmarks.export`: what our exports gain on each engine, beside its own quantizer, on eight models.

ONNX Runtime beside `onnxruntime.quantization.quantize_static` (U8S8, per channel, after its `quant_pre_process`),
OpenVINO beside NNCF's default preset (`make peers`) and bfloat16, Paddle Inference and Paddle Lite's x86 runtime beside
fp32. All get the same normalised fp32 model and the same calibration samples; one thread on one core, batch 1, each
variant in a process of its own, in turns of random order. Similarity is that of the outputs to fp32's. Paddle Lite
(`make lite`) also writes its files for ARM, whose sizes are compared; what its x86 runtime cannot do is a row with its
cause.

Prints a table a model, writes `benchmarks/results/export.json`, and ends with code 1, naming each figure that was not
reached. Takes about ten minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from act import machine
from act.engines.base import RuntimePrecision
from act.engines.process import EngineFailure, EngineProcess
from act.errors import exit_on_input_error
from act.settings import EngineName
from act.timing.rounds import TimedModel, time_in_rounds
from act.timing.statistics import speedup, summary
from benchmarks import exporters, zoo
from benchmarks.bench import LEAST_SECONDS, ROOT, conclude

RESULT = ROOT / "benchmarks" / "results" / "export.json"
ROUNDS, RUNS = 15, 10
TIME_LIMIT_SECONDS = 600
ENGINES: tuple[EngineName, ...] = ("onnxruntime", "openvino", "paddle_inference", "paddle_lite")

# How many times faster than fp32 on the same engine ours must be.
WANTED: Mapping[tuple[EngineName, str], float] = {
    ("onnxruntime", "resnet50"): 3.2,
    ("onnxruntime", "squeezenet"): 2.3,
    ("onnxruntime", "mobilenet_v1"): 2.0,
    ("openvino", "resnet50"): 7.5,
    ("paddle_inference", "resnet50"): 4.5,
    ("paddle_inference", "mobilenet_v1"): 3.0,
}
# What the figures above presuppose of the CPU, by Linux's names of the instruction sets; any of them is enough.
NEEDS: Mapping[EngineName, Sequence[str]] = {
    "onnxruntime": machine.INT8_FLAGS,
    "openvino": ("amx_int8",),
    "paddle_inference": machine.INT8_FLAGS,
}
PEERS: Mapping[EngineName, str] = {"onnxruntime": "quantize_static", "openvino": "NNCF"}
LARGEST_SLOWDOWN = 1.03
LARGEST_SIZE = 0.3


@dataclass(frozen=True)
class Variant:
    """A model in one form on one engine.

    Attributes:
        name: `fp32`, `bf16`, `ours`, or the peer's.
        write: writes the form into an empty folder and returns what the engine loads.
    """

    engine: EngineName
    name: str
    precision: RuntimePrecision
    write: Callable[[exporters.Source, Path], Path]


VARIANTS: Sequence[Variant] = (
    Variant("onnxruntime", "fp32", "fp32", exporters.fp32("onnxruntime")),
    Variant("onnxruntime", "quantize_static", "int8", exporters.quantize_static),
    Variant("onnxruntime", "ours", "int8", exporters.ours("onnxruntime")),
    Variant("openvino", "fp32", "fp32", exporters.fp32("openvino")),
    Variant("openvino", "bf16", "bf16", exporters.fp32("openvino")),
    Variant("openvino", "NNCF", "int8", exporters.nncf),
    Variant("openvino", "ours", "int8", exporters.ours("openvino")),
    Variant("openvino", "ours+bf16", "int8+bf16", exporters.ours("openvino")),
    Variant("paddle_inference", "fp32", "fp32", exporters.fp32("paddle_inference")),
    Variant("paddle_inference", "bf16", "bf16", exporters.fp32("paddle_inference")),
    Variant("paddle_inference", "ours", "int8", exporters.ours("paddle_inference")),
    Variant("paddle_lite", "fp32", "fp32", exporters.fp32("paddle_lite")),
    Variant("paddle_lite", "ours", "int8", exporters.ours("paddle_lite")),
)


@dataclass
class Row:
    """What was measured of a variant of one model.

    Attributes:
        size: bytes of its files.
        similarity: of its outputs to the fp32 model's.
        rounds: seconds of each run of each round.
        description: what the engine says it did.
        arm: on Paddle Lite, bytes and operators of its file for ARM, or why there is none.
        failure: why there are no figures, or None.
    """

    variant: Variant
    size: int = 0
    similarity: float = math.nan
    rounds: list[list[float]] = field(default_factory=list)
    description: dict[str, Any] = field(default_factory=dict)
    arm: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None


def main() -> int:
    """Run everything; 1 when a figure was not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export", description="Exports beside others.")
    parser.add_argument(
        "--models", nargs="+", choices=list(zoo.MODELS), default=list(zoo.MODELS), help="(default: all)"
    )
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="(default: all)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of {RUNS} runs each (default: {ROUNDS})")
    arguments = parser.parse_args()
    variants = [variant for variant in VARIANTS if variant.engine in arguments.engines]
    results: dict[str, Any] = {"machine": machine.describe(), "models": {}}
    for model in dict.fromkeys(arguments.models):
        with exit_on_input_error(), tempfile.TemporaryDirectory() as folder:
            rows = measure(zoo.prepared(model), variants, arguments.rounds, Path(folder))
        results["models"][model] = figures(rows)
        print("\n".join(["", *_table(model, results["models"][model])]), flush=True)
    return conclude(RESULT, results, misses(results["models"], machine.cpu_flags()))


def measure(model: zoo.Prepared, variants: Sequence[Variant], rounds: int, folder: Path) -> list[Row]:
    """Write and measure all variants of a model; what fails is a row as well."""
    source = exporters.Source(model)
    rows = []
    with ExitStack() as stack:
        running: list[tuple[Row, TimedModel]] = []
        for number, variant in enumerate(variants):
            row = Row(variant)
            rows.append(row)
            target = folder / str(number)
            target.mkdir()
            path = variant.write(source, target)
            row.size = sum(file.stat().st_size for file in target.iterdir())
            if variant.engine == "paddle_lite":
                row.arm = exporters.for_arm(target, variant.precision)
            process = stack.enter_context(EngineProcess(variant.engine, path, variant.precision, 1, TIME_LIMIT_SECONDS))
            with _failing_as_row(row):
                row.description = process.load().description
                row.similarity = process.quality(model.samples, "similarity", model.reference).value
                running.append((row, TimedModel(process, model.samples, 1, RUNS)))
                running[-1][1].warm_up()
        time_in_rounds([timed for _, timed in running], rounds, zoo.SEED, LEAST_SECONDS)
        for row, timed in running:
            row.rounds, row.failure = timed.rounds, str(timed.failure) if timed.failure is not None else None
    return rows


@contextmanager
def _failing_as_row(row: Row) -> Iterator[None]:
    """Let an engine's failure end in its row."""
    try:
        yield
    except EngineFailure as failure:
        row.failure = str(failure)


def figures(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Return by engine and variant latency, size, similarity, and the speed-up over fp32 and over the peer."""
    by_name = {(row.variant.engine, row.variant.name): row for row in rows}
    result: dict[str, dict[str, Any]] = {}
    for (engine, name), row in by_name.items():
        entry: dict[str, Any] = {"precision": row.variant.precision, "bytes": row.size, "failure": row.failure}
        if row.arm:
            entry["arm"] = row.arm
        if row.failure is None:
            entry |= {"similarity": row.similarity, "latency": summary(np.array(row.rounds)).model_dump()}
            entry |= {"description": row.description}
            for key, other in (("times_fp32", "fp32"), ("times_peer", PEERS.get(engine)), ("times_bf16", "bf16")):
                reference = by_name.get((engine, other)) if other is not None else None
                if other != name and reference is not None and reference.failure is None:
                    ratio = speedup(np.array(reference.rounds), np.array(row.rounds), zoo.SEED)
                    entry[key] = ratio.model_dump()
        result.setdefault(engine, {})[name] = entry
    return result


def misses(models: Mapping[str, Mapping[str, Mapping[str, Any]]], flags: frozenset[str]) -> list[str]:
    """Return every figure that was not reached, in words.

    Args:
        models: what `figures` gave for each model that was measured.
        flags: the CPU's instruction sets; a figure that needs others is not asked for.
    """
    found = [
        f"{model} on {engine}, {name}: {entry['failure']}"
        for model, engines in models.items()
        for engine, entries in engines.items()
        for name, entry in entries.items()
        if entry["failure"] is not None and engine != "paddle_lite"  # there a crash is a row
    ]
    for model, engines in models.items():
        for engine in ENGINES:
            if engine == "paddle_lite" and engine in engines:
                found += _missed_for_arm(model, engines[engine])
            elif engine in engines and engines[engine]["ours"]["failure"] is None:
                found += _missed_by_ours(model, engine, engines[engine], flags)
    for engine, peer in PEERS.items():
        ratios = [engines[engine]["ours"].get("times_peer") for engines in models.values() if engine in engines]
        faster = sum(ratio["value"] > 1 for ratio in ratios if ratio is not None)
        if 2 * faster < len(ratios):
            found.append(f"{engine}: faster than {peer} on {faster} of {len(ratios)} models, half are wanted")
    return found


def _missed_by_ours(model: str, engine: EngineName, entries: Mapping[str, Any], flags: frozenset[str]) -> Iterator[str]:
    ours, where = entries["ours"], f"{model} on {engine}"
    wanted = WANTED.get((engine, model)) if flags.intersection(NEEDS[engine]) else None
    if wanted is not None and "times_fp32" in ours and ours["times_fp32"]["value"] < wanted:
        yield f"{where}: {ours['times_fp32']['value']:.2f} times as fast as fp32, {wanted} are wanted"
    if "times_peer" in ours and ours["times_peer"]["value"] * LARGEST_SLOWDOWN < 1:
        slower = 1 / ours["times_peer"]["value"] - 1
        yield f"{where}: {slower:.1%} slower than {PEERS[engine]}, {LARGEST_SLOWDOWN - 1:.0%} are allowed"
    size = ours["bytes"] / entries["fp32"]["bytes"]
    if size > LARGEST_SIZE:
        yield f"{where}: {size:.2f} times the size of fp32, {LARGEST_SIZE} are allowed"


def _missed_for_arm(model: str, entries: Mapping[str, Any]) -> Iterator[str]:
    files = {name: entry["arm"] for name, entry in entries.items()}
    for name, file in files.items():
        if file["failure"] is not None:
            yield f"{model} for ARM, {name}: {file['failure']}"
    if all(file["failure"] is None for file in files.values()):
        size = files["ours"]["bytes"] / files["fp32"]["bytes"]
        if size > LARGEST_SIZE:
            yield f"{model} for ARM: {size:.2f} times the size of fp32, {LARGEST_SIZE} are allowed"


def _table(model: str, engines: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield f"{model:46}    ms     times fp32 (95 % interval)   times the peer              MB   similarity"
    for engine, entries in engines.items():
        for name, entry in entries.items():
            start = f"  {engine:16} {name:16}"
            if "arm" in entry:
                yield f"  {'for ARM':16} {name:16} {_arm(entry['arm'])}"
            if entry["failure"] is not None:
                yield f"{start} {entry['failure']}"
                continue
            ratios = " ".join(f"{_ratio(entry.get(key)):28}" for key in ("times_fp32", "times_peer"))
            latency, size = entry["latency"]["median_ms"], entry["bytes"] / 1e6
            yield f"{start} {latency:15.3f}     {ratios} {size:6.2f}   {entry['similarity']:.4f}"


def _arm(file: Mapping[str, Any]) -> str:
    if file["failure"] is not None:
        return str(file["failure"])
    kernels = {kind: sum(counts.values()) for kind, counts in file["operators"]["multiplying"].items()}
    return f"{file['bytes'] / 1e6:68.2f}   {', '.join(f'{count} {kind}' for kind, count in kernels.items())}"


def _ratio(interval: Mapping[str, float] | None) -> str:
    return f"{interval['value']:.2f} ({interval['low']:.2f} to {interval['high']:.2f})" if interval else ""


if __name__ == "__main__":
    sys.exit(main())
