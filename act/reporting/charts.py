"""The report's charts as inline SVG, drawn by hand: no script, no image file, colours from the page's own style.

Each function returns markup that may stand in the page as it is; every text in it is escaped. Charts are drawn once for
a wide and once for a narrow page, because text inside a scaled-down picture cannot be read on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from act.reporting.winner import Choice
from act.reporting.wording import minus, three_digits
from act.results.benchmark import Latency

_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 18, 18, 46
_FONT_PIXELS = 12.5
_CHARACTER_PIXELS = 6.7
# Points that lose more than this many budgets (or this much) would squeeze all others together: they sit on the edge.
_SHOWN_BUDGETS = 8
_LEAST_SHOWN_DROP = 0.04


@dataclass(frozen=True)
class _Scale:
    """A linear map from values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, about: int) -> list[float]:
        """Return round numbers inside the range, about so many."""
        raw = (self.high - self.low) / about
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class _Box:
    x: float
    y: float
    width: float
    height: float

    def overlaps(self, other: _Box) -> bool:
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


def accuracy_latency(choice: Choice, engines: Sequence[str], max_drop: float, width: int, height: int) -> Markup:
    """Draw quality over latency of every variant that ran, with the Pareto front and the line of the budget.

    Engines are in the order of their colours; width and height are in pixels.
    """
    points = choice.ran
    qualities = [row.quality.value for row in points]
    reference = choice.fp32.quality.value
    floor = reference - max_drop
    shown = max(_SHOWN_BUDGETS * max_drop, _LEAST_SHOWN_DROP)
    low = max(min([*qualities, floor]), reference - shown)
    margin = max(0.12 * (max(qualities) - low), 0.002)
    y = _Scale(low - margin, max(qualities) + margin, height - _BOTTOM, _TOP)
    slowest = max(row.latency.median_ms for row in points)
    x = _Scale(0, 1.12 * slowest, _LEFT, width - _RIGHT)

    parts = _axes(x, y, width, height, "median latency, ms", "quality")
    line = y(floor)
    parts.append(
        f'<rect class="outside" x="{_LEFT}" y="{line:.1f}" width="{width - _LEFT - _RIGHT}" '
        f'height="{max(0.0, height - _BOTTOM - line):.1f}"/>'
    )
    budget_text = f"budget: at most {max_drop:g} lost"
    parts.append(_budget(line, width, budget_text))
    parts.append(_front([(row.latency.median_ms, row.quality.value) for row in points], x, y))

    placed = [_Box(width - _RIGHT - 4 - len(budget_text) * _CHARACTER_PIXELS, line + 3, 999, 16)]
    downs = [height - _BOTTOM - 9 if quality < y.low else y(quality) for quality in qualities]
    spots = [(row, x(row.latency.median_ms), down) for row, down in zip(points, downs)]
    placed += [_Box(across - 7, down - 7, 14, 14) for _, across, down in spots]
    frame = _Box(_LEFT, _TOP - 12, width - _LEFT - _RIGHT, height - _TOP - _BOTTOM + 12)
    # The winner's label is placed first, so that it gets the best place.
    for row, across, down in sorted(spots, key=lambda spot: spot[0] != choice.winner):
        won, quality = row == choice.winner, row.quality.value
        name = row.name + (f" ↓ {quality:.3f}" if quality < y.low else "")
        colour = f"e{engines.index(row.engine) % 3}" if row.engine in engines else "e0"
        tooltip = escape(f"{row.key}: {three_digits(row.latency.median_ms)} ms, quality {quality:.4f}")
        parts.append(
            f'<g class="{colour}{" won" if won else ""}"><title>{tooltip}</title>'
            f"{_mark(row.precision, across, down, won)}"
            f"{_label(name, across, down, placed, frame, won)}</g>"
        )
    return _svg(parts, width, height, "Quality over latency of every variant")


def trials(drops: Sequence[tuple[int, float]], max_drop: float, width: int, height: int) -> Markup:
    """Draw the quality lost in each trial of the search, in order, with the line of the budget; the best is marked.

    There is the number and the loss of at least one trial.
    """
    losses = [drop for _, drop in drops]
    y = _downwards(losses, max_drop, height)
    x = _Scale(-1, drops[-1][0] + 1, _LEFT, width - _RIGHT)
    parts = _axes(x, y, width, height, "trial", "quality lost", numbers=range(drops[-1][0] + 1))
    parts.append(_budget(y(max_drop), width))
    best = min(drops, key=lambda entry: entry[1])[0]
    for number, drop in drops:
        down = min(y(drop), height - _BOTTOM - 4)
        parts.append(
            f'<g class="{"e0 won" if number == best else "e0 faint"}"><title>trial {number}: {drop:.4f} lost</title>'
            f'<line class="stem" x1="{x(number):.1f}" x2="{x(number):.1f}" y1="{y(0):.1f}" y2="{down:.1f}"/>'
            f'<circle class="mark" cx="{x(number):.1f}" cy="{down:.1f}" r="{5.5 if number == best else 4}"/></g>'
        )
    return _svg(parts, width, height, "Quality lost in each trial")


def front_of_trials(
    points: Sequence[tuple[float, float, str, bool]], max_drop: float, width: int, height: int
) -> Markup:
    """Draw the quality lost over the expected cost of each trial; those on the Pareto front are filled and joined.

    A point is cost, loss, name, and whether it is on the front; there is at least one.
    """
    costs = [cost for cost, *_ in points]
    margin = 0.1 * (max(costs) - min(costs)) or 0.05
    x = _Scale(min(costs) - margin, max(costs) + margin, _LEFT, width - _RIGHT)
    y = _downwards([drop for _, drop, *_ in points], max_drop, height)
    parts = _axes(x, y, width, height, "expected cost, fp32 = 1", "quality lost")
    parts.append(_budget(y(max_drop), width))
    floor = height - _BOTTOM - 4
    joined = sorted((cost, drop) for cost, drop, _, on_front in points if on_front)
    path = " ".join(f"{x(cost):.1f},{min(y(drop), floor):.1f}" for cost, drop in joined)
    parts.append(f'<g class="e0"><polyline class="curve" points="{path}"/></g>')
    for cost, drop, name, on_front in points:
        parts.append(
            f'<g class="{"e0 won" if on_front else "e0 faint"}"><title>{escape(name)}: {drop:.4f} lost, cost {cost:.2f}'
            f'</title><circle class="mark" cx="{x(cost):.1f}" cy="{min(y(drop), floor):.1f}" '
            f'r="{5.5 if on_front else 4}"/></g>'
        )
    return _svg(parts, width, height, "Quality lost over expected cost of each trial")


def _downwards(losses: Sequence[float], max_drop: float, height: int) -> _Scale:
    """Return a scale on which losses hang down from zero; what loses many budgets is not given room."""
    high = min(max([*losses, max_drop]), max(_SHOWN_BUDGETS * max_drop, _LEAST_SHOWN_DROP))
    low = min([*losses, 0.0])
    margin = 0.12 * max(high - low, 0.002)
    return _Scale(low - margin, high + margin, _TOP, height - _BOTTOM)


def _budget(down: float, width: int, text: str = "budget") -> str:
    line = f'<line class="budget" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{down:.1f}" y2="{down:.1f}"/>'
    return line + _text(width - _RIGHT - 4, down + 15, text, "note end")


def curve(points: Sequence[tuple[float, float]], name: str, width: int, height: int) -> Markup:
    """Draw a line through points (step, value)."""
    values = [value for _, value in points]
    margin = 0.1 * (max(values) - min(values)) or 0.1 * abs(values[0]) or 0.1
    steps = [step for step, _ in points]
    x = _Scale(min(steps), max(steps) if max(steps) > min(steps) else min(steps) + 1, _LEFT, width - _RIGHT)
    y = _Scale(min(values) - margin, max(values) + margin, height - _BOTTOM, _TOP)
    parts = _axes(x, y, width, height, "step", name)
    joined = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)
    parts.append(f'<g class="e0"><polyline class="curve" points="{joined}"/>')
    if len(points) <= 60:
        parts += [f'<circle class="mark" cx="{x(step):.1f}" cy="{y(value):.1f}" r="3"/>' for step, value in points]
    parts.append("</g>")
    return _svg(parts, width, height, f"{name} over training steps")


def latency_bar(latency: Latency, slowest_ms: float, engine: int) -> Markup:
    """Draw a bar as long as the median, with a line from the 10th to the 90th percentile; for one cell of a table."""
    scale = _Scale(0, slowest_ms, 0, 132)
    low, high = scale(latency.p10_ms), min(scale(latency.p90_ms), 132.0)
    bar = (
        f'<g class="e{engine % 3}"><rect class="bar" x="0" y="2" width="{scale(latency.median_ms):.1f}" '
        f'height="10" rx="1.5"/><line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="7" y2="7"/></g>'
    )
    return _svg([bar], 132, 14, f"{three_digits(latency.median_ms)} ms", "inline")


def share_bar(share: float, engine: int = 0) -> Markup:
    """Draw a bar for a share in [0, 1]; for one cell of a table."""
    width = 120.0 * min(max(share, 0.0), 1.0)
    bar = f'<g class="e{engine % 3}"><rect class="bar" x="0" y="2" width="{width:.1f}" height="10" rx="1.5"/></g>'
    return _svg([bar], 120, 14, f"{share:.0%}", "inline")


def _axes(
    x: _Scale, y: _Scale, width: int, height: int, across: str, up: str, numbers: range | None = None
) -> list[str]:
    parts = []
    ticks = y.ticks(5)
    for tick in ticks:
        down = y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{down:.1f}" y2="{down:.1f}"/>')
        parts.append(_text(_LEFT - 8, down + 4, _tick(tick, ticks), "tick end"))
    ticks = [tick for tick in x.ticks(max(3, width // 90)) if numbers is None or tick in numbers]
    for tick in ticks:
        parts.append(_text(x(tick), height - _BOTTOM + 18, _tick(tick, ticks), "tick middle"))
    bottom = height - _BOTTOM
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(_text(width - _RIGHT, height - 8, across, "tick end"))
    parts.append(_text(4, 10, up, "tick"))
    return parts


def _tick(value: float, ticks: Sequence[float]) -> str:
    step = ticks[1] - ticks[0] if len(ticks) > 1 else abs(value) or 1.0
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if round(step, digits) != round(step, digits + 1):  # a step of 2.5 needs one digit more than a step of 2
        digits += 1
    return minus(f"{value:.{digits}f}")


def _front(points: Sequence[tuple[float, float]], x: _Scale, y: _Scale) -> str:
    """Draw the steps of the Pareto front: at this latency, no better quality was found."""
    best = -math.inf
    path = ""
    for latency, quality in sorted(points, key=lambda point: (point[0], -point[1])):
        if quality <= best:
            continue
        across, down = x(latency), min(y(quality), y.start)
        path += f"M{across:.1f},{down:.1f}" if not path else f"H{across:.1f}V{down:.1f}"
        best = quality
    return f'<path class="front" d="{path}H{x.end:.1f}"/>'


def _mark(precision: str, across: float, down: float, won: bool) -> str:
    """Draw fp32 as a circle, bf16 a square, int8 a triangle, int8 with bf16 a diamond."""
    ring = f'<circle class="ring" cx="{across:.1f}" cy="{down:.1f}" r="12"/>' if won else ""
    if precision == "fp32":
        return f'{ring}<circle class="mark" cx="{across:.1f}" cy="{down:.1f}" r="5.5"/>'
    shapes: dict[str, list[tuple[float, float]]] = {
        "bf16": [(-5, -5), (5, -5), (5, 5), (-5, 5)],
        "int8": [(0, -6.5), (6.2, 5), (-6.2, 5)],
    }
    corners = shapes.get(precision, [(0, -7), (7, 0), (0, 7), (-7, 0)])
    joined = " ".join(f"{across + right:.1f},{down + below:.1f}" for right, below in corners)
    return f'{ring}<polygon class="mark" points="{joined}"/>'


def _label(name: str, across: float, down: float, placed: list[_Box], frame: _Box, won: bool) -> str:
    """Draw the name beside its mark, where it hides nothing; left out (the tooltip has it) where there is no room."""
    wide, gap = len(name) * _CHARACTER_PIXELS, 15 if won else 10
    for right, below in (
        *((gap - 2, -9), (gap, 4), (-gap - wide, 4), (-wide / 2, -gap - 1), (-wide / 2, gap + 9), (gap - 2, 17)),
        *((-gap - wide + 2, -9), (-gap - wide + 2, 17), (gap - 2, -22), (gap - 2, 30)),
        *((-gap - wide, -22), (-gap - wide, 30)),
    ):
        box = _Box(across + right, down + below - 11, wide, 14)
        inside = frame.x <= box.x and box.x + box.width <= frame.x + frame.width
        inside = inside and frame.y <= box.y and box.y + box.height <= frame.y + frame.height
        if inside and not any(box.overlaps(other) for other in placed):
            placed.append(box)
            return _text(box.x, down + below, name, "label")
    return ""


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _svg(parts: Sequence[str], width: int, height: int, name: str, kind: str = "chart") -> Markup:
    return Markup(
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(name)}" font-size="{_FONT_PIXELS}">{"".join(parts)}</svg>'
    )
