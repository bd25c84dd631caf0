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
    """A smaller model, as it was measured.

    Attributes:
        gone: units of each group.
        share: of the MACs that is left.
        speedup: over the whole model.
        measurements: how many were made until then.
    """

    gone: Gone
    share: float
    speedup: float
    measurements: int

    def describe(self, target: float, where: str) -> str:
        """Return what was reached, for people."""
        outcome = f"measured {self.speedup:.2f} times as fast"
        if self.speedup < target:
            outcome += f", the most that was found, where {target:g} is asked for"
        else:
            outcome += f" ({target:g} is asked for)"
        return f"{outcome} after {self.measurements} measurements on {where}"


def choose_for_speedup(
    target: float,
    gone_for: Callable[[float], Gone],
    speedup_of: Callable[[Gone], float],
    first_share: float | None = None,
) -> Measured:
    """Return the least that must go for a speed-up, found over the share of the MACs that is left; the fastest that was
    measured, where none is fast enough.

    Args:
        target: speed-up over the whole model.
        gone_for: tells how many units go for a share.
        speedup_of: measures a smaller model.
        first_share: to begin with; as if all latency were MACs when left out.
    """
    whole = gone_for(1.0)
    slow = Measured(whole, 1.0, speedup_of(whole), 1)
    if slow.speedup >= target:
        return slow
    share = min(0.95, slow.speedup / target) if first_share is None else first_share
    reached: Measured | None = None
    fastest: Measured | None = None
    tried: list[Gone] = []
    for number in range(2, MEASUREMENTS + 1):
        gone = gone_for(share)
        if gone in tried:
            break
        tried.append(gone)
        latest = Measured(gone, share, speedup_of(gone), number)
        if fastest is None or latest.speedup > fastest.speedup:
            fastest = latest
        if latest.speedup >= target:
            reached = latest if reached is None or latest.share > reached.share else reached
            if latest.speedup <= target * (1 + NEAR_ENOUGH):
                break
        elif latest.share < slow.share:
            slow = latest
        if reached is not None and slow.share <= reached.share:
            break  # what is slower has less to do: they differ by no more than what is uncertain
        share = _next_share(target, reached, slow)
    result = reached or fastest
    assert result is not None
    return replace(result, measurements=1 + len(tried))


def _next_share(target: float, fast: Measured | None, slow: Measured) -> float:
    """Return a share between what is fast enough and what is not, as if latency grew with the share on a line; else a
    little less than as if it were in proportion to it."""
    if fast is None:
        return max(LEAST_SHARE, slow.share * slow.speedup / target * 0.95)
    aim = 1 / (target * (1 + NEAR_ENOUGH / 2))
    part = (aim - 1 / fast.speedup) / (1 / slow.speedup - 1 / fast.speedup)
    return fast.share + (slow.share - fast.share) * min(max(part, 0.1), 0.9)
