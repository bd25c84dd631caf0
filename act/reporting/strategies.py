"""The report's part on the strategies: what could meet the budget, what was tried, and what it came to.

The layout is `strategies.html.j2`. A strategy that the user fixed has no such part.
"""

from __future__ import annotations

from typing import Any

from act.engines.spec import title_of
from act.reporting.wording import NOTHING, TIMES, milliseconds, size
from act.results.select import Attempt, Option, Options


def strategies(options: Options) -> dict[str, Any] | None:
    """Return what the page tells; None where nothing was chosen from."""
    if not options.options:
        return None
    tried = {attempt.key: attempt for attempt in options.attempts}
    return {
        "verdict": options.verdict,
        "source": options.source,
        "wanted": f"{options.wanted_speedup:.3g}{TIMES}" if options.wanted_speedup > 1 else None,
        "options": [_option(option, options.chosen) for option in options.options],
        "attempts": [_attempt(attempt) for attempt in tried.values()],
    }


def _option(option: Option, chosen: str | None) -> dict[str, Any]:
    bar = "measured"
    if option.latency_low_ms != option.latency_high_ms:
        bar = f"{milliseconds(option.latency_low_ms)} to {milliseconds(option.latency_high_ms)}"
    engine = title_of(option.engine)
    return {
        "key": option.key,
        "chosen": option.key == chosen,
        "where": f"{option.precision} on {engine}" if engine else NOTHING,
        "latency": milliseconds(option.latency_ms) if option.latency_ms else NOTHING,
        "bar": bar,
        "speedup": f"{option.speedup:.2f}{TIMES}",
        "size": size(option.bytes),
        "minutes": f"{option.minutes:.0f}",
        "why": option.why,
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "key": attempt.key,
        "met": attempt.met,
        "predicted": f"{attempt.predicted:.2f}{TIMES}",
        "fastest": f"{attempt.fastest:.2f}{TIMES}",
        "lost": f"{attempt.lost:.4f}",
        "kept": f"{attempt.kept:.2f}{TIMES}",
        "minutes": f"{attempt.minutes:.0f}" if attempt.minutes else NOTHING,
        "outcome": "met the budget" if attempt.met else "missed it",
    }
