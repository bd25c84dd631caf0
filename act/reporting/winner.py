"""Which variant wins: the fastest that stays inside the budget, on whichever engine of the target that is.

Speed-up and quality drop are judged against the reference, which is the user's own file on the engine that runs it
fastest: what only undoes a slow form or a slow engine is no speed-up. The winner is the lowest median latency of all.
The reference is always inside the budget, and when it wins, the nearest candidate and what it missed say why.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from act.engines.spec import title_of
from act.errors import InputError
from act.metrics import WORST_PART
from act.reporting.wording import factor, milliseconds
from act.results.benchmark import GIVEN, FailedVariant, RanVariant, Variant
from act.results.report import JudgedVariant, RefusedVariant
from act.settings import ROUNDING, Budget


@dataclass(frozen=True)
class Choice:
    """The winner, and why."""

    winner: JudgedVariant  # what won
    reference: JudgedVariant  # what all are compared with
    variants: list[JudgedVariant | RefusedVariant]  # all, in the order in which they were measured
    ran: list[JudgedVariant]  # those that have figures
    why: str  # one or two sentences


def choose(rows: Sequence[RanVariant | FailedVariant], budget: Budget) -> Choice:
    """Judge every variant and pick the winner.

    Equal medians go to the smaller drop, then to the smaller file, then to the order of names.

    Raises:
        InputError: neither the given model nor its fp32 form ran on any engine; names the causes.
    """
    against = next((called(row) for row in rows if row.is_reference), "")
    variants = [_judged(row, _misses(row, budget, against)) for row in rows]
    ran = [row for row in variants if isinstance(row, JudgedVariant)]
    reference = next((row for row in ran if row.is_reference), None)
    if reference is None:
        causes = "; ".join(
            f"{row.engine}: {row.failure.cause}" for row in rows if row.failure and row.candidate in (GIVEN, "fp32")
        )
        raise InputError(f"no engine of the target could run the model ({causes}); mend the engine or change `target`")
    winner = min((row for row in ran if row.inside_budget), key=_order)
    return Choice(winner, reference, variants, ran, _why(winner, ran))


def meets(winner: RanVariant, budget: Budget) -> bool:
    """Tell whether a winner's figures are what the budget asks for; the reference wins with less where nothing is."""
    fast = (winner.speedup.value if winner.speedup else 1.0) >= budget.min_speedup - ROUNDING
    return fast and (budget.max_latency_ms is None or winner.latency.median_ms <= budget.max_latency_ms)


def title(row: Variant) -> str:
    """Return a name such as `bf16 on OpenVINO`."""
    return f"{called(row)} on {title_of(row.engine)}"


def called(row: Variant) -> str:
    """Return the name of a variant in a sentence."""
    kind = "" if row.precision == "fp32" else f"{row.precision} "
    return f"the given {kind}model" if row.is_given else row.name


def _judged(row: RanVariant | FailedVariant, misses: list[str]) -> JudgedVariant | RefusedVariant:
    kind = JudgedVariant if isinstance(row, RanVariant) else RefusedVariant
    return kind(**dict(row), inside_budget=not misses, misses=misses)


def _order(row: RanVariant) -> tuple[float, float, float, str]:
    drop = row.drop.value if row.drop else 0.0
    return (row.latency.median_ms, drop, row.bytes if row.bytes is not None else float("inf"), row.key)


def _misses(row: RanVariant | FailedVariant, budget: Budget, against: str) -> list[str]:
    """Return each reason why a variant cannot win, as what it does wrong ("loses ..."); `against` is the reference."""
    if isinstance(row, FailedVariant):
        return [row.failure.cause]
    if row.is_reference:
        return []
    speedup, drop = row.speedup, row.drop
    if speedup is None or drop is None:
        return ["there is nothing to compare with: the given model ran on no engine"]
    misses = []
    if drop.value > budget.max_quality_drop + ROUNDING:
        misses.append(f"loses {drop.value:.4f} of quality where {budget.max_quality_drop:.4g} is allowed")
    worst = row.quality.beside.get(WORST_PART)
    if budget.min_worst_part is not None and worst is not None and worst < budget.min_worst_part - ROUNDING:
        part = row.quality.notes.get(WORST_PART) or "the worst part"
        misses.append(f"keeps {worst:.4f} of {part} where {budget.min_worst_part:.4g} is asked for")
    if speedup.value < budget.min_speedup - ROUNDING:
        fast, asked = factor(speedup.value), factor(budget.min_speedup)
        slow = speedup.value < 1
        misses.append(
            f"is slower than {against} ({fast})"
            if slow
            else f"is {fast} as fast as {against} where {asked} is asked for"
        )
    if budget.max_latency_ms is not None and row.latency.median_ms > budget.max_latency_ms:
        longest = milliseconds(budget.max_latency_ms)
        misses.append(f"takes {milliseconds(row.latency.median_ms)} where {longest} are allowed")
    return misses


def _why(winner: JudgedVariant, ran: Sequence[JudgedVariant]) -> str:
    fastest_ms, name = winner.latency.median_ms, called(winner)
    faster = [row for row in ran if not row.inside_budget and row.latency.median_ms < fastest_ms]
    if faster and winner.is_reference:
        nearest = min(faster, key=lambda row: row.drop.value if row.drop else 1.0)
        return _sentence(
            f"{name} stays, because everything faster lies outside the budget. Nearest: {title(nearest)} "
            f"({milliseconds(nearest.latency.median_ms)}) {' and '.join(nearest.misses)}."
        )
    if faster:
        nearest = min(faster, key=lambda row: row.latency.median_ms)
        return f"Only what lies outside the budget is faster: {title(nearest)} {' and '.join(nearest.misses)}."
    if not winner.is_reference:
        return "Nothing that was measured is faster."
    others = [row for row in ran if not row.is_reference]
    if not others:
        return _sentence(f"{name} stays, because nothing else could be measured.")
    nearest = min(others, key=_order)
    return _sentence(
        f"{name} stays, because nothing is faster. Nearest: {title(nearest)} with "
        f"{milliseconds(nearest.latency.median_ms)} against {milliseconds(fastest_ms)}."
    )


def _sentence(text: str) -> str:
    """Return a text that begins as a sentence does; names of precisions stay as they are."""
    return f"T{text[1:]}" if text.startswith("the ") else text
