"""Threshold rules one by one: their time beside NNCF's and Paddle's, their thresholds beside Paddle's.

Paddle's thresholds are put into the program by our quantizer, so that only they differ; what ours give on the model
with equalised channels, which is what the pipeline calibrates, stands beside. The recogniser's int8 quality jumps by
several hundredths when thresholds move by a thousandth, so that a single pair of figures says little: all sets are also
moved at random by up to 1 %, several times, and what is compared is the mean over all of them. Ours counts as worse
when the 95 % interval of the difference lies below 0; the interval is for other lines and other moves alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from act.program.files import PROGRAM_FILE, WEIGHTS_FILE
from act.program.layers import OPERATORS
from act.program.model import InferenceModel
from act.program.paddle_setup import CPU, paddle
from act.quantization.activations import reader
from act.quantization.calibration import equalise_channels
from act.quantization.ranges import Range
from act.quantization.scheme import make_scheme
from act.quantization.statistics import TensorStatistics, collect
from act.quantization.thresholds import clip_by
from act.results.benchmark import Interval
from act.results.ptq_search import TrialSettings
from act.search.schemes import SchemeMaker
from act.settings import ThresholdAlgorithm
from act.timing.statistics import Floats
from benchmarks.bench import BATCH, CALIBRATION, Bench, nncf_presets

REPEATS = 3
ALGORITHMS: tuple[ThresholdAlgorithm, ...] = ("abs_max", "avg", "min_max", "hist", "mse", "emd", "KL")
# Paddle's algorithm -> how many times less time ours must take.
PADDLE: dict[ThresholdAlgorithm, float] = {"hist": 10, "KL": 50, "mse": 50}
HIST_PERCENT = 0.9999
NUDGES, LARGEST_NUDGE = 7, 0.01
RESAMPLES = 2000


def thresholds(bench: Bench) -> tuple[dict[str, Any], list[str]]:
    """Time all seven rules from one pass, and NNCF's one quantization, in turn."""
    ours: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in nncf_presets()}
    for _ in range(REPEATS):
        ours.append(_seconds(lambda: _all_rules(_calibrated(bench).statistics)))
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
    """Time one rule after the other, statistics included, beside Paddle's `PostTrainingQuantization`."""
    results: dict[str, Any] = {}
    misses: list[str] = []
    calibrated = _calibrated(bench)
    print(
        f"\nOne rule, statistics included; quality on {bench.subject.held_out} held-out lines "
        f"(fp32 {bench.fp32.value:.4f})"
    )
    print(
        "  rule    Paddle s    ours s   times   Paddle's (nudged)    ours (nudged)   difference (95 % interval)   "
        "ours, equalised (nudged)   equalised, with zero points, biases corrected"
    )
    for algorithm, wanted in PADDLE.items():
        row = _beside_paddle(bench, calibrated, algorithm)
        results[algorithm] = row
        difference = row["nudged_difference"]
        print(
            f"  {algorithm:6} {row['paddle_seconds']:9.1f} {np.median(row['ours_seconds']):9.2f} "
            f"{row['times_faster']:7.0f} {row['paddle_quality']:10.4f} ({row['paddle_quality_nudged']:.4f})"
            f"{row['ours_quality']:10.4f} ({row['ours_quality_nudged']:.4f})   "
            f"{difference['value']:+.4f} ({difference['low']:+.4f} to {difference['high']:+.4f})"
            f"{row['ours_quality_equalised']:18.4f} ({row['ours_quality_equalised_nudged']:.4f})"
            f"{row['ours_quality_asymmetric_bias_corrected']:26.4f}"
        )
        if row["times_faster"] < wanted:
            misses.append(f"{algorithm}: {row['times_faster']:.0f} times less time than Paddle's, not {wanted:.0f}")
        if difference["high"] < 0:
            ours, theirs = row["ours_quality_nudged"], row["paddle_quality_nudged"]
            misses.append(f"{algorithm}: quality {ours:.4f}, with Paddle's thresholds {theirs:.4f}")
    return results, misses


@dataclass(frozen=True)
class Calibrated:
    """What our calibration gives: the model whose thresholds are sought, the same as ONNX, and its statistics."""

    model: InferenceModel
    onnx: onnx.ModelProto
    statistics: dict[str, TensorStatistics]


def _calibrated(bench: Bench, with_equal_channels: bool = True) -> Calibrated:
    """Calibrate as the stage does, but for the tensors that no layer reads."""
    model, converted, count = bench.model, bench.onnx, CALIBRATION // BATCH
    if with_equal_channels:
        model, converted, _ = equalise_channels(model, converted, bench.layers, bench.calibration, BATCH)
    read = reader(converted, bench.layers)
    return Calibrated(model, converted, collect(read, bench.calibration.batches_in_parts(BATCH), count, [count])[count])


def _beside_paddle(bench: Bench, calibrated: Calibrated, algorithm: ThresholdAlgorithm) -> dict[str, Any]:
    share = HIST_PERCENT if algorithm == "hist" else None
    ours = [_seconds(lambda: _one_rule(_calibrated(bench, False).statistics, algorithm, share)) for _ in range(REPEATS)]
    started = time.perf_counter()
    found = _paddle_thresholds(bench, algorithm)
    seconds = time.perf_counter() - started
    batches = CALIBRATION // BATCH
    best = TrialSettings(
        ptq_algo=algorithm,
        hist_percent=share,
        batch_num=batches,
        activation_symmetric=False,
        weight_quantize_type="channel_wise_abs_max",
        bias_correct=True,
        quantizable_op_type=OPERATORS,
        float_layers=0,
    )
    maker = SchemeMaker(calibrated.model, bench.layers, {batches: calibrated.statistics}, {})
    plain = _calibrated(bench, with_equal_channels=False)
    theirs, mine, equal = (
        _nudged(bench, each, thresholds)
        for each, thresholds in (
            (plain, found),
            (plain, _thresholds(plain, algorithm, share)),
            (calibrated, _thresholds(calibrated, algorithm, share)),
        )
    )
    return {
        "paddle_seconds": seconds,
        "ours_seconds": ours,
        "times_faster": seconds / float(np.median(ours)),
        "paddle_quality": float(theirs[0].mean()),
        "ours_quality": float(mine[0].mean()),
        "ours_quality_equalised": float(equal[0].mean()),
        "paddle_quality_nudged": float(theirs.mean()),
        "ours_quality_nudged": float(mine.mean()),
        "ours_quality_equalised_nudged": float(equal.mean()),
        "quality_of_each_set": {"paddle": theirs.mean(axis=1).tolist(), "ours": mine.mean(axis=1).tolist()},
        "nudged_difference": _difference(mine, theirs).model_dump(),
        "ours_quality_asymmetric_bias_corrected": bench.quality(
            bench.write_for(calibrated.model, maker.make(best), calibrated.onnx)
        ).value,
    }


def _difference(ours: Floats, theirs: Floats) -> Interval:
    """Return the difference of the means and its 95 % interval, by bootstrap over the lines and each side's sets.

    Args:
        ours: scores, float64 [sets, lines].
        theirs: of the same lines, float64 [sets, lines].
    """
    rng = np.random.default_rng(0)
    sets, lines = ours.shape
    drawn = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(lines, size=lines)
        first, second = (scores[rng.integers(sets, size=sets)][:, chosen].mean() for scores in (ours, theirs))
        drawn.append(first - second)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(value=float(ours.mean() - theirs.mean()), low=float(low), high=float(high))


def _thresholds(calibrated: Calibrated, algorithm: ThresholdAlgorithm, share: float | None) -> dict[str, float]:
    found = _one_rule(calibrated.statistics, algorithm, share)
    return {name: span.threshold for name, span in found.items()}


def _nudged(bench: Bench, calibrated: Calibrated, found: dict[str, float]) -> Floats:
    """Score each held-out line under thresholds as they are, and moved a little, float64 [1 + NUDGES, lines]."""
    rng = np.random.default_rng(0)
    sets = [found]
    for _ in range(NUDGES):
        shares = rng.uniform(1 - LARGEST_NUDGE, 1 + LARGEST_NUDGE, size=len(found))
        sets.append({name: found[name] * share for name, share in zip(sorted(found), shares)})
    scores = []
    for thresholds in sets:
        ranges = {name: Range.around_zero(value) for name, value in thresholds.items()}
        scheme = make_scheme(calibrated.model, bench.layers, ranges)
        scores.append(bench.quality(bench.write_for(calibrated.model, scheme, calibrated.onnx)).scores)
    return np.array(scores)


def _all_rules(statistics: dict[str, TensorStatistics]) -> None:
    for algorithm in ALGORITHMS:
        _one_rule(statistics, algorithm, HIST_PERCENT if algorithm == "hist" else None)


def _one_rule(
    statistics: dict[str, TensorStatistics], algorithm: ThresholdAlgorithm, share: float | None
) -> dict[str, Range]:
    apply = clip_by(algorithm, share)
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


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _spread(seconds: Sequence[float]) -> str:
    return f"{np.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
