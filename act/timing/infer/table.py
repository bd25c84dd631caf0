"""The figures as a table of plain text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath

from act.results.benchmark import InferFailed, InferFigures, InferRan, Interval
from act.results.export import Failure
from act.timing.wording import executed

_HEADING = ("", "model", "engine", "runs in", "inputs", "median", "p10", "p90", "times as fast (95 %)")
_MORE = ("samples/s", "memory", "load", "first run", "files")
# From here on columns hold numbers and are aligned on the right.
_FIRST_NUMBER = 5


def render(figures: InferFigures) -> str:
    """Return a table with one line a row and input shape, then notes, then what could not be measured and why."""
    rows = figures.models
    names = _tails([row.model for row in rows])
    lines: list[Sequence[str]] = [(*_HEADING, *_MORE)]
    for number, row in enumerate(rows, start=1):
        lines += _lines(number, names[row.model], row)
    parts = ["\n".join(_aligned(lines))]
    parts += [f"row {number}: {text}" for number, row in enumerate(rows, start=1) for text in _notes(row)]
    if figures.compared_with is not None:
        count, batch = figures.settings["cpu_num_threads"], figures.settings["batch_size"]
        parts.append(
            f"Milliseconds of one inference on random data, batch {batch}, {count} thread{'' if count == 1 else 's'}; "
            f"times as fast as row {figures.compared_with + 1}, with the 95 % bootstrap interval of the ratio."
        )
    if figures.noise.noisy:
        noisy = f"The machine was noisy: {figures.noise.cause}"
        parts.append(f"{noisy}. Measure again on a quiet machine before trusting small differences.")
    return "\n".join(parts)


def _tails(paths: Sequence[str]) -> dict[str, str]:
    """Return each path by its last parts: two, or as many as it takes to tell them apart."""
    distinct = set(paths)
    for parts in range(2, max(len(PurePath(path).parts) for path in distinct)):
        short = {path: str(PurePath(*PurePath(path).parts[-parts:])) for path in distinct}
        if len(set(short.values())) == len(distinct):
            return short
    return {path: path for path in distinct}


def _lines(number: int, name: str, row: InferRan | InferFailed) -> Iterator[Sequence[str]]:
    start = (str(number), name, row.engine, row.precision)
    if isinstance(row, InferFailed):
        yield (*start, f"{_word(row.failure)}, see below")
        return
    for index, shape in enumerate(row.shapes):
        inputs = " ".join("x".join(map(str, axes)) for axes in shape.inputs.values())
        if shape.failure is not None:
            yield ("", "", "", "", inputs, f"{_word(shape.failure)}, see below")
            continue
        assert shape.latency is not None
        times = (shape.latency.median_ms, shape.latency.p10_ms, shape.latency.p90_ms)
        figures = (inputs, *(f"{each:.3f}" for each in times), _speedup(shape.speedup))
        yield (*start, *figures, *_more(row)) if index == 0 else ("", "", "", "", *figures)


def _more(row: InferRan) -> Sequence[str]:
    found = row.throughput
    return (
        f"{found.per_second:.1f} ({found.streams} streams)" if found and found.per_second else "-",
        f"{row.peak_rss_bytes / 1e6:.0f} MB",
        f"{row.load_seconds:.2f} s",
        f"{row.warm_up.first_ms:.1f}",
        f"{row.bytes / 1e6:.2f} MB",
    )


def _notes(row: InferRan | InferFailed) -> Iterator[str]:
    if isinstance(row, InferFailed):
        yield f"{_word(row.failure)}: {row.failure.cause}"
        return
    if row.note:
        yield row.note
    words = executed(row.operators)
    if "int8" in row.precision and words.share:
        yield "; ".join(filter(None, [words.share, words.above, f"not fused: {words.conversions or 'nothing'}"]))
    if not row.warm_up.steady:
        yield "its latency did not become steady in the warm-up"
    for shape in row.shapes:
        if shape.failure is not None:
            yield f"{shape.inputs}: {shape.failure.cause}"
    if row.throughput is not None and row.throughput.failure is not None:
        yield f"no throughput: {row.throughput.failure.cause}"


def _word(failure: Failure) -> str:
    return failure.kind.replace("_", " ")


def _speedup(interval: Interval | None) -> str:
    return f"{interval.value:.2f} ({interval.low:.2f} to {interval.high:.2f})" if interval else "-"


def _aligned(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """Return the cells in columns; the last cell of a short line may run into the columns behind it."""
    widths = [
        max((len(line[column]) for line in lines if column < len(line) - (len(line) < len(lines[0]))), default=0)
        for column in range(len(lines[0]))
    ]
    for line in lines:
        cells = [
            cell.rjust(width) if column >= _FIRST_NUMBER and len(line) > _FIRST_NUMBER + 1 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths))
        ]
        yield "  ".join(cells).rstrip()
