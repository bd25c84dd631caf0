"""`python -m benchmarks.mixed_precision`: whether any mix of int8 and bfloat16 can be faster than bfloat16 alone.

On OpenVINO, with one thread, every kernel of a model is timed in bfloat16 and, with all layers in int8, once more: the
least of several passes, each in quiet moments. Were every kernel as fast as the faster of its two forms, and every
conversion between them free, a mix would gain this much and no more. Then what comes of it is measured: mixes of just
the layers whose int8 kernel is faster, in turns of random order.

Prints both, writes `benchmarks/results/mixed_precision.json`, and ends with code 1 where a mix could be worth having by
the kernels' times and none that was measured is.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from act import machine
from act.engines.base import RuntimePrecision
from act.engines.fusion import named_by_outputs
from act.engines.process import EngineProcess
from act.engines.writer import writer_of
from act.errors import exit_on_input_error
from act.quantization.scheme import only
from act.settings import EngineName
from act.timing.rounds import TimedModel, time_in_rounds
from act.timing.statistics import speedup, summary
from benchmarks import exporters, zoo
from benchmarks.bench import LEAST_SECONDS, ROOT, conclude

RESULT = ROOT / "benchmarks" / "results" / "mixed_precision.json"
ENGINE: EngineName = "openvino"
PASSES, PROFILED_RUNS = 6, 40
ROUNDS, RUNS = 25, 15
# A mix is not worth having below.
WORTH = 1.03
# Of its bfloat16 time, what an int8 kernel must save for its layer to be in a mix.
SAVINGS = (0.0, 0.05, 0.15)
TIME_LIMIT_SECONDS = 1800
SHOWN = 12

Key = tuple[str, ...]


@dataclass(frozen=True)
class Operator:
    """A kernel of the bfloat16 model.

    Attributes:
        names: of the ONNX operators that it stands for.
        bf16, int8: seconds; int8 is None where no kernel of that model stands for the same operators.
    """

    names: Key
    kind: str
    bf16: float
    int8: float | None

    @property
    def saved(self) -> float:
        """Seconds that int8 saves, were conversions free."""
        return max(0.0, self.bf16 - self.int8) if self.int8 is not None else 0.0


def main() -> int:
    """Measure; 1 where a mix could be worth having and none is."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixed_precision", description="Mixes with bfloat16.")
    parser.add_argument("--models", nargs="+", choices=list(zoo.MODELS), default=["recogniser"], help="(default: it)")
    arguments = parser.parse_args()
    results: dict[str, Any] = {"machine": machine.describe(), "models": {}}
    misses: list[str] = []
    for model in dict.fromkeys(arguments.models):
        with exit_on_input_error(), tempfile.TemporaryDirectory() as folder:
            found = compare(zoo.prepared(model), Path(folder))
        results["models"][model] = found
        best = max((mix["times_bf16"]["value"] for mix in found["mixes"].values()), default=0.0)
        if found["bound"] > WORTH and best <= 1:
            misses.append(f"{model}: by its kernels a mix could be {found['bound']:.3f} times as fast; none is faster")
    return conclude(RESULT, results, misses)


def compare(prepared: zoo.Prepared, folder: Path) -> dict[str, Any]:
    """Return the kernels side by side, the bound, and what mixes measure."""
    source = exporters.Source(prepared)
    named, scheme = named_by_outputs(source.onnx), source.scheme(symmetric=True)

    def write(name: str, layers: Sequence[str] | None) -> Path:
        (folder / name).mkdir()
        chosen = None if layers is None else only(source.model, scheme, layers)
        return writer_of(ENGINE).write(source.model, chosen, folder / name, named)

    layers = [layer.name for layer in source.layers]
    forms: dict[str, tuple[Path, RuntimePrecision]] = {
        "bf16": (write("bf16", None), "bf16"),
        "all int8": (write("int8", layers), "int8+bf16"),
    }
    with EngineProcess(ENGINE, forms["bf16"][0], "bf16", 1, TIME_LIMIT_SECONDS) as process:
        bf16, int8 = _kernels(process, list(forms.values()), prepared.samples)
    operators = _side_by_side(bf16, int8)
    whole = sum(operator.bf16 for operator in operators)
    bound = whole / (whole - sum(operator.saved for operator in operators))
    _print(prepared.name, operators, bound)
    for saving in SAVINGS:
        faster = {name for each in operators if each.saved > saving * each.bf16 for name in each.names}
        chosen = [name for name in layers if name in faster]
        if chosen:
            name = f"{len(chosen)} layers that save over {saving:.0%}"
            forms[name] = (write(f"mix{saving}", chosen), "int8+bf16")
    mixes = _time(forms, prepared.samples)
    rows = [{**vars(each), "saved": each.saved} for each in operators]
    return {"operators": rows, "bound": bound, "mixes": mixes}


def _kernels(
    process: EngineProcess, forms: Sequence[tuple[Path, RuntimePrecision]], samples: Path
) -> list[dict[Key, tuple[str, float]]]:
    """Return of each form, by the operators that a kernel stands for, its kind and the least of its seconds."""
    found: list[dict[Key, tuple[str, float]]] = [{} for _ in forms]
    for _ in range(PASSES):
        for (path, precision), times in zip(forms, found):
            process.load(path, precision)
            process.warm_up(samples, 1)
            for place, row in enumerate(process.profile(samples, 1, PROFILED_RUNS)):
                # What the engine put in by itself stands for nothing, and is told by its place.
                key = tuple(row["names"]) or (f"{row['kind']} at {place}",)
                known = times.get(key, ("", np.inf))[1]
                times[key] = (row["kind"], min(known, row["seconds"]))
    return found


def _side_by_side(bf16: Mapping[Key, tuple[str, float]], int8: Mapping[Key, tuple[str, float]]) -> list[Operator]:
    found = []
    for names, (kind, seconds) in bf16.items():
        # An operator may be listed by several kernels; the one that has most in common is it.
        common = {key: len(set(key) & set(names)) for key, (other, _) in int8.items() if other == kind}
        same = max(common, key=lambda key: (common[key], -int8[key][1]), default=None)
        told = int8[same][1] if same is not None and common[same] > 0 else None
        found.append(Operator(names, kind, seconds, told))
    return found


def _time(forms: Mapping[str, tuple[Path, RuntimePrecision]], samples: Path) -> dict[str, Any]:
    """Return of every form but bfloat16 itself the latency, and how many times as fast as that it is."""
    with ExitStack() as stack:
        models = {}
        for name, (path, precision) in forms.items():
            process = EngineProcess(ENGINE, path, precision, 1, TIME_LIMIT_SECONDS)
            models[name] = TimedModel(stack.enter_context(process), samples, 1, RUNS)
            process.load()
            models[name].warm_up()
        time_in_rounds(list(models.values()), ROUNDS, zoo.SEED, LEAST_SECONDS)
    reference = models.pop("bf16").seconds
    print(f"\n  {'bf16':32}{summary(reference).median_ms:8.3f} ms")
    mixes = {}
    for name, model in models.items():
        ratio = speedup(reference, model.seconds, zoo.SEED)
        mixes[name] = {"latency": summary(model.seconds).model_dump(), "times_bf16": ratio.model_dump()}
        latency = mixes[name]["latency"]["median_ms"]
        print(f"  {name:32}{latency:8.3f} ms  {ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f}) times as fast")
    return mixes


def _print(model: str, operators: Sequence[Operator], bound: float) -> None:
    print(f"\n{model:44}{'kind':20}{'bf16':>10}{'int8':>10}")
    for each in sorted(operators, key=lambda each: -each.bf16)[:SHOWN]:
        int8 = f"{each.int8 * 1e6:7.0f} us" if each.int8 is not None else "-"
        print(f"  {each.names[-1]:42}{each.kind:20}{each.bf16 * 1e6:7.0f} us{int8:>10}")
    faster = sum(each.saved > 0 for each in operators)
    print(
        f"  {faster} of {len(operators)} kernels are faster in int8; with each in its faster form and conversions "
        f"free, {bound:.3f} times as fast as bfloat16"
    )


if __name__ == "__main__":
    sys.exit(main())
