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
from act.settings import ROUNDING, Budget
from act.timing.rows import Figures, MeasuredVariant


@dataclass(frozen=True)
class Verdict:
    """A variant and what the budget says of it.

    Attributes:
        row: what was measured.
        misses: each reason why it cannot win, as what it does wrong ("loses ..."); empty when inside the budget.
    """

    row: MeasuredVariant
    misses: tuple[str, ...]

    @property
    def inside(self) -> bool:
        """Whether it may win."""
        return not self.misses


@dataclass(frozen=True)
class Choice:
    """The winner, and why.

    Attributes:
        winner: what won.
        figures: its figures.
        fp32: the figures of fp32 on the winner's engine.
        verdicts: of all variants, in the order in which they were measured.
        why: one or two sentences.
    """

    winner: MeasuredVariant
    figures: Figures
    fp32: Figures
    verdicts: tuple[Verdict, ...]
    why: str


def choose(rows: Sequence[MeasuredVariant], budget: Budget) -> Choice:
    """Judge every variant and pick the winner.

    Equal medians go to the smaller drop, then to the smaller file, then to the order of names.

    Raises:
        InputError: fp32 ran on no engine; names the causes.
    """
    verdicts = tuple(Verdict(row, _misses(row, budget)) for row in rows)
    runners = [(verdict.row, verdict.row.figures) for verdict in verdicts if verdict.inside and verdict.row.figures]
    if not runners:
        causes = "; ".join(f"{row.engine}: {row.failure.cause}" for row in rows if row.failure and row.is_reference)
        raise InputError(f"no engine of the target could run the model ({causes}); mend the engine or change `target`")
    winner, figures = min(runners, key=lambda runner: _order(*runner))
    fp32 = next(row.figures for row in rows if row.engine == winner.engine and row.is_reference)
    assert fp32 is not None
    return Choice(winner, figures, fp32, verdicts, _why(winner, figures, verdicts, budget))


def meets(figures: Figures, budget: Budget) -> bool:
    """Whether a winner's figures are what the budget asks for; fp32 wins with less where nothing is."""
    fast = (figures.speedup.value if figures.speedup else 1.0) >= budget.min_speedup - ROUNDING
    return fast and (budget.max_latency_ms is None or figures.median_ms <= budget.max_latency_ms)


def title(row: MeasuredVariant) -> str:
    """Such as `bf16 on OpenVINO`."""
    return f"{row.name} on {title_of(row.engine)}"


def _order(row: MeasuredVariant, figures: Figures) -> tuple[float, float, float, str]:
    drop = figures.drop.value if figures.drop else 0.0
    return (figures.median_ms, drop, row.bytes if row.bytes is not None else float("inf"), row.key)


def _misses(row: MeasuredVariant, budget: Budget) -> tuple[str, ...]:
    if row.failure is not None or row.figures is None:
        return (row.failure.cause if row.failure else "nothing was measured",)
    if row.is_reference:
        return ()
    speedup, drop = row.figures.speedup, row.figures.drop
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
    if budget.max_latency_ms is not None and row.figures.median_ms > budget.max_latency_ms:
        longest = milliseconds(budget.max_latency_ms)
        misses.append(f"takes {milliseconds(row.figures.median_ms)} where {longest} are allowed")
    return tuple(misses)


def _why(winner: MeasuredVariant, figures: Figures, verdicts: Sequence[Verdict], budget: Budget) -> str:
    refused = [
        (verdict, verdict.row.figures) for verdict in verdicts if not verdict.inside and verdict.row.figures is not None
    ]
    faster = [entry for entry in refused if entry[1].median_ms < figures.median_ms]
    if not winner.is_reference:
        if not faster:
            return "Nothing that was measured is faster."
        verdict, _ = min(faster, key=lambda entry: entry[1].median_ms)
        return f"Only what lies outside the budget is faster: {title(verdict.row)} {' and '.join(verdict.misses)}."
    if faster:
        verdict, missed = min(faster, key=lambda entry: entry[1].drop.value if entry[1].drop else 1.0)
        return (
            f"fp32 stays, because everything faster lies outside the budget. Nearest: {title(verdict.row)} "
            f"({milliseconds(missed.median_ms)}) {' and '.join(verdict.misses)}."
        )
    others = [
        (verdict.row, verdict.row.figures)
        for verdict in verdicts
        if verdict.row.figures is not None and not verdict.row.is_reference
    ]
    if not others:
        return "fp32 stays, because nothing else could be measured."
    row, nearest = min(others, key=lambda entry: _order(*entry))
    return (
        f"fp32 stays, because nothing is faster. Nearest: {title(row)} with {milliseconds(nearest.median_ms)} against "
        f"{milliseconds(figures.median_ms)}."
    )
