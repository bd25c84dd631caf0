"""The report's content: every figure as the words that stand on the page. The layout is `page.html.j2`.

The page is one file that asks for nothing from outside; the template escapes every text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from act.engines.spec import title_of
from act.metrics import find
from act.reporting import charts
from act.reporting.analysis import model_parts, operators_table
from act.reporting.strategies import strategies
from act.reporting.tables import plain
from act.reporting.winner import Choice, Verdict, title
from act.reporting.wording import NOTHING, TIMES, TO, between, factor, loss, milliseconds, size, three_digits
from act.results.benchmark import FailedVariant, KernelGroup, RanVariant
from act.results.export import FloatLayer
from act.results.prune import Pruning, Sparsity
from act.results.ptq_search import LayerSensitivity, Trials, TrialSettings
from act.results.qat import Training
from act.results.refine import Attempt
from act.results.report import DeployedFile, Report
from act.results.training import ComparedPart, TrainingPoint
from act.settings import Budget, Job
from act.timing.wording import executed

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
_NO_FASTER = 1.03


def render(report: Report, job: Job, choice: Choice, files: Mapping[str, DeployedFile], evaluation_samples: int) -> str:
    """Return the whole page.

    Args:
        report: what is told.
        job: its settings.
        choice: the winner and all verdicts.
        files: of the deploy folder.
        evaluation_samples: that quality was measured on.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        name=report.job,
        measured_at=report.measured_at.replace("T", " ").removesuffix("+00:00"),
        headline=_headline(choice, job.target.batch),
        won=not choice.winner.is_reference,
        why=choice.why,
        tiles=_tiles(choice, job.budget),
        warnings=_warnings(report, choice, job.budget.max_quality_drop),
        chart=_both(charts.accuracy_latency, choice, job.target.engines, job.budget.max_quality_drop),
        engines=[
            {"name": title_of(engine), "colour": f"e{index % 3}"} for index, engine in enumerate(job.target.engines)
        ],
        groups=_groups(choice, job.target.engines),
        running=_running(choice),
        shapes=_shapes(choice),
        executed=_executed(choice),
        kernels=_kernels(choice),
        in_float=_in_float(report.left_in_float),
        metric=find(job.metric).title,
        budget=job.budget,
        target=job.target,
        samples=evaluation_samples,
        trials=_trials(report.search, job.budget.max_quality_drop),
        sensitivity=_sensitivity(report.search.sensitivity),
        importance=_importance(report.search.importance),
        refinements=[_refinement(attempt) for attempt in report.refined.attempts],
        training=_training(report.training),
        pruning=_pruning(report.pruning, choice),
        model=model_parts(report.analysis),
        operators=operators_table(report.analysis.operators),
        strategy=report.strategy,
        strategies=strategies(report.options),
        settings="\n".join(_outline(job.model_dump(mode="json"))),
        machine=list(_flatten(report.machine.model_dump())),
        deployed=report.deployed_candidate,
        files=[{"name": name, "size": size(file.bytes), "sha256": file.sha256} for name, file in files.items()],
        snippet=report.winner.how_to_load,
    )


def _headline(choice: Choice, batch: int) -> dict[str, str]:
    winner, quality = choice.winner, choice.winner.quality.value
    unit = "one inference" if batch == 1 else f"one inference of {batch} samples"
    start = f"{title(winner)}: {unit} takes {milliseconds(winner.latency.median_ms)}"
    if winner.is_reference:
        return {"claim": "fp32 stays the fastest", "sentence": f"{start} at a quality of {quality:.4f}."}
    assert winner.speedup is not None and winner.drop is not None
    if abs(winner.drop.value) < 5e-5:
        moved = f"quality stays at {quality:.4f}"
    else:
        verb = "falls" if winner.drop.value > 0 else "rises"
        moved = f"quality {verb} from {choice.fp32.quality.value:.4f} to {quality:.4f}"
    return {
        "claim": f"{factor(winner.speedup.value)} as fast",
        "sentence": f"{start} instead of {milliseconds(choice.fp32.latency.median_ms)}, and {moved}.",
    }


def _tiles(choice: Choice, budget: Budget) -> list[dict[str, str]]:
    winner, fp32, latency = choice.winner, choice.fp32, choice.winner.latency
    moved = not winner.is_reference
    spread = f"{milliseconds(latency.p10_ms)} to {milliseconds(latency.p90_ms)}"
    tiles = [
        _tile(
            "Latency",
            milliseconds(latency.median_ms),
            f"median; 80 % of runs {spread}",
            milliseconds(fp32.latency.median_ms) if moved else "",
        )
    ]
    if winner.speedup is not None and moved:
        note = f"95 % interval {between(winner.speedup, 2)}, against fp32 on the same engine"
        tiles.append(_tile("Speed-up", factor(winner.speedup.value), note))
    if winner.drop is not None:
        note = (
            f"{loss(winner.drop.value)} lost, 95 % interval {between(winner.drop, 4)}; "
            f"budget {budget.max_quality_drop:g}"
        )
        before = f"{fp32.quality.value:.4f}" if moved else ""
        tiles.append(_tile("Quality", f"{winner.quality.value:.4f}", note if moved else "the reference", before))
    before = size(fp32.bytes) if winner.bytes != fp32.bytes else ""
    tiles.append(_tile("Files", size(winner.bytes), f"{size(winner.peak_rss_bytes)} of memory at the peak", before))
    return tiles


def _tile(name: str, value: str, note: str, before: str = "") -> dict[str, str]:
    return {"name": name, "before": before, "value": value, "note": note}


def _warnings(report: Report, choice: Choice, most: float) -> list[str]:
    found = []
    if report.noise.noisy:
        found.append(
            f"The machine was noisy: {report.noise.cause}. "
            "Measure again on a quiet machine before trusting small differences."
        )
    unsteady = [title(row) for row in choice.ran if not row.warm_up.steady]
    if unsteady:
        found.append(f"Still not steady when the warm-up's time was up, measured all the same: {', '.join(unsteady)}.")
    drop = choice.winner.drop
    if drop is not None and drop.value <= most < drop.high:
        found.append(
            f"The drop is inside the budget as measured, but its 95 % interval reaches {drop.high:.4f}, beyond the "
            f"{most:g} that is allowed. More evaluation samples would narrow it."
        )
    return found


def _groups(choice: Choice, engines: Sequence[str]) -> list[dict[str, Any]]:
    """Return the table of variants, one group an engine."""
    slowest = max(row.latency.p90_ms for row in choice.ran)
    groups = []
    for index, engine in enumerate(engines):
        verdicts = [verdict for verdict in choice.verdicts if verdict.row.engine == engine]
        groups.append(
            {
                "name": title_of(engine),
                "version": next((verdict.row.version for verdict in verdicts if verdict.row.version), ""),
                "colour": f"e{index % 3}",
                "rows": [_line(verdict, choice, slowest, index) for verdict in verdicts],
            }
        )
    return groups


def _line(verdict: Verdict, choice: Choice, slowest: float, engine: int) -> dict[str, Any]:
    row = verdict.row
    line: dict[str, Any] = {"name": row.name, "precision": row.precision, "size": size(row.bytes), "failure": None}
    if isinstance(row, FailedVariant):
        kind = row.failure.kind
        return {**line, "state": "failed", "failure": _FAILURES.get(kind, kind), "cause": row.failure.cause}
    latency, beside = row.latency, row.quality.beside
    return {
        **line,
        "state": "won" if row == choice.winner else "inside" if verdict.inside else "outside",
        "latency": three_digits(latency.median_ms),
        "spread": f"{three_digits(latency.p10_ms)}{TO}{three_digits(latency.p90_ms)}",
        "bar": charts.latency_bar(latency, slowest, engine),
        "speedup": factor(row.speedup.value) if row.speedup else NOTHING,
        "speedup_interval": between(row.speedup, 2) if row.speedup and not row.is_reference else "",
        "quality": f"{row.quality.value:.4f}",
        "beside": ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in beside.items()),
        "drop": loss(row.drop.value) if row.drop else NOTHING,
        "drop_interval": between(row.drop, 4) if row.drop and not row.is_reference else "",
        "memory": size(row.peak_rss_bytes),
        "layers": executed(row.operators).share if row.precision != "fp32" else "",
        "verdict": "winner" if row == choice.winner else "inside the budget" if verdict.inside else "",
        "misses": list(verdict.misses),
    }


def _running(choice: Choice) -> dict[str, Any]:
    """Return what each variant takes and gives beside the time of one inference, in the order of the table before."""
    throughputs = [row.throughput for row in choice.ran if row.throughput is not None]
    most = max((throughput.per_second or 0.0 for throughput in throughputs), default=0.0)
    rows = []
    for row in choice.ran:
        per_second = row.throughput.per_second if row.throughput else None
        rows.append(
            {
                "name": title(row),
                "won": row == choice.winner,
                "per_second": three_digits(per_second) if per_second is not None else NOTHING,
                "bar": charts.share_bar(per_second / most) if per_second is not None else "",
                "cause": row.throughput.failure.cause if row.throughput and row.throughput.failure else "",
                "p90": three_digits(row.latency.p90_ms),
                "memory": size(row.peak_rss_bytes),
                "load": f"{row.load_seconds:.2f}",
                "first": three_digits(row.warm_up.first_ms),
            }
        )
    return {"streams": throughputs[0].streams if throughputs else 0, "rows": rows}


def _shapes(choice: Choice) -> dict[str, Any] | None:
    """Return the latency of each variant on each shape of the inputs, where there are several."""
    shapes = choice.ran[0].shapes
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
                        "latency": three_digits(shape.latency.median_ms) if shape.latency is not None else NOTHING,
                        "note": factor(shape.speedup.value) if shape.speedup is not None else "",
                        "cause": shape.failure.cause if shape.failure is not None else "",
                    }
                    for shape in row.shapes
                ],
            }
            for row in choice.ran
        ],
    }


def _shape(inputs: Mapping[str, Sequence[int]]) -> str:
    """Return the shape of the only input, or the names and shapes of all."""
    words = {name: TIMES.join(map(str, axes)) for name, axes in inputs.items()}
    if len(words) == 1:
        return next(iter(words.values()))
    return ", ".join(f"{name} {word}" for name, word in words.items())


def _executed(choice: Choice) -> list[dict[str, Any]]:
    """Return what the engines made of the int8 variants: those that tell."""
    told = [(row, executed(row.operators)) for row in choice.ran if "int8" in row.precision]
    return [{"name": title(row), "won": row == choice.winner, **vars(words)} for row, words in told if words.share]


def _kernels(choice: Choice) -> dict[str, Any] | None:
    """Tell where the time of an inference goes: fp32 beside the winner, or beside the fastest int8 where fp32 won."""
    fp32, other = choice.fp32, choice.winner
    if other.is_reference:
        int8 = [row for row in choice.ran if row.engine == fp32.engine and "int8" in row.precision]
        other = min(int8, key=lambda row: row.latency.median_ms, default=fp32)
    if other is fp32 or not fp32.kernels or not other.kernels:
        return None
    sides = (fp32.kernels, other.kernels)
    kinds = dict.fromkeys(group.kind for side in sides for group in side)
    by_kind = {kind: [[group for group in side if group.kind == kind] for side in sides] for kind in kinds}
    rows = []
    for kind, (before, after) in sorted(by_kind.items(), key=lambda each: -max(map(_total, each[1]))):
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
        "before": milliseconds(_total(fp32.kernels)),
        "after": milliseconds(_total(other.kernels)),
    }


def _total(groups: Sequence[KernelGroup]) -> float:
    return float(sum(group.ms for group in groups))


def _kernel_counts(groups: Sequence[KernelGroup]) -> str:
    return ", ".join(f"{group.count} {TIMES} {group.precision}" for group in groups)


def _in_float(layers: Mapping[str, Sequence[FloatLayer]]) -> list[dict[str, Any]]:
    """Return the layers that each int8 candidate leaves in float, by candidate."""
    return [{"name": name, "layers": found} for name, found in layers.items() if found]


def _trials(search: Trials, most: float) -> dict[str, Any] | None:
    if not search.trials:
        return None
    names = list(TrialSettings.model_fields)
    whole = [(trial, trial.drop) for trial in search.trials if trial.drop is not None]
    lost = [(trial.id, drop) for trial, drop in whole]
    spread = [(trial.cost, drop, f"trial {trial.id}", trial.id in search.front) for trial, drop in whole]
    return {
        "settings": [name.replace("_", " ") for name in names],
        "rows": [
            {
                "id": trial.id,
                "settings": [plain(getattr(trial.settings, name)) for name in names],
                "quality": f"{trial.quality:.4f}" if trial.quality is not None else NOTHING,
                "drop": loss(trial.drop) if trial.drop is not None else NOTHING,
                "cost": f"{trial.cost:.2f}",
                "samples": trial.samples,
                "seconds": f"{trial.seconds:.1f}",
                "failure": trial.failure,
                "front": trial.id in search.front,
            }
            for trial in search.trials
        ],
        "chart": _both(charts.trials, lost, most, small=True) if lost else None,
        "front": _both(charts.front_of_trials, spread, most, small=True) if spread else None,
    }


def _sensitivity(layers: Sequence[LayerSensitivity]) -> list[dict[str, Any]]:
    """Return the most sensitive layers, with a bar as long as the error's share of the largest."""
    most = max((layer.error for layer in layers), default=0.0)
    return [
        {
            "layer": layer.layer,
            "kind": layer.op_type,
            "error": f"{layer.error:.2g}",
            "bar": charts.share_bar(layer.error / most if most > 0 else 0.0),
        }
        for layer in layers[:_SHOWN_LAYERS]
    ]


def _importance(shares: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return what the search learned: the share of each parameter in the forest's predictions, largest first."""
    return [
        {"name": name.replace("_", " "), "share": f"{share:.0%}", "bar": charts.share_bar(share)}
        for name, share in sorted(shares.items(), key=lambda item: -item[1])
        if share > 0
    ]


def _refinement(attempt: Attempt) -> dict[str, Any]:
    return {
        "candidate": attempt.candidate,
        "method": attempt.method.replace("_", "-"),
        "before": f"{attempt.quality_before:.4f}",
        "after": attempt.failure or f"{attempt.quality:.4f}",
        "outcome": "kept" if attempt.kept else "dropped",
    }


def _training(training: Training) -> dict[str, Any]:
    losses = [(point.step, point.loss) for point in training.history if point.loss is not None]
    drawn = (("loss", losses), ("quality", _qualities(training.history)))
    return {
        "needed": training.needed,
        "why": f"{training.why}{_compared(training.distillation)}",
        "curves": [charts.curve(points, name, *_HALF) for name, points in drawn if len(points) > 1],
    }


def _qualities(history: Sequence[TrainingPoint]) -> list[tuple[float, float]]:
    return [(point.step, point.quality) for point in history]


def _compared(parts: Sequence[ComparedPart]) -> str:
    """Tell which variables training compared with the teacher's, and by which loss, as a second sentence; empty where
    it did not train."""
    if not parts:
        return ""
    told = [
        f"{' and '.join(part.node)} by the loss `{part.loss}`"
        + ("" if part.alpha == 1 else f", weighed {part.alpha:g}")
        + (f", with teacher {part.teacher + 1}" if part.teacher else "")
        for part in parts
    ]
    return f". Compared with the teacher: {'; '.join(told)}"


def _pruning(pruning: Pruning, choice: Choice) -> dict[str, Any] | None:
    """Return what each pruning strategy did; None where nothing was pruned."""
    if pruning.parameters is None:
        return None
    curves = [(step.name, _qualities(step.history)) for step in pruning.steps]
    return {
        "steps": [
            {
                "name": step.name,
                "before": f"{step.quality_before:.4f}",
                "pruned": f"{step.quality_pruned:.4f}" if step.quality_pruned is not None else NOTHING,
                "after": f"{step.quality_after:.4f}",
                "why": f"{step.why}; {step.training}{_compared(step.distillation)}",
            }
            for step in pruning.steps
        ],
        "layers": [
            {
                "strategy": step.name,
                "name": layer.name,
                "kept": layer.kept,
                "of": layer.of,
                "bar": charts.share_bar(layer.kept / layer.of),
                "why": layer.why or layer.note or "",
            }
            for step in pruning.steps
            for layer in step.layers
        ],
        "curves": [charts.curve(points, f"quality, {name}", *_HALF) for name, points in curves if len(points) > 1],
        "before": f"{pruning.parameters.before / 1e6:.2f}",
        "after": f"{pruning.parameters.after / 1e6:.2f}",
        "sparse": _sparsity(list(pruning.sparse.values()), {step.name for step in pruning.steps}, choice.ran),
    }


def _sparsity(weights: Sequence[Sparsity], steps: set[str], ran: Sequence[RanVariant]) -> str:
    """Tell what zeros in single weights bring on each engine, as measured; empty where there are none."""
    if not weights:
        return ""
    share = sum(weight.zeros for weight in weights) / len(weights)
    pattern = next((f" in the pattern {weight.pattern}" for weight in weights if weight.pattern), "")
    told = f"On average {share:.0%} of the values of {len(weights)} weights are zero{pattern}."
    for row in ran:
        if row.name != "pruned" or row.speedup is None:
            continue
        fast, engine = factor(row.speedup.value), title_of(row.engine)
        if steps & {"ChannelPrune", "TransformerPrune"}:
            told += f" {engine}: {fast} as fast as fp32, with what was cut out before."
        elif row.speedup.low > _NO_FASTER:
            told += f" {engine}: {fast} as fast as fp32."
        else:
            told += f" They bring no speed on {engine} ({fast}), whose kernels multiply zeros as well."
    return told + " The files hold the zeros and are no smaller, unless they are compressed."


def _both(draw: Callable[..., Markup], *arguments: Any, small: bool = False) -> dict[str, Markup]:
    """Draw a chart for wide pages and for narrow ones."""
    wide, narrow = (_SMALL_WIDE, _SMALL_NARROW) if small else (_WIDE, _NARROW)
    return {"wide": draw(*arguments, *wide), "narrow": draw(*arguments, *narrow)}


def _outline(settings: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Return the settings as in params.yaml, without those that are not set."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name}:"
            yield from _outline(value, indent + "  ")
        elif isinstance(value, list):
            yield f"{indent}{name}: {', '.join(map(str, value))}"
        elif value is not None:
            yield f"{indent}{name}: {value}"


def _flatten(entries: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Return names and values for a table; what is nested stands under its own name."""
    for name, value in entries.items():
        if isinstance(value, Mapping):
            yield from _flatten(value)
        elif isinstance(value, list):
            yield name.replace("_", " "), ", ".join(map(str, value))
        elif name.endswith("_bytes") and isinstance(value, int):
            yield name.removesuffix("_bytes").replace("_", " "), size(value)
        else:
            yield name.replace("_", " "), str(value)
