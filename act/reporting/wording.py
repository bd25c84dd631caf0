"""Numbers and settings as they stand on the page and in its sentences."""

import math
from typing import Any

from act.results.benchmark import Interval

TIMES = "\N{MULTIPLICATION SIGN}"
MINUS = "\N{MINUS SIGN}"
TO = "\N{EN DASH}"
NOTHING = "\N{EN DASH}"
# What rounds to zero at four decimals carries no sign.
_LEAST_LOSS = 5e-5


def three_digits(value: float) -> str:
    """Return a positive number with three significant digits and its trailing zeros: 4.30, 12.0, 0.414, 1234."""
    digits = 2 - math.floor(math.log10(value)) if value > 0 else 2
    return f"{value:.{max(0, digits)}f}"


def fixed(value: float | None, digits: int = 4) -> str:
    """Return a number with so many digits after the point."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def milliseconds(value: float) -> str:
    """Return a time such as `4.30 ms`."""
    return f"{three_digits(value)} ms"


def factor(value: float) -> str:
    """Return a ratio of speeds with its sign of multiplication."""
    return f"{value:.2f}{TIMES}"


def loss(value: float) -> str:
    """Return the quality lost; a gain has a minus."""
    return minus(f"{value:.4f}") if abs(value) >= _LEAST_LOSS else "0.0000"


def between(interval: Interval, digits: int) -> str:
    """Return the ends of an interval."""
    return minus(f"{interval.low:.{digits}f} to {interval.high:.{digits}f}")


def minus(text: str) -> str:
    """Return the same with typographic minus signs."""
    return text.replace("-", MINUS)


def size(count: int | None) -> str:
    """Return a number of bytes, in the units of file managers."""
    if count is None:
        return NOTHING
    if count < 1_000_000:
        return f"{count / 1000:.0f} kB"
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


def plain(value: Any) -> Any:
    """Return a setting as one cell: a list joined, a switch as a word, nothing as an empty cell."""
    if isinstance(value, list | tuple):
        return " ".join(str(part) for part in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else value
