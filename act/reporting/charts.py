"""The report's charts as inline SVG, drawn by hand: no script, no image file, colours from the page's own style.

Each function returns markup that may stand in the page as it is; every text in it is escaped. Charts are drawn once for
a wide and once for a narrow page, because text inside a scaled-down picture cannot be read on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from act.reporting.winner import Choice
from act.reporting.wording import minus, three_digits

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
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: _Box) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def accuracy_latency(choice: Choice, engines: Sequence[str], max_drop: float, width: int, height: int) -> Markup:
    """Draw quality over latency of every variant that ran, with the Pareto front and the line of the budget.

    Engines are in the order of their colours; width and height are in pixels.
    """
    points = choice.ran
    qualities = [row.quality.value for row in points]
    reference = choice.reference.quality.value
    floor = reference - max_drop
    low = max(min([*qualities, floor]), reference - _shown(max_drop))
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

    placed = [_Box(width - _RIGHT - 4 - len(budget_text) * _CHARACTER_PIXELS, line + 3, math.inf, line + 19)]
    downs = [height - _BOTTOM - 9 if quality < y.low else y(quality) for quality in qualities]
    spots = [(row, x(row.latency.median_ms), down) for row, down in zip(points, downs)]
    placed += [_Box(across - 7, down - 7, across + 7, down + 7) for _, across, down in spots]
    frame = _Box(_LEFT, _TOP - 12, width - _RIGHT, height - _BOTTOM)
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


def trials(
    points: Sequence[tuple[float, float, str]],
    marked: Collection[str],
    max_drop: float,
    over_cost: bool,
    width: int,
    height: int,
) -> Markup:
    """Draw the quality lost in each trial of the search, with the line of the budget; what loses many has no room.

    Losses hang down from zero: on stems in the order of trials, or over the expected cost, the marked ones joined.

    Args:
        points: number or cost, loss, and name of each trial, at least of one.
        marked: names of trials.
    """
    places, losses = [place for place, *_ in points], [loss for _, loss, _ in points]
    high, low = min(max([*losses, max_drop]), _shown(max_drop)), min([*losses, 0.0])
    margin = 0.12 * max(high - low, 0.002)
    y = _Scale(low - margin, high + margin, _TOP, height - _BOTTOM)
    margin = (0.1 * (max(places) - min(places)) or 0.05) if over_cost else 1
    x = _Scale(min(places) - margin, max(places) + margin, _LEFT, width - _RIGHT)
    numbers = None if over_cost else range(round(max(places)) + 1)
    parts = _axes(x, y, width, height, "expected cost, fp32 = 1" if over_cost else "trial", "quality lost", numbers)
    parts.append(_budget(y(max_drop), width))
    spots = [(x(place), min(y(loss), height - _BOTTOM - 4)) for place, loss, _ in points]
    if over_cost:
        joined = sorted(spot for spot, (*_, name) in zip(spots, points) if name in marked)
        parts.append(f'<g class="e0">{_line(joined)}</g>')
    for (across, down), (place, loss, name) in zip(spots, points):
        told = f"{name}: {loss:.4f} lost" + (f", cost {place:.2f}" if over_cost else "")
        stem = f'<line class="stem" x1="{across:.1f}" x2="{across:.1f}" y1="{y(0):.1f}" y2="{down:.1f}"/>'
        kind, radius = ("won", 5.5) if name in marked else ("faint", 4)
        mark = ("" if over_cost else stem) + _dot(across, down, radius)
        parts.append(f'<g class="e0 {kind}"><title>{escape(told)}</title>{mark}</g>')
    where = "over expected cost of" if over_cost else "in"
    return _svg(parts, width, height, f"Quality lost {where} each trial")


def _shown(max_drop: float) -> float:
    return max(_SHOWN_BUDGETS * max_drop, _LEAST_SHOWN_DROP)


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
    spots = [(x(step), y(value)) for step, value in points]
    dots = [_dot(*spot, 3) for spot in spots] if len(points) <= 60 else []
    parts.append(f'<g class="e0">{_line(spots)}{"".join(dots)}</g>')
    return _svg(parts, width, height, f"{name} over training steps")


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
        return ring + _dot(across, down, 5.5)
    shapes: dict[str, list[tuple[float, float]]] = {
        "bf16": [(-5, -5), (5, -5), (5, 5), (-5, 5)],
        "int8": [(0, -6.5), (6.2, 5), (-6.2, 5)],
    }
    corners = shapes.get(precision, [(0, -7), (7, 0), (0, 7), (-7, 0)])
    return f'{ring}<polygon class="mark" points="{_joined((across + x, down + y) for x, y in corners)}"/>'


def _label(name: str, across: float, down: float, placed: list[_Box], frame: _Box, won: bool) -> str:
    """Draw the name beside its mark, where it hides nothing; left out (the tooltip has it) where there is no room."""
    wide, gap = len(name) * _CHARACTER_PIXELS, 15 if won else 10
    for right, below in (
        *((gap - 2, -9), (gap, 4), (-gap - wide, 4), (-wide / 2, -gap - 1), (-wide / 2, gap + 9), (gap - 2, 17)),
        *((-gap - wide + 2, -9), (-gap - wide + 2, 17), (gap - 2, -22), (gap - 2, 30)),
        *((-gap - wide, -22), (-gap - wide, 30)),
    ):
        box = _Box(across + right, down + below - 11, across + right + wide, down + below + 3)
        inside = frame.left <= box.left and box.right <= frame.right
        if (
            inside
            and frame.top <= box.top
            and box.bottom <= frame.bottom
            and not any(box.overlaps(other) for other in placed)
        ):
            placed.append(box)
            return _text(across + right, down + below, name, "label")
    return ""


def _dot(across: float, down: float, radius: float) -> str:
    return f'<circle class="mark" cx="{across:.1f}" cy="{down:.1f}" r="{radius}"/>'


def _line(spots: Iterable[tuple[float, float]]) -> str:
    return f'<polyline class="curve" points="{_joined(spots)}"/>'


def _joined(spots: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{across:.1f},{down:.1f}" for across, down in spots)


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _svg(parts: Sequence[str], width: int, height: int, name: str) -> Markup:
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(name)}" font-size="{_FONT_PIXELS}">{"".join(parts)}</svg>'
    )
