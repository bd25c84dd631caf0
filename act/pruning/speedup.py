"""The least that must go for a speed-up, found by measuring smaller models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from act.pruning.cutter import Gone

MEASUREMENTS = 8
NEAR_ENOUGH = 0.03
"""Speed beyond the target that is not worth another measurement."""
LEAST_SHARE = 0.05
"""Share of the MACs below which nothing more is tried for the sake of a speed-up."""


@dataclass(frozen=True)
class Measured:
    """A smaller model, as it was measured: what went, the share of the MACs that is left, the speed-up."""

    gone: Gone
    share: float
    speedup: float
    measurements: int

    def describe(self, target: float, where: str) -> str:
        """Return what was reached, for people."""
        asked = f"{target:g} is asked for"
        outcome = f" ({asked})" if self.speedup >= target else f", the most that was found, where {asked}"
        return f"measured {self.speedup:.2f} times as fast{outcome} after {self.measurements} measurements on {where}"


def choose_for_speedup(
    target: float,
    gone_for: Callable[[float], Gone],
    speedup_of: Callable[[Gone], float],
    first_share: float | None = None,
) -> Measured:
    """Return the least that must go for a speed-up; the fastest that was measured, where none is fast enough.

    Args:
        gone_for: tells how many units go for a share of the MACs.
        speedup_of: measures a smaller model.
        first_share: to begin with; as if all latency were MACs when left out.
    """
    whole = gone_for(1.0)
    slow = Measured(whole, 1.0, speedup_of(whole), 1)
    if slow.speedup >= target:
        return slow
    share = min(0.95, slow.speedup / target) if first_share is None else first_share
    reached: Measured | None = None
    tried: list[Measured] = []
    for number in range(2, MEASUREMENTS + 1):
        gone = gone_for(share)
        if gone in (each.gone for each in tried):
            break
        latest = Measured(gone, share, speedup_of(gone), number)
        tried.append(latest)
        if latest.speedup >= target:
            reached = latest if reached is None or latest.share > reached.share else reached
            if latest.speedup <= target * (1 + NEAR_ENOUGH):
                break
        elif latest.share < slow.share:
            slow = latest
        if reached is not None and slow.share <= reached.share:
            break  # what is slower has less to do: they differ by no more than what is uncertain
        share = _next_share(target, reached, slow)
    fastest = max(tried, key=lambda each: each.speedup)
    return replace(reached or fastest, measurements=1 + len(tried))


def _next_share(target: float, fast: Measured | None, slow: Measured) -> float:
    """Return a share between what is fast enough and what is not, as if latency grew with the share on a line; else a
    little less than as if it were in proportion to it."""
    if fast is None:
        return max(LEAST_SHARE, slow.share * slow.speedup / target * 0.95)
    aim = 1 / (target * (1 + NEAR_ENOUGH / 2))
    part = (aim - 1 / fast.speedup) / (1 / slow.speedup - 1 / fast.speedup)
    return fast.share + (slow.share - fast.share) * min(max(part, 0.1), 0.9)
