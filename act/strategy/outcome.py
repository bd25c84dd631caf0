"""What a strategy came to, from what the stages left."""

from __future__ import annotations

from act.results.prune import Pruning
from act.results.report import Manifest
from act.results.select import Attempt, Options, Strategy
from act.settings import ROUNDING


def attempt_of(
    options: Options, strategy: Strategy, pruning: Pruning, manifest: Manifest, may_lose: float, minutes: float
) -> Attempt:
    """Return what a strategy came to.

    Args:
        options: what it was chosen from.
        may_lose: of quality.
        minutes: that the stages took.
    """
    measured = [(row.speedup.value, row.drop.value) for row in manifest.variants if row.speedup and row.drop]
    fastest, lost = max(measured, key=lambda each: each[0], default=(1.0, 0.0))
    timed = [step.measured_speedup for step in pruning.steps if step.measured_speedup]
    winner = manifest.winner
    return Attempt(
        key=options.chosen or "",
        share=pruning.kept_multiply_adds,
        quantized=strategy.quantize,
        predicted=options.predicted_speedup or 0.0,
        fastest=fastest,
        lost=lost,
        kept=max((speedup for speedup, drop in measured if drop <= may_lose + ROUNDING), default=1.0),
        speedup=winner.speedup.value if winner.speedup else 1.0,
        drop=winner.drop.value if winner.drop else 0.0,
        latency_ms=winner.latency_ms,
        met=manifest.budget.met,
        minutes=minutes,
        strategy=strategy,
        timed=timed[-1] if timed else 0.0,
        pruned_lost=pruning.quality.lost if timed and pruning.quality else 0.0,
    )
