"""The report's content: every figure as the words that stand on the page. The layout is `page.html.j2`.

The page is one file that asks for nothing from outside; the template escapes every text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from act.engines.spec import title_of
from act.metrics import find
from act.reporting import charts
from act.reporting.analysis import model_parts
from act.reporting.strategies import strategies
from act.reporting.tables import plain
from act.reporting.winner import Choice, Verdict, title
from act.reporting.wording import NOTHING, TIMES, TO, between, executed, factor, loss, milliseconds, size, three_digits
from act.settings import Budget, Job
from act.timing.rows import Figures, MeasuredVariant

_FAILURES = {
    "missing": "not installed",
    "unsupported": "not offered",
    "error": "refused",
    "wrong_output": "wrong output",
    "crash": "crashed",
    "timeout": "timed out",
}
_WIDE, _NARROW = (1000, 430), (380, 380)
_SMALL_WIDE, _SMALL_NARROW = (1000, 240), (380, 240)
_HALF = (476, 240)
_SHOWN_LAYERS = 12
_SHOWN_OPERATORS = 15
_SHOWN_COLUMNS = 7
_NO_FASTER = 1.03
_SHARES = ("latency_share", "share_of_latency", "share", "time_share")


@dataclass(frozen=True)
class Inputs:
    """What the page tells of. The optional parts are empty where a stage left nothing.

    Attributes:
        name: of the job.
        job: its settings.
        choice: the winner and all verdicts.
        measurements: the content of `measurements.json`.
        exported: the content of the export stage's `candidates.json`.
        deployed: name of the candidate at the top of the deploy folder.
        files: size and SHA-256 of each file there.
        snippet: Python lines that run the winner.
        search: the content of `trials.json` of the PTQ search.
        refined: the content of `refine.json`.
        training: the content of `qat.json`.
        pruning: the content of `prune.json`.
        analysis: the content of `analysis.json`.
        strategy: the content of `strategy.json`.
        options: the content of `options.json`.
        stages: name, outcome and seconds of each stage.
    """

    name: str
    job: Job
    choice: Choice
    measurements: Mapping[str, Any]
    exported: Mapping[str, Any]
    deployed: str
    files: Mapping[str, Mapping[str, Any]]
    snippet: str
    search: Mapping[str, Any]
    refined: Mapping[str, Any]
    training: Mapping[str, Any]
    pruning: Mapping[str, Any]
    analysis: Mapping[str, Any]
    strategy: Mapping[str, Any]
    options: Mapping[str, Any]
    stages: Sequence[Mapping[str, Any]]


def render(inputs: Inputs) -> str:
    """The whole page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    choice, job = inputs.choice, inputs.job
    return environment.get_template("page.html.j2").render(
        name=inputs.name,
        measured_at=str(inputs.measurements.get("measured_at", "")).replace("T", " ").removesuffix("+00:00"),
        headline=_headline(inputs),
        won=not choice.winner.is_reference,
        why=choice.why,
        tiles=_tiles(choice, job.budget),
        warnings=_warnings(inputs),
        chart=_both(charts.accuracy_latency, choice, job.target.engines, job.budget.max_quality_drop),
        engines=[
            {"name": title_of(engine), "colour": f"e{index % 3}"} for index, engine in enumerate(job.target.engines)
        ],
        groups=_groups(inputs),
        running=_running(inputs.choice),
        shapes=_shapes(inputs.choice),
        executed=_executed(inputs.choice),
        kernels=_kernels(inputs.choice),
        in_float=_in_float(inputs),
        metric=find(job.metric).title,
        budget=job.budget,
        target=job.target,
        samples=int(inputs.measurements.get("evaluation_samples", 0)),
        trials=_trials(inputs),
        sensitivity=_sensitivity(inputs),
        importance=_importance(inputs),
        refinements=_refinements(inputs),
        training=_training(inputs),
        pruning=_pruning(inputs),
        model=model_parts(inputs.analysis),
        operators=_operators(inputs.analysis),
        strategy=inputs.strategy,
        strategies=strategies(inputs.options),
        stages=_stages(inputs.stages),
        settings="\n".join(_outline(job.model_dump(mode="json"))),
        machine=list(_flatten(inputs.measurements["machine"])),
        deployed=inputs.deployed,
        files=[
            {"name": name, "size": size(entry["bytes"]), "sha256": entry["sha256"]}
            for name, entry in inputs.files.items()
        ],
        snippet=inputs.snippet,
    )


def _headline(inputs: Inputs) -> dict[str, str]:
    choice, batch = inputs.choice, inputs.job.target.batch
    unit = "one inference" if batch == 1 else f"one inference of {batch} samples"
    latency = milliseconds(choice.figures.median_ms)
    if choice.winner.is_reference:
        return {
            "claim": "fp32 stays the fastest",
            "sentence": f"{title(choice.winner)}: {unit} takes {latency} at a quality of {choice.figures.quality:.4f}.",
        }
    speedup, drop = choice.figures.speedup, choice.figures.drop
    assert speedup is not None and drop is not None
    if abs(drop.value) < 5e-5:
        quality = f"quality stays at {choice.figures.quality:.4f}"
    else:
        verb = "falls" if drop.value > 0 else "rises"
        quality = f"quality {verb} from {choice.fp32.quality:.4f} to {choice.figures.quality:.4f}"
    return {
        "claim": f"{factor(speedup.value)} as fast",
        "sentence": f"{title(choice.winner)}: {unit} takes {latency} instead of "
        f"{milliseconds(choice.fp32.median_ms)}, and {quality}.",
    }


def _tiles(choice: Choice, budget: Budget) -> list[dict[str, str]]:
    figures, fp32 = choice.figures, choice.fp32
    reference = next(v.row for v in choice.verdicts if v.row.engine == choice.winner.engine and v.row.is_reference)
    tiles = [
        {
            "name": "Latency",
            "before": milliseconds(fp32.median_ms) if not choice.winner.is_reference else "",
            "value": milliseconds(figures.median_ms),
            "note": f"median; 80 % of runs {milliseconds(figures.p10_ms)} to {milliseconds(figures.p90_ms)}",
        }
    ]
    if figures.speedup is not None and not choice.winner.is_reference:
        tiles.append(
            {
                "name": "Speed-up",
                "before": "",
                "value": factor(figures.speedup.value),
                "note": f"95 % interval {between(figures.speedup, 2)}, against fp32 on the same engine",
            }
        )
    if figures.drop is not None:
        moved = not choice.winner.is_reference
        tiles.append(
            {
                "name": "Quality",
                "before": f"{fp32.quality:.4f}" if moved else "",
                "value": f"{figures.quality:.4f}",
                "note": f"{loss(figures.drop.value)} lost, 95 % interval {between(figures.drop, 4)}; "
                f"budget {budget.max_quality_drop:g}"
                if moved
                else "the reference",
            }
        )
    tiles.append(
        {
            "name": "Files",
            "before": size(reference.bytes) if choice.winner.bytes != reference.bytes else "",
            "value": size(choice.winner.bytes),
            "note": f"{size(figures.peak_rss_bytes)} of memory at the peak",
        }
    )
    return tiles


def _warnings(inputs: Inputs) -> list[str]:
    found = []
    noise, drop = inputs.measurements["noise"], inputs.choice.figures.drop
    if noise["noisy"]:
        found.append(
            f"The machine was noisy: {noise['cause']}. "
            "Measure again on a quiet machine before trusting small differences."
        )
    unsteady = [title(v.row) for v in inputs.choice.verdicts if v.row.figures is not None and not v.row.figures.steady]
    if unsteady:
        found.append(f"Still not steady when the warm-up's time was up, measured all the same: {', '.join(unsteady)}.")
    if drop is not None and drop.value <= inputs.job.budget.max_quality_drop < drop.high:
        found.append(
            f"The drop is inside the budget as measured, but its 95 % interval reaches {drop.high:.4f}, beyond the "
            f"{inputs.job.budget.max_quality_drop:g} that is allowed. More evaluation samples would narrow it."
        )
    return found


def _groups(inputs: Inputs) -> list[dict[str, Any]]:
    """The table of variants, one group an engine."""
    engines = list(inputs.job.target.engines)
    slowest = max(v.row.figures.p90_ms for v in inputs.choice.verdicts if v.row.figures is not None)
    groups = []
    for index, engine in enumerate(engines):
        verdicts = [verdict for verdict in inputs.choice.verdicts if verdict.row.engine == engine]
        versions = [verdict.row.version for verdict in verdicts if verdict.row.version]
        groups.append(
            {
                "name": title_of(engine),
                "version": versions[0] if versions else "",
                "colour": f"e{index % 3}",
                "rows": [_line(verdict, inputs.choice, slowest, index) for verdict in verdicts],
            }
        )
    return groups


def _line(verdict: Verdict, choice: Choice, slowest: float, engine: int) -> dict[str, Any]:
    row, figures = verdict.row, verdict.row.figures
    line: dict[str, Any] = {"name": row.name, "precision": row.precision, "size": size(row.bytes), "failure": None}
    if figures is None or row.failure is not None:
        kind = row.failure.kind if row.failure else "error"
        cause = row.failure.cause if row.failure else "nothing was measured"
        return {**line, "state": "failed", "failure": _FAILURES.get(kind, kind), "cause": cause}
    return {
        **line,
        "state": "won" if row == choice.winner else "inside" if verdict.inside else "outside",
        "latency": three_digits(figures.median_ms),
        "spread": f"{three_digits(figures.p10_ms)}{TO}{three_digits(figures.p90_ms)}",
        "bar": charts.latency_bar(figures, slowest, engine),
        "speedup": factor(figures.speedup.value) if figures.speedup else NOTHING,
        "speedup_interval": between(figures.speedup, 2) if figures.speedup and not row.is_reference else "",
        "quality": f"{figures.quality:.4f}",
        "beside": ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in figures.beside.items()),
        "drop": loss(figures.drop.value) if figures.drop else NOTHING,
        "drop_interval": between(figures.drop, 4) if figures.drop and not row.is_reference else "",
        "memory": size(figures.peak_rss_bytes),
        "layers": executed(figures.operators).share if row.precision != "fp32" else "",
        "verdict": "winner" if row == choice.winner else "inside the budget" if verdict.inside else "",
        "misses": list(verdict.misses),
    }


def _running(choice: Choice) -> dict[str, Any]:
    """What each variant takes and gives beside the time of one inference, in the order of the table before."""
    ran = [(verdict.row, verdict.row.figures) for verdict in choice.verdicts if verdict.row.figures is not None]
    streams = next((figures.throughput.streams for _, figures in ran if figures.throughput is not None), 0)
    most = max((_per_second(figures) or 0.0 for _, figures in ran), default=0.0)
    rows = []
    for row, figures in ran:
        per_second = _per_second(figures)
        rows.append(
            {
                "name": title(row),
                "won": row == choice.winner,
                "per_second": three_digits(per_second) if per_second is not None else NOTHING,
                "bar": charts.share_bar(per_second / most) if per_second is not None else "",
                "cause": figures.throughput.failure.cause if figures.throughput and figures.throughput.failure else "",
                "p90": three_digits(figures.p90_ms),
                "memory": size(figures.peak_rss_bytes),
                "load": f"{figures.load_seconds:.2f}",
                "first": three_digits(figures.first_ms),
            }
        )
    return {"streams": streams, "rows": rows}


def _per_second(figures: Figures) -> float | None:
    return figures.throughput.per_second if figures.throughput is not None else None


def _shapes(choice: Choice) -> dict[str, Any] | None:
    """The latency of each variant on each shape of the inputs, where there are several."""
    ran = [(verdict.row, verdict.row.figures) for verdict in choice.verdicts if verdict.row.figures is not None]
    shapes = ran[0][1].shapes
    if len(shapes) < 2:
        return None
    return {
        "heading": [_shape(shape.inputs) for shape in shapes],
        "rows": [
            {
                "name": title(row),
                "won": row == choice.winner,
                "cells": [
                    {
                        "latency": three_digits(shape.median_ms) if shape.median_ms is not None else NOTHING,
                        "note": factor(shape.speedup.value) if shape.speedup is not None else "",
                        "cause": shape.failure.cause if shape.failure is not None else "",
                    }
                    for shape in figures.shapes
                ],
            }
            for row, figures in ran
        ],
    }


def _executed(choice: Choice) -> list[dict[str, Any]]:
    """What the engines made of the int8 variants: those that tell."""
    rows = []
    for verdict in choice.verdicts:
        row, figures = verdict.row, verdict.row.figures
        words = executed(figures.operators) if figures is not None and "int8" in row.precision else None
        if words is not None and words.share:
            rows.append({"name": title(row), "won": row == choice.winner, **vars(words)})
    return rows


def _kernels(choice: Choice) -> dict[str, Any] | None:
    """Where the time of an inference goes: fp32 beside the winner, or beside the fastest int8 where fp32 won, all on
    the winner's engine."""
    here = [v.row for v in choice.verdicts if v.row.engine == choice.winner.engine and v.row.figures is not None]
    fp32 = next((row for row in here if row.is_reference), None)
    int8 = [row for row in here if "int8" in row.precision]
    fastest = min(int8, key=_median, default=None)
    other = choice.winner if not choice.winner.is_reference else fastest
    if fp32 is None or other is None or not _groups_of(fp32) or not _groups_of(other):
        return None
    kinds = dict.fromkeys(str(group["kind"]) for row in (fp32, other) for group in _groups_of(row))
    most = {kind: max(_total(_of_kind(row, kind)) for row in (fp32, other)) for kind in kinds}
    rows = []
    for kind in sorted(kinds, key=lambda kind: -most[kind]):
        before, after = _of_kind(fp32, kind), _of_kind(other, kind)
        rows.append(
            {
                "kind": kind,
                "before": milliseconds(_total(before)) if before else NOTHING,
                "before_of": _kernel_counts(before),
                "after": milliseconds(_total(after)) if after else NOTHING,
                "after_of": _kernel_counts(after),
            }
        )
    return {
        "engine": title_of(fp32.engine),
        "other": other.name,
        "rows": rows,
        "before": milliseconds(_total(_groups_of(fp32))),
        "after": milliseconds(_total(_groups_of(other))),
    }


def _median(row: MeasuredVariant) -> float:
    return row.figures.median_ms if row.figures is not None else math.inf


def _groups_of(row: MeasuredVariant) -> Sequence[Mapping[str, Any]]:
    return row.figures.kernels if row.figures is not None else ()


def _of_kind(row: MeasuredVariant, kind: str) -> list[Mapping[str, Any]]:
    return [group for group in _groups_of(row) if group["kind"] == kind]


def _total(groups: Sequence[Mapping[str, Any]]) -> float:
    return float(sum(group["ms"] for group in groups))


def _kernel_counts(groups: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{group['count']} {TIMES} {group['precision']}" for group in groups)


def _in_float(inputs: Inputs) -> list[dict[str, Any]]:
    """The layers that each int8 candidate leaves in float, by candidate."""
    return [
        {"name": candidate["name"], "layers": candidate["left_in_float"]}
        for candidate in inputs.exported["candidates"]
        if candidate.get("left_in_float")
    ]


def _shape(inputs: Mapping[str, Sequence[int]]) -> str:
    """The shape of the only input, or the names and shapes of all."""
    words = {name: TIMES.join(map(str, axes)) for name, axes in inputs.items()}
    return (
        next(iter(words.values())) if len(words) == 1 else ", ".join(f"{name} {word}" for name, word in words.items())
    )


def _trials(inputs: Inputs) -> dict[str, Any] | None:
    trials: Sequence[Mapping[str, Any]] = inputs.search.get("trials", [])
    if not trials:
        return None
    budget, front = inputs.job.budget.max_quality_drop, inputs.search.get("front", [])
    names = list(dict.fromkeys(name for trial in trials for name in trial.get("settings", {})))
    lost = [(int(trial["id"]), float(trial["drop"])) for trial in trials if trial.get("drop") is not None]
    spread = [
        (float(trial["cost"]), float(trial["drop"]), f"trial {trial['id']}", trial["id"] in front)
        for trial in trials
        if trial.get("drop") is not None and trial.get("cost") is not None
    ]
    return {
        "settings": [name.replace("_", " ") for name in names],
        "rows": [
            {
                "id": trial.get("id"),
                "settings": [plain(trial.get("settings", {}).get(name)) for name in names],
                "quality": _number(trial.get("quality"), "{:.4f}"),
                "drop": loss(float(trial["drop"])) if trial.get("drop") is not None else NOTHING,
                "cost": _number(trial.get("cost"), "{:.2f}"),
                "samples": trial.get("samples", ""),
                "seconds": _number(trial.get("seconds"), "{:.1f}"),
                "failure": trial.get("failure"),
                "front": trial.get("id") in front,
            }
            for trial in trials
        ],
        "chart": _both(charts.trials, lost, budget, small=True) if lost else None,
        "front": _both(charts.front_of_trials, spread, budget, small=True) if spread else None,
    }


def _sensitivity(inputs: Inputs) -> list[dict[str, Any]]:
    """The most sensitive layers, with a bar as long as the error's share of the largest."""
    entries: Sequence[Mapping[str, Any]] = inputs.search.get("sensitivity", [])
    most = max((float(entry["error"]) for entry in entries), default=0.0)
    return [
        {
            "layer": entry["layer"],
            "kind": entry["op_type"],
            "error": f"{float(entry['error']):.2g}",
            "bar": charts.share_bar(float(entry["error"]) / most if most > 0 else 0.0),
        }
        for entry in entries[:_SHOWN_LAYERS]
    ]


def _importance(inputs: Inputs) -> list[dict[str, Any]]:
    """What the search learned: the share of each parameter in the forest's predictions, largest first."""
    shares: Mapping[str, float] = inputs.search.get("importance", {})
    ranked = sorted(shares.items(), key=lambda item: -float(item[1]))
    return [
        {"name": name.replace("_", " "), "share": f"{float(share):.0%}", "bar": charts.share_bar(float(share))}
        for name, share in ranked
        if float(share) > 0
    ]


def _refinements(inputs: Inputs) -> list[dict[str, Any]]:
    """Every attempt to make a candidate of the search better."""
    return [
        {
            "candidate": attempt["candidate"],
            "method": attempt["method"].replace("_", "-"),
            "before": f"{float(attempt['quality_before']):.4f}",
            "after": attempt["failure"] or f"{float(attempt['quality']):.4f}",
            "outcome": "kept" if attempt["kept"] else "dropped",
        }
        for attempt in inputs.refined.get("attempts", [])
    ]


def _training(inputs: Inputs) -> dict[str, Any] | None:
    training = inputs.training
    if not training:
        return None
    history = training.get("history") or []
    curves = []
    for name in ("loss", "quality"):
        points = [
            (float(e["step"]), float(e[name])) for e in history if e.get("step") is not None and e.get(name) is not None
        ]
        if len(points) > 1:
            curves.append(charts.curve(points, name, *_HALF))
    return {
        "needed": bool(training.get("needed")),
        "why": f"{training.get('why', '')}{_compared(training.get('distillation') or [])}",
        "curves": curves,
    }


def _compared(parts: Sequence[Mapping[str, Any]]) -> str:
    """Which variables training compared with the teacher's, and by which loss, as a second sentence; empty where it
    did not train."""
    if not parts:
        return ""
    told = [
        f"{' and '.join(part['node'])} by the loss `{part['loss']}`"
        + ("" if part["alpha"] == 1 else f", weighed {part['alpha']:g}")
        + (f", with teacher {part['teacher'] + 1}" if part["teacher"] else "")
        for part in parts
    ]
    return f". Compared with the teacher: {'; '.join(told)}"


def _pruning(inputs: Inputs) -> dict[str, Any] | None:
    """What each pruning strategy did; None where nothing was pruned."""
    if not inputs.pruning.get("pruned"):
        return None
    steps, layers, curves = [], [], []
    for step in inputs.pruning["steps"]:
        steps.append(
            {
                "name": step["name"],
                "before": f"{float(step['quality_before']):.4f}",
                "pruned": _number(step["quality_pruned"], "{:.4f}"),
                "after": f"{float(step['quality_after']):.4f}",
                "why": f"{step['why']}; {step['training']}{_compared(step.get('distillation') or [])}",
            }
        )
        layers += [
            {
                "strategy": step["name"],
                "name": row["name"],
                "kept": row["kept"],
                "of": row["of"],
                "bar": charts.share_bar(row["kept"] / row["of"]),
                "why": row.get("why") or row.get("note") or "",
            }
            for row in step["layers"]
        ]
        points = [(float(e["step"]), float(e["quality"])) for e in step["history"]]
        if len(points) > 1:
            curves.append(charts.curve(points, f"quality, {step['name']}", *_HALF))
    parameters = inputs.pruning["parameters"]
    return {
        "steps": steps,
        "layers": layers,
        "curves": curves,
        "before": f"{parameters['before'] / 1e6:.2f}",
        "after": f"{parameters['after'] / 1e6:.2f}",
        "sparse": _sparsity(inputs),
    }


def _sparsity(inputs: Inputs) -> str:
    """What zeros in single weights bring on each engine, as measured; empty where there are none."""
    sparse: Mapping[str, Mapping[str, Any]] = inputs.pruning["sparse"]
    if not sparse:
        return ""
    share = sum(float(each["zeros"]) for each in sparse.values()) / len(sparse)
    pattern = next((f" in the pattern {each['pattern']}" for each in sparse.values() if each["pattern"]), "")
    told = f"On average {share:.0%} of the values of {len(sparse)} weights are zero{pattern}."
    thinner = any(step["name"] in ("ChannelPrune", "TransformerPrune") for step in inputs.pruning["steps"])
    for verdict in inputs.choice.verdicts:
        row = verdict.row
        if row.name != "pruned" or row.figures is None or row.figures.speedup is None:
            continue
        speed, engine = row.figures.speedup, title_of(row.engine)
        if thinner:
            told += f" {engine}: {factor(speed.value)} as fast as fp32, with what was cut out before."
        elif speed.low > _NO_FASTER:
            told += f" {engine}: {factor(speed.value)} as fast as fp32."
        else:
            told += f" They bring no speed on {engine} ({factor(speed.value)}), whose kernels multiply zeros as well."
    return told + " The files hold the zeros and are no smaller, unless they are compressed."


def _operators(analysis: Mapping[str, Any]) -> dict[str, Any] | None:
    """The operators that cost most, with whatever columns the analysis has."""
    operators = [entry for entry in analysis.get("operators", []) if isinstance(entry, dict)]
    if not operators:
        return None
    columns = [name for name, value in operators[0].items() if isinstance(value, (str, int, float, type(None)))]
    columns = columns[:_SHOWN_COLUMNS]
    share = next((name for name in _SHARES if name in operators[0]), None)
    largest = 0.0
    if share is not None:
        operators = sorted(operators, key=lambda entry: -float(entry.get(share) or 0))
        columns = [*[name for name in columns if name != share], share]
        largest = float(operators[0].get(share) or 0)
    shown = operators[:_SHOWN_OPERATORS]
    return {
        "columns": [
            {"name": name.replace("_", " "), "number": name != share and _is_number(shown, name)} for name in columns
        ],
        "rows": [
            [_with_bar(entry.get(name), largest) if name == share else _cell(entry.get(name)) for name in columns]
            for entry in shown
        ],
        "shown": len(shown),
        "total": len(operators),
    }


def _is_number(entries: Sequence[Mapping[str, Any]], name: str) -> bool:
    return all(isinstance(entry.get(name), (int, float)) and not isinstance(entry[name], bool) for entry in entries)


def _stages(stages: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if not stages:
        return None
    seconds = [float(stage.get("seconds") or 0) for stage in stages]
    longest = max([*seconds, 1e-9])
    return {
        "rows": [
            {
                "name": str(stage.get("name", "")).split("@")[0],
                "outcome": str(stage.get("outcome", "")),
                "seconds": f"{taken:.1f}",
                "bar": charts.share_bar(taken / longest),
            }
            for stage, taken in zip(stages, seconds)
        ],
        "total": f"{sum(seconds):.0f}",
    }


def _both(draw: Callable[..., Markup], *arguments: Any, small: bool = False) -> dict[str, Markup]:
    """A chart for wide pages and for narrow ones."""
    wide, narrow = (_SMALL_WIDE, _SMALL_NARROW) if small else (_WIDE, _NARROW)
    return {"wide": draw(*arguments, *wide), "narrow": draw(*arguments, *narrow)}


def _outline(settings: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """The settings as in params.yaml, without those that are not set."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name}:"
            yield from _outline(value, indent + "  ")
        elif isinstance(value, list):
            yield f"{indent}{name}: {', '.join(map(str, value))}"
        elif value is not None:
            yield f"{indent}{name}: {value}"


def _flatten(entries: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values for a table; what is nested stands under its own name."""
    for name, value in entries.items():
        if isinstance(value, Mapping):
            yield from _flatten(value)
        elif isinstance(value, list):
            yield name.replace("_", " "), ", ".join(map(str, value))
        elif name.endswith("_bytes") and isinstance(value, int):
            yield name.removesuffix("_bytes").replace("_", " "), size(value)
        else:
            yield name.replace("_", " "), str(value)


def _with_bar(share: float | None, largest: float) -> Markup | str:
    if share is None or largest <= 0:
        return NOTHING
    return charts.share_bar(share / largest) + Markup(" {:.1%}").format(share)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", " ")
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _number(value: Any, form: str) -> str:
    return form.format(value) if isinstance(value, (int, float)) else NOTHING
