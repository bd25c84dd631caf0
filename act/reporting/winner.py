"""Which variant wins: the fastest that stays inside the budget, on whichever engine of the target that is.

Speed-up and quality drop are judged against fp32 on the same engine, so that an engine's own quirks are not laid at
the compression's door; the winner is then the lowest median latency of all. fp32 is always inside the budget, and when
it wins, the nearest candidate and what it missed say why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from act.engines.spec import title_of
from act.errors import InputError
from act.reporting.wording import factor, milliseconds
from act.results.benchmark import FailedVariant, RanVariant, Variant
from act.settings import ROUNDING, Budget


@dataclass(frozen=True)
class Verdict:
    """A variant and what the budget says of it."""

    row: RanVariant | FailedVariant  # what was measured
    # each reason why it cannot win, as what it does wrong ("loses ..."); empty when inside the budget
    misses: tuple[str, ...]

    @property
    def inside(self) -> bool:
        """Tell whether it may win."""
        return not self.misses


@dataclass(frozen=True)
class Choice:
    """The winner, and why."""

    winner: RanVariant  # what won
    fp32: RanVariant  # the same on the winner's engine
    verdicts: tuple[Verdict, ...]  # of all variants, in the order in which they were measured
    why: str  # one or two sentences

    @property
    def ran(self) -> list[RanVariant]:
        """Return all variants that have figures."""
        return [verdict.row for verdict in self.verdicts if isinstance(verdict.row, RanVariant)]


def choose(rows: Sequence[RanVariant | FailedVariant], budget: Budget) -> Choice:
    """Judge every variant and pick the winner.

    Equal medians go to the smaller drop, then to the smaller file, then to the order of names.

    Raises:
        InputError: fp32 ran on no engine; names the causes.
    """
    verdicts = tuple(Verdict(row, _misses(row, budget)) for row in rows)
    runners = [verdict.row for verdict in verdicts if verdict.inside and isinstance(verdict.row, RanVariant)]
    if not runners:
        causes = "; ".join(f"{row.engine}: {row.failure.cause}" for row in rows if row.failure and row.is_reference)
        raise InputError(f"no engine of the target could run the model ({causes}); mend the engine or change `target`")
    winner = min(runners, key=_order)
    fp32 = next(row for row in runners if row.engine == winner.engine and row.is_reference)
    return Choice(winner, fp32, verdicts, _why(winner, verdicts))


def meets(winner: RanVariant, budget: Budget) -> bool:
    """Tell whether a winner's figures are what the budget asks for; fp32 wins with less where nothing is."""
    fast = (winner.speedup.value if winner.speedup else 1.0) >= budget.min_speedup - ROUNDING
    return fast and (budget.max_latency_ms is None or winner.latency.median_ms <= budget.max_latency_ms)


def title(row: Variant) -> str:
    """Return a name such as `bf16 on OpenVINO`."""
    return f"{row.name} on {title_of(row.engine)}"


def _order(row: RanVariant) -> tuple[float, float, float, str]:
    drop = row.drop.value if row.drop else 0.0
    return (row.latency.median_ms, drop, row.bytes if row.bytes is not None else float("inf"), row.key)


def _misses(row: RanVariant | FailedVariant, budget: Budget) -> tuple[str, ...]:
    if isinstance(row, FailedVariant):
        return (row.failure.cause,)
    if row.is_reference:
        return ()
    speedup, drop = row.speedup, row.drop
    if speedup is None or drop is None:
        return ("fp32 failed on this engine: nothing to compare with",)
    misses = []
    if drop.value > budget.max_quality_drop + ROUNDING:
        misses.append(f"loses {drop.value:.4f} of quality where {budget.max_quality_drop:.4g} is allowed")
    if speedup.value < budget.min_speedup - ROUNDING:
        misses.append(
            f"is slower than fp32 ({factor(speedup.value)})"
            if speedup.value < 1
            else f"is {factor(speedup.value)} as fast as fp32 where {factor(budget.min_speedup)} is asked for"
        )
    if budget.max_latency_ms is not None and row.latency.median_ms > budget.max_latency_ms:
        longest = milliseconds(budget.max_latency_ms)
        misses.append(f"takes {milliseconds(row.latency.median_ms)} where {longest} are allowed")
    return tuple(misses)


def _why(winner: RanVariant, verdicts: Sequence[Verdict]) -> str:
    ran = [(verdict, verdict.row) for verdict in verdicts if isinstance(verdict.row, RanVariant)]
    refused = [(verdict, row) for verdict, row in ran if not verdict.inside]
    faster = [(verdict, row) for verdict, row in refused if row.latency.median_ms < winner.latency.median_ms]
    if not winner.is_reference:
        if not faster:
            return "Nothing that was measured is faster."
        verdict, row = min(faster, key=lambda each: each[1].latency.median_ms)
        return f"Only what lies outside the budget is faster: {title(row)} {' and '.join(verdict.misses)}."
    if faster:
        verdict, row = min(faster, key=lambda each: each[1].drop.value if each[1].drop else 1.0)
        return (
            f"fp32 stays, because everything faster lies outside the budget. Nearest: {title(row)} "
            f"({milliseconds(row.latency.median_ms)}) {' and '.join(verdict.misses)}."
        )
    others = [row for _, row in ran if not row.is_reference]
    if not others:
        return "fp32 stays, because nothing else could be measured."
    nearest = min(others, key=_order)
    return (
        f"fp32 stays, because nothing is faster. Nearest: {title(nearest)} with "
        f"{milliseconds(nearest.latency.median_ms)} against {milliseconds(winner.latency.median_ms)}."
    )
