"""The figures as a table of plain text."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import PurePath

from act.results.benchmark import InferFailed, InferFigures, InferRan
from act.results.export import Failure

_HEADING = (
    *("", "model", "engine", "runs in", "inputs", "median", "p10", "p90", "times as fast (95 %)"),
    *("samples/s", "memory", "load", "first run", "files"),
)
# From here on columns hold numbers and are aligned on the right.
_FIRST_NUMBER = 5


def render(figures: InferFigures) -> str:
    """Return a table with one line a row and input shape, then notes, then what could not be measured and why."""
    rows = figures.models
    names = _tails([row.model for row in rows])
    lines: list[Sequence[str]] = [_HEADING]
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
    start: Sequence[str] = (str(number), name, row.engine, row.precision)
    if isinstance(row, InferFailed):
        yield (*start, f"{_word(row.failure)}, see below")
        return
    found = row.throughput
    more: Sequence[str] = (
        f"{found.per_second:.1f} ({found.streams} streams)" if found and found.per_second else "-",
        f"{row.peak_rss_bytes / 1e6:.0f} MB",
        f"{row.load_seconds:.2f} s",
        f"{row.warm_up.first_ms:.1f}",
        f"{row.bytes / 1e6:.2f} MB",
    )
    for shape in row.shapes:
        inputs = " ".join("x".join(map(str, axes)) for axes in shape.inputs.values())
        if shape.failure is not None:
            yield (*start, inputs, f"{_word(shape.failure)}, see below")
        elif shape.latency is not None:
            times = (shape.latency.median_ms, shape.latency.p10_ms, shape.latency.p90_ms)
            ratio = shape.speedup
            faster = f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else "-"
            yield (*start, inputs, *(f"{each:.3f}" for each in times), faster, *more)
        start, more = ("", "", "", ""), ()


def _notes(row: InferRan | InferFailed) -> Iterator[str]:
    if isinstance(row, InferFailed):
        yield f"{_word(row.failure)}: {row.failure.cause}"
        return
    if row.note:
        yield row.note
    done = row.operators
    if "int8" in row.precision and done.share:
        yield "; ".join(filter(None, [done.share, done.above, f"not fused: {done.not_fused or 'nothing'}"]))
    if not row.warm_up.steady:
        yield "its latency did not become steady in the warm-up"
    yield from (f"{shape.inputs}: {shape.failure.cause}" for shape in row.shapes if shape.failure is not None)
    if row.throughput is not None and row.throughput.failure is not None:
        yield f"no throughput: {row.throughput.failure.cause}"


def _word(failure: Failure) -> str:
    return failure.kind.replace("_", " ")


def _aligned(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    columns = list(zip_longest(*lines, fillvalue=""))
    widths = [max(map(len, column)) for column in columns]
    for line in zip(*columns):
        cells = [cell.ljust(width) for cell, width in zip(line[:_FIRST_NUMBER], widths)]
        cells += [cell.rjust(width) for cell, width in zip(line[_FIRST_NUMBER:], widths[_FIRST_NUMBER:])]
        yield "  ".join(cells).rstrip()
