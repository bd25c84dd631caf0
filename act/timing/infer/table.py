"""The figures as a table of plain text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from act.reporting.wording import executed

_HEADING = ("", "model", "engine", "runs in", "inputs", "median", "p10", "p90", "times as fast (95 %)")
_MORE = ("samples/s", "memory", "load", "first run", "files")
# From here on columns hold numbers and are aligned on the right.
_FIRST_NUMBER = 5


def render(payload: Mapping[str, Any]) -> str:
    """A table with one line a row and input shape, then notes, then what could not be measured and why."""
    models = payload["models"]
    names = _tails([entry["model"] for entry in models])
    lines: list[Sequence[str]] = [(*_HEADING, *_MORE)]
    for number, entry in enumerate(models, start=1):
        lines += _lines(number, names[entry["model"]], entry)
    parts = ["\n".join(_aligned(lines))]
    parts += [f"row {number}: {text}" for number, entry in enumerate(models, start=1) for text in _notes(entry)]
    if payload["compared_with"] is not None:
        settings, reference = payload["settings"], payload["compared_with"] + 1
        threads = f"{settings['cpu_num_threads']} thread{'' if settings['cpu_num_threads'] == 1 else 's'}"
        parts.append(
            f"Milliseconds of one inference on random data, batch {settings['batch_size']}, {threads}; times as fast "
            f"as row {reference}, with the 95 % bootstrap interval of the ratio."
        )
    if payload["noise"]["noisy"]:
        parts.append(
            f"The machine was noisy: {payload['noise']['cause']}. Measure again on a quiet machine before trusting "
            "small differences."
        )
    return "\n".join(parts)


def _tails(paths: Sequence[str]) -> dict[str, str]:
    """Each path by its last parts: two, or as many as it takes to tell them apart."""
    distinct = set(paths)
    for parts in range(2, max(len(PurePath(path).parts) for path in distinct)):
        short = {path: str(PurePath(*PurePath(path).parts[-parts:])) for path in distinct}
        if len(set(short.values())) == len(distinct):
            return short
    return {path: path for path in distinct}


def _lines(number: int, name: str, entry: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    start = (str(number), name, entry["engine"], entry["precision"])
    if entry["failure"] is not None:
        yield (*start, f"{_word(entry['failure'])}, see below")
        return
    for place, shape in enumerate(entry["shapes"]):
        inputs = " ".join("x".join(map(str, axes)) for axes in shape["inputs"].values())
        if shape["failure"] is not None:
            yield ("", "", "", "", inputs, f"{_word(shape['failure'])}, see below")
            continue
        latency = shape["latency"]
        figures = (
            inputs,
            f"{latency['median_ms']:.3f}",
            f"{latency['p10_ms']:.3f}",
            f"{latency['p90_ms']:.3f}",
            _speedup(shape["speedup"]),
        )
        yield (*start, *figures, *_more(entry)) if place == 0 else ("", "", "", "", *figures)


def _more(entry: Mapping[str, Any]) -> Sequence[str]:
    throughput = entry["throughput"]
    per_second = "-"
    if throughput is not None and throughput["failure"] is None:
        per_second = f"{throughput['per_second']:.1f} ({throughput['streams']} streams)"
    return (
        per_second,
        f"{entry['peak_rss_bytes'] / 1e6:.0f} MB",
        f"{entry['load_seconds']:.2f} s",
        f"{entry['warm_up']['first_ms']:.1f}",
        f"{entry['bytes'] / 1e6:.2f} MB",
    )


def _notes(entry: Mapping[str, Any]) -> Iterator[str]:
    if entry["failure"] is not None:
        yield f"{_word(entry['failure'])}: {entry['failure']['cause']}"
        return
    if entry["note"]:
        yield entry["note"]
    words = executed(entry["operators"])
    if "int8" in entry["precision"] and words.share:
        yield "; ".join(filter(None, [words.share, words.above, f"not fused: {words.conversions or 'nothing'}"]))
    if not entry["warm_up"]["steady"]:
        yield "its latency did not become steady in the warm-up"
    for shape in entry["shapes"]:
        if shape["failure"] is not None:
            yield f"{shape['inputs']}: {shape['failure']['cause']}"
    if entry["throughput"] is not None and entry["throughput"]["failure"] is not None:
        yield f"no throughput: {entry['throughput']['failure']['cause']}"


def _word(failure: Mapping[str, str]) -> str:
    return failure["kind"].replace("_", " ")


def _speedup(interval: Mapping[str, float] | None) -> str:
    return f"{interval['value']:.2f} ({interval['low']:.2f} to {interval['high']:.2f})" if interval else "-"


def _aligned(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """The cells in columns; the last cell of a short line may run into the columns behind it."""
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
