"""Which variant wins: the fastest that stays inside the budget, on whichever engine of the target that is.

Speed-up and quality drop are judged against fp32 on the same engine, so that an engine's own quirks are not laid at
the compression's door; the winner is then the lowest median latency of all. fp32 is always inside the budget, and when
it wins, the nearest candidate and what it missed say why.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from act.engines.spec import title_of
from act.errors import InputError
from act.reporting.wording import factor, milliseconds
from act.results.benchmark import FailedVariant, RanVariant, Variant
from act.results.report import JudgedVariant, RefusedVariant
from act.settings import ROUNDING, Budget


@dataclass(frozen=True)
class Choice:
    """The winner, and why."""

    winner: JudgedVariant  # what won
    fp32: JudgedVariant  # the same on the winner's engine
    variants: list[JudgedVariant | RefusedVariant]  # all, in the order in which they were measured
    ran: list[JudgedVariant]  # those that have figures
    why: str  # one or two sentences


def choose(rows: Sequence[RanVariant | FailedVariant], budget: Budget) -> Choice:
    """Judge every variant and pick the winner.

    Equal medians go to the smaller drop, then to the smaller file, then to the order of names.

    Raises:
        InputError: fp32 ran on no engine; names the causes.
    """
    variants = [_judged(row, _misses(row, budget)) for row in rows]
    ran = [row for row in variants if isinstance(row, JudgedVariant)]
    runners = [row for row in ran if row.inside_budget]
    if not runners:
        causes = "; ".join(f"{row.engine}: {row.failure.cause}" for row in rows if row.failure and row.is_reference)
        raise InputError(f"no engine of the target could run the model ({causes}); mend the engine or change `target`")
    winner = min(runners, key=_order)
    fp32 = next(row for row in runners if row.engine == winner.engine and row.is_reference)
    return Choice(winner, fp32, variants, ran, _why(winner, ran))


def meets(winner: RanVariant, budget: Budget) -> bool:
    """Tell whether a winner's figures are what the budget asks for; fp32 wins with less where nothing is."""
    fast = (winner.speedup.value if winner.speedup else 1.0) >= budget.min_speedup - ROUNDING
    return fast and (budget.max_latency_ms is None or winner.latency.median_ms <= budget.max_latency_ms)


def title(row: Variant) -> str:
    """Return a name such as `bf16 on OpenVINO`."""
    return f"{row.name} on {title_of(row.engine)}"


def _judged(row: RanVariant | FailedVariant, misses: list[str]) -> JudgedVariant | RefusedVariant:
    kind = JudgedVariant if isinstance(row, RanVariant) else RefusedVariant
    return kind(**dict(row), inside_budget=not misses, misses=misses)


def _order(row: RanVariant) -> tuple[float, float, float, str]:
    drop = row.drop.value if row.drop else 0.0
    return (row.latency.median_ms, drop, row.bytes if row.bytes is not None else float("inf"), row.key)


def _misses(row: RanVariant | FailedVariant, budget: Budget) -> list[str]:
    """Return each reason why a variant cannot win, as what it does wrong ("loses ...")."""
    if isinstance(row, FailedVariant):
        return [row.failure.cause]
    if row.is_reference:
        return []
    speedup, drop = row.speedup, row.drop
    if speedup is None or drop is None:
        return ["fp32 failed on this engine: nothing to compare with"]
    misses = []
    if drop.value > budget.max_quality_drop + ROUNDING:
        misses.append(f"loses {drop.value:.4f} of quality where {budget.max_quality_drop:.4g} is allowed")
    if speedup.value < budget.min_speedup - ROUNDING:
        fast, asked = factor(speedup.value), factor(budget.min_speedup)
        slow = speedup.value < 1
        misses.append(
            f"is slower than fp32 ({fast})" if slow else f"is {fast} as fast as fp32 where {asked} is asked for"
        )
    if budget.max_latency_ms is not None and row.latency.median_ms > budget.max_latency_ms:
        longest = milliseconds(budget.max_latency_ms)
        misses.append(f"takes {milliseconds(row.latency.median_ms)} where {longest} are allowed")
    return misses


def _why(winner: JudgedVariant, ran: Sequence[JudgedVariant]) -> str:
    fastest_ms = winner.latency.median_ms
    faster = [row for row in ran if not row.inside_budget and row.latency.median_ms < fastest_ms]
    if faster and winner.is_reference:
        nearest = min(faster, key=lambda row: row.drop.value if row.drop else 1.0)
        return (
            f"fp32 stays, because everything faster lies outside the budget. Nearest: {title(nearest)} "
            f"({milliseconds(nearest.latency.median_ms)}) {' and '.join(nearest.misses)}."
        )
    if faster:
        nearest = min(faster, key=lambda row: row.latency.median_ms)
        return f"Only what lies outside the budget is faster: {title(nearest)} {' and '.join(nearest.misses)}."
    if not winner.is_reference:
        return "Nothing that was measured is faster."
    others = [row for row in ran if not row.is_reference]
    if not others:
        return "fp32 stays, because nothing else could be measured."
    nearest = min(others, key=_order)
    return (
        f"fp32 stays, because nothing is faster. Nearest: {title(nearest)} with "
        f"{milliseconds(nearest.latency.median_ms)} against {milliseconds(fastest_ms)}."
    )
