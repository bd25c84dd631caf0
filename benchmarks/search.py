"""A search of 30 trials, and its int8 candidates beside NNCF's better preset, on one model.

The search gives a Pareto front, from which a budget picks. The budget here is half of what NNCF's better preset loses
on the held-out samples, and what is compared is what it picks: the cheapest candidate that stayed inside it on the
search's own samples, or the best one where none did. The best one is shown as well.

Ours must lose at most half of what NNCF's better preset loses. Where that loses nothing measurable, because the 95 %
interval of its loss reaches 0, half of it is nothing to aim at: then ours must not lose significantly more than NNCF,
that is, the 95 % interval of the paired difference must reach 0. In either case ours may not be slower: the interval
of the ratio of latencies must reach 1. What `refine` makes of the search's candidates stands beside it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from act.metrics import Quality
from act.quantization.scheme import Scheme
from act.results.benchmark import Interval
from act.timing.statistics import Floats, mean_difference, speedup, typical
from benchmarks.bench import TRIALS, Bench

LONGEST_SECONDS = 240


@dataclass(frozen=True)
class Loss:
    """Our loss of quality beside NNCF's.

    Attributes:
        rule: `half`, or `nothing` where NNCF loses nothing measurable.
        excess: how much more ours loses than it may, over paired samples; below 0: less.
        passed: whether ours loses no more than it may.
    """

    rule: str
    excess: Interval
    passed: bool


def compare(fp32: Floats, ours: Floats, theirs: Floats) -> Loss:
    """Tell whether ours loses no more than it may, by the rule of this module.

    Args:
        fp32: one score a sample, float64 [samples].
        ours: scores of the same samples, float64 [samples].
        theirs: NNCF's, float64 [samples].
    """
    if mean_difference(fp32, theirs, 0).low > 0:
        excess = mean_difference(fp32 - ours, (fp32 - theirs) / 2, 0)
        return Loss("half", excess, excess.value <= 0)
    excess = mean_difference(theirs, ours, 0)
    return Loss("nothing", excess, excess.low <= 0)


def search(bench: Bench) -> tuple[dict[str, Any], list[str]]:
    """Search, measure, print a table; what was found, and what was missed."""
    for name in ("analyze", "select", "prune"):
        bench.stage(name)
    parts = {name: bench.stage(name) for name in ("calibrate", "ptq_search")}
    seconds = sum(parts.values())
    parts["refine"] = bench.stage("refine")
    artifacts = bench.folder / "artifacts" / "search"
    candidates, refined = (_candidates(artifacts / name) for name in ("ptq_search", "refine"))
    print(f"\n{bench.name}: {TRIALS} trials in {seconds:.0f} s with calibration; {parts['refine']:.0f} s of refinement")
    results: dict[str, Any] = {"seconds": parts}
    misses = [] if seconds <= LONGEST_SECONDS else [f"the search takes {seconds:.0f} s, {LONGEST_SECONDS} are allowed"]
    if candidates:
        results |= {"refined": [c.get("refined", []) for c in refined]}
        quality = {name: bench.quality(path) for name, path in bench.nncf.items()}
        preset = max(quality, key=lambda name: quality[name].value)
        picked = pick(candidates, max(bench.fp32.value - quality[preset].value, 0) / 2)
        schemes = {"ours": _scheme(artifacts / "ptq_search", picked)}
        if picked is not candidates[0]:
            schemes["ours, best"] = _scheme(artifacts / "ptq_search", candidates[0])
        for position, candidate in enumerate(c for c in refined if "refined" in c):
            schemes[f"ours, refined {position + 1}"] = _scheme(artifacts / "refine", candidate)
        beside, missed = _beside_nncf(bench, schemes)
        results |= {"settings": picked["settings"], **beside}
        misses += missed
    else:
        misses.append("the search gives no candidate")
    return results, [f"{bench.name}: {miss}" for miss in misses]


def pick(candidates: Sequence[dict[str, Any]], budget: float) -> dict[str, Any]:
    """Choose the cheapest candidate inside the budget, or the best one where none is.

    Args:
        candidates: with `drop` and `cost`, the best first.
        budget: largest drop of quality on the search's own samples.
    """
    inside = [candidate for candidate in candidates if candidate["drop"] <= budget]
    return min(inside, key=lambda candidate: float(candidate["cost"])) if inside else candidates[0]


def _candidates(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "candidates.json").read_text(encoding="utf-8"))["candidates"]
    return found


def _scheme(folder: Path, candidate: dict[str, Any]) -> tuple[Scheme, float | None]:
    """Return a candidate's scheme and the strength of smoothing of the model that it is of."""
    return Scheme.read(folder / candidate["scheme"]), (candidate["settings"] or {}).get("smooth_strength")


def _beside_nncf(bench: Bench, schemes: dict[str, tuple[Scheme, float | None]]) -> tuple[dict[str, Any], list[str]]:
    rows: dict[str, tuple[Any, Any]] = {"fp32": (bench.write(None), "fp32")}
    rows |= {name: (bench.write_found(*found), "int8") for name, found in schemes.items()}
    rows |= {f"NNCF {name}": (path, "int8") for name, path in bench.nncf.items()}
    quality = {name: bench.quality(path, precision) for name, (path, precision) in rows.items()}
    rounds = bench.latencies(rows)
    results = _table(bench, quality, rounds)

    peer = max((name for name in rows if name.startswith("NNCF")), key=lambda name: quality[name].value)
    loss = compare(*(np.array(quality[name].scores) for name in ("fp32", "ours", peer)))
    ratio = speedup(rounds[peer], rounds["ours"], 0)
    excess = f"{loss.excess.value:+.5f} ({loss.excess.low:+.5f} to {loss.excess.high:+.5f})"
    aim = "half of its loss" if loss.rule == "half" else "its loss, which is not measurable"
    print(f"  beside {peer}: ours loses {excess} more than {aim}")
    print(f"  beside {peer}: ours is {_interval(ratio, 3)} times as fast")
    results |= {
        "nncf_better": peer,
        "rule": loss.rule,
        "excess": loss.excess.model_dump(),
        "times_as_fast_as_nncf": ratio.model_dump(),
    }
    misses = [] if loss.passed else [f"ours loses {excess} more than {aim} ({peer})"]
    if ratio.high < 1:
        misses.append(f"ours is {_interval(ratio, 3)} times as fast as {peer} on OpenVINO: slower")
    return results, misses


def _table(bench: Bench, quality: dict[str, Quality], rounds: dict[str, Floats]) -> dict[str, Any]:
    print(f"  {bench.subject.held_out:,} held-out samples ({bench.subject.score}), OpenVINO, one thread, batch 1")
    print("  model                quality   lost (95 % interval)              latency ms   times as fast as fp32")
    results: dict[str, Any] = {}
    fp32 = np.array(quality["fp32"].scores)
    for name, found in quality.items():
        lost = mean_difference(fp32, np.array(found.scores), 0)
        fast, median = speedup(rounds["fp32"], rounds[name], 0), 1000 * typical(rounds[name])
        print(f"  {name:18} {found.value:9.5f}   {_interval(lost, 5):30} {median:13.3f}   {_interval(fast, 2)}")
        results[name] = {
            "quality": found.value,
            "lost": lost.model_dump(),
            "latency_ms": median,
            "speedup": fast.model_dump(),
        }
    return results


def _interval(value: Interval, digits: int) -> str:
    return f"{value.value:.{digits}f} ({value.low:.{digits}f} to {value.high:.{digits}f})"
