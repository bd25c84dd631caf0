"""Threshold rules one by one: their time beside NNCF's and Paddle's, their thresholds beside Paddle's.

Paddle's thresholds are put into the program by our quantizer, so that only they differ. The recogniser's int8 quality
jumps by several hundredths when thresholds move by a thousandth, so that a single pair of figures says little: both
sets are also moved at random by up to 1 %, several times, and what is compared is the mean over all of them. Ours
counts as worse when the 95 % interval of the paired difference lies below 0.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from act.activations import reader
from act.model import PROGRAM_FILE, WEIGHTS_FILE
from act.paddle_setup import CPU, paddle
from act.params import ThresholdAlgorithm
from act.quantization import OPERATORS, Range, Scheme, make_scheme
from benchmarks.bench import BATCH, CALIBRATION, Bench, nncf_presets
from tasks.benchmark.statistics import Floats, mean_difference
from tasks.ptq_search.schemes import SchemeMaker
from tasks.ptq_search.space import Setting
from tasks.ptq_search.statistics import TensorStatistics, collect
from tasks.ptq_search.thresholds import rule

REPEATS = 3
ALGORITHMS: tuple[ThresholdAlgorithm, ...] = ("abs_max", "avg", "min_max", "hist", "mse", "emd", "KL")
# Paddle's algorithm -> how many times less time ours must take.
PADDLE: dict[ThresholdAlgorithm, float] = {"hist": 10, "KL": 50, "mse": 50}
HIST_PERCENT = 0.9999
NUDGES, LARGEST_NUDGE = 7, 0.01


def thresholds(bench: Bench) -> tuple[dict[str, Any], list[str]]:
    """All seven rules from one pass, and NNCF's one quantization, in turn."""
    ours: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in nncf_presets()}
    for _ in range(REPEATS):
        ours.append(_seconds(lambda: _all_rules(_statistics(bench))))
        for name, taken in theirs.items():
            taken.append(bench.quantize_with_nncf(name)[1])
    print(f"\nCalibration on {CALIBRATION} lines, seconds (median of {REPEATS}, lowest to highest)")
    print(f"  all seven rules, ours      {_spread(ours)}")
    for name, taken in theirs.items():
        print(f"  NNCF, preset {name:13} {_spread(taken)}")
    fastest = min(float(np.median(taken)) for taken in theirs.values())
    mine = float(np.median(ours))
    misses = [] if mine < fastest else [f"all seven rules take {mine:.2f} s, NNCF's one quantization {fastest:.2f} s"]
    return {"seconds": {"ours, seven rules": ours, **{f"nncf {name}": s for name, s in theirs.items()}}}, misses


def beside_paddle(bench: Bench) -> tuple[dict[str, Any], list[str]]:
    """One rule at a time, statistics included, beside Paddle's `PostTrainingQuantization`."""
    results: dict[str, Any] = {}
    misses: list[str] = []
    maker = SchemeMaker(bench.model, bench.layers, {CALIBRATION // BATCH: _statistics(bench)}, {})
    print(
        f"\nOne rule, statistics included; quality on {bench.subject.held_out} held-out lines "
        f"(fp32 {bench.fp32.value:.4f})"
    )
    print(
        "  rule    Paddle s    ours s   times   Paddle's thresholds (nudged)   ours, alike (nudged)   "
        "difference, nudged (95 % interval)   ours with zero points, biases corrected"
    )
    for algorithm, wanted in PADDLE.items():
        row = _beside_paddle(bench, maker, algorithm)
        results[algorithm] = row
        difference = row["nudged_difference"]
        print(
            f"  {algorithm:6} {row['paddle_seconds']:9.1f} {np.median(row['ours_seconds']):9.2f} "
            f"{row['times_faster']:7.0f} {row['paddle_quality']:20.4f} ({row['paddle_quality_nudged']:.4f})"
            f"{row['ours_quality_plain']:15.4f} ({row['ours_quality_nudged']:.4f})   "
            f"{difference['value']:+.4f} ({difference['low']:+.4f} to {difference['high']:+.4f})"
            f"{row['ours_quality_asymmetric_bias_corrected']:25.4f}"
        )
        if row["times_faster"] < wanted:
            misses.append(f"{algorithm}: {row['times_faster']:.0f} times less time than Paddle's, not {wanted:.0f}")
        if difference["high"] < 0:
            ours, theirs = row["ours_quality_nudged"], row["paddle_quality_nudged"]
            misses.append(f"{algorithm}: quality {ours:.4f}, with Paddle's thresholds {theirs:.4f}")
    return results, misses


def _beside_paddle(bench: Bench, maker: SchemeMaker, algorithm: ThresholdAlgorithm) -> dict[str, Any]:
    share = HIST_PERCENT if algorithm == "hist" else None
    ours = [_seconds(lambda: _one_rule(_statistics(bench), algorithm, share)) for _ in range(REPEATS)]
    started = time.perf_counter()
    found = _paddle_thresholds(bench, algorithm)
    seconds = time.perf_counter() - started
    batches = CALIBRATION // BATCH
    plain = Setting(algorithm, share, batches, True, "channel_wise_abs_max", False, OPERATORS, 0)
    best = replace(plain, symmetric=False, bias_correct=True)
    mine = {name: span.threshold for name, span in maker.ranges(plain).items()}
    theirs_nudged, ours_nudged = (_nudged(bench, each) for each in (found, mine))
    return {
        "paddle_seconds": seconds,
        "ours_seconds": ours,
        "times_faster": seconds / float(np.median(ours)),
        "paddle_quality": bench.quality(bench.write(_symmetric(bench, found))).value,
        "ours_quality_plain": bench.quality(bench.write(maker.make(plain))).value,
        "paddle_quality_nudged": float(theirs_nudged.mean()),
        "ours_quality_nudged": float(ours_nudged.mean()),
        "nudged_difference": mean_difference(ours_nudged, theirs_nudged, 0).to_json(),
        "ours_quality_asymmetric_bias_corrected": bench.quality(bench.write(maker.make(best))).value,
    }


def _nudged(bench: Bench, found: dict[str, float]) -> Floats:
    """The mean score of each held-out line under thresholds that are all moved a little, float64 [lines]."""
    rng = np.random.default_rng(0)
    scores = [bench.quality(bench.write(_symmetric(bench, found))).scores]
    for _ in range(NUDGES):
        shares = rng.uniform(1 - LARGEST_NUDGE, 1 + LARGEST_NUDGE, size=len(found))
        moved = {name: found[name] * share for name, share in zip(sorted(found), shares)}
        scores.append(bench.quality(bench.write(_symmetric(bench, moved))).scores)
    return np.mean(scores, axis=0)


def _statistics(bench: Bench) -> dict[str, TensorStatistics]:
    """One calibration pass."""
    count = CALIBRATION // BATCH
    return collect(reader(bench.onnx, bench.layers), bench.calibration.batches(BATCH), count, [count])[count]


def _all_rules(statistics: dict[str, TensorStatistics]) -> None:
    for algorithm in ALGORITHMS:
        _one_rule(statistics, algorithm, HIST_PERCENT if algorithm == "hist" else None)


def _one_rule(
    statistics: dict[str, TensorStatistics], algorithm: ThresholdAlgorithm, share: float | None
) -> dict[str, Range]:
    apply = rule(algorithm, share)
    return {name: apply(tensor, True) for name, tensor in statistics.items()}


def _paddle_thresholds(bench: Bench, algorithm: ThresholdAlgorithm) -> dict[str, float]:
    from paddle.static.quantization import PostTrainingQuantization

    (spec,) = bench.model.feed_specs()
    scope = paddle.static.Scope()
    with paddle.static.scope_guard(scope), paddle.static.program_guard(paddle.static.Program()):
        feed = paddle.static.data(spec.name, list(spec.shape), spec.dtype)
        quantizer = PostTrainingQuantization(
            executor=paddle.static.Executor(CPU),
            scope=scope,
            model_dir=str(bench.model_folder),
            model_filename=PROGRAM_FILE,
            params_filename=WEIGHTS_FILE,
            data_loader=paddle.io.DataLoader(
                list(bench.calibration.feeds[spec.name]),
                feed_list=[feed],
                places=CPU,
                batch_size=BATCH,
                return_list=False,
            ),
            batch_nums=CALIBRATION // BATCH,
            algo=algorithm,
            hist_percent=HIST_PERCENT,
            quantizable_op_type=list(OPERATORS),
            onnx_format=True,
        )
        quantizer.quantize()
    found = {**quantizer._quantized_threshold, **quantizer._quantized_var_threshold}
    return {layer.activation: float(np.max(found[layer.activation])) for layer in bench.layers}


def _symmetric(bench: Bench, found: dict[str, float]) -> Scheme:
    return make_scheme(bench.model, bench.layers, {name: Range.around_zero(value) for name, value in found.items()})


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _spread(seconds: Sequence[float]) -> str:
    return f"{np.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
