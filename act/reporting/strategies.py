"""The report's part on the strategies: what could meet the budget, what was tried, and what it came to.

From `options.json`; the layout is `strategies.html.j2`. A strategy that the user fixed has no such part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from act.engines.spec import title_of
from act.reporting.wording import NOTHING, TIMES, milliseconds, size


def strategies(told: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the page tells; None where nothing was chosen from."""
    if not told.get("options"):
        return None
    tried = {attempt["key"]: attempt for attempt in told["attempts"]}
    return {
        "verdict": told["verdict"],
        "source": told["source"],
        "wanted": f"{told['wanted_speedup']:.3g}{TIMES}" if told["wanted_speedup"] > 1 else None,
        "options": [_option(option, told["chosen"]) for option in told["options"]],
        "attempts": [_attempt(attempt) for attempt in tried.values()],
    }


def _option(option: Mapping[str, Any], chosen: str | None) -> dict[str, Any]:
    bar = NOTHING
    if option["latency_low_ms"] != option["latency_high_ms"]:
        bar = f"{milliseconds(option['latency_low_ms'])} to {milliseconds(option['latency_high_ms'])}"
    engine = title_of(option["engine"])
    return {
        "key": option["key"],
        "chosen": option["key"] == chosen,
        "where": f"{option['precision']} on {engine}" if engine else NOTHING,
        "latency": milliseconds(option["latency_ms"]) if option["latency_ms"] else NOTHING,
        "bar": bar if bar != NOTHING else "measured",
        "speedup": f"{option['speedup']:.2f}{TIMES}",
        "size": size(option["bytes"]),
        "minutes": f"{option['minutes']:.0f}",
        "why": option["why"],
    }


def _attempt(attempt: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "key": attempt["key"],
        "met": attempt["met"],
        "predicted": f"{attempt['predicted']:.2f}{TIMES}",
        "fastest": f"{attempt['fastest']:.2f}{TIMES}",
        "lost": f"{attempt['lost']:.4f}",
        "kept": f"{attempt['kept']:.2f}{TIMES}",
        "minutes": f"{attempt['minutes']:.0f}" if attempt["minutes"] else NOTHING,
        "outcome": "met the budget" if attempt["met"] else "missed it",
    }
