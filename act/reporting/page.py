"""The report's content: what the page shows, in words and charts. The layout is `page.html.j2`.

The page is one file that asks for nothing from outside; the template escapes every text.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from act.engines.spec import title_of
from act.metrics import find
from act.reporting import analysis, charts, wording
from act.reporting.winner import Choice, title
from act.reporting.wording import between, factor, loss, milliseconds, size
from act.results.benchmark import RanVariant
from act.results.ptq_search import Trials, TrialSettings
from act.results.report import DeployedFile, Report
from act.results.training import Pruning, TrainingPoint
from act.settings import Budget, Job

_WIDE, _NARROW = (1000, 430), (380, 380)
_SMALL_WIDE, _SMALL_NARROW = (1000, 240), (380, 240)
_HALF = (476, 240)
_NO_FASTER = 1.03


def render(report: Report, job: Job, choice: Choice, files: Mapping[str, DeployedFile], evaluation_samples: int) -> str:
    """Return the whole page.

    Args:
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
    # What the templates call.
    for offered in (wording, charts, analysis):
        environment.globals.update(vars(offered))
    environment.globals.update(title=title, title_of=title_of)
    search, history, most = report.search, report.training.history, job.budget.max_quality_drop
    losses = [(point.step, point.loss) for point in history if point.loss is not None]
    return environment.get_template("page.html.j2").render(
        report=report,
        choice=choice,
        job=job,
        headline=_headline(choice, job.target.batch),
        tiles=_tiles(choice, job.budget),
        warnings=_warnings(report, choice, most),
        chart=_both(charts.accuracy_latency, choice, job.target.engines, most),
        int8_rows=[row for row in choice.ran if "int8" in row.precision and row.operators.share],
        kernels=_kernels(choice),
        metric=find(job.metric).title,
        samples=evaluation_samples,
        trial_charts=_trial_charts(search, most),
        setting_names=list(TrialSettings.model_fields),
        training_curves=_curves({"loss": losses, "quality": _qualities(history)}),
        pruning_curves=_curves({f"quality, {step.name}": _qualities(step.history) for step in report.pruning.steps}),
        sparse=_sparsity(report.pruning, choice.ran),
        model=analysis.model_parts(report.analysis),
        attempts={attempt.key: attempt for attempt in report.options.attempts}.values(),
        settings=yaml.safe_dump(
            job.model_dump(mode="json", exclude_none=True), sort_keys=False, default_flow_style=None
        ),
        machine={
            **report.machine.model_dump(exclude={"memory_bytes", "packages"}),
            "capabilities": ", ".join(report.machine.capabilities),
            "memory": size(report.machine.memory_bytes),
            **report.machine.packages,
        },
        files=files,
    )


def _headline(choice: Choice, batch: int) -> tuple[str, str]:
    """Return what won in a few words, and a sentence on it."""
    winner, quality = choice.winner, choice.winner.quality.value
    unit = "one inference" if batch == 1 else f"one inference of {batch} samples"
    start = f"{title(winner)}: {unit} takes {milliseconds(winner.latency.median_ms)}"
    if winner.is_reference:
        return "fp32 stays the fastest", f"{start} at a quality of {quality:.4f}."
    assert winner.speedup is not None and winner.drop is not None
    if abs(winner.drop.value) < 5e-5:
        moved = f"quality stays at {quality:.4f}"
    else:
        verb = "falls" if winner.drop.value > 0 else "rises"
        moved = f"quality {verb} from {choice.fp32.quality.value:.4f} to {quality:.4f}"
    before = milliseconds(choice.fp32.latency.median_ms)
    return f"{factor(winner.speedup.value)} as fast", f"{start} instead of {before}, and {moved}."


def _tiles(choice: Choice, budget: Budget) -> list[tuple[str, str, str, str]]:
    """Return the name of each figure of the winner, its value in fp32 where that differs, its value, and a note."""
    winner, fp32, latency = choice.winner, choice.fp32, choice.winner.latency
    moved = not winner.is_reference
    spread = f"{milliseconds(latency.p10_ms)} to {milliseconds(latency.p90_ms)}"
    before = milliseconds(fp32.latency.median_ms) if moved else ""
    tiles = [("Latency", before, milliseconds(latency.median_ms), f"median; 80 % of runs {spread}")]
    if winner.speedup is not None and moved:
        note = f"95 % interval {between(winner.speedup, 2)}, against fp32 on the same engine"
        tiles.append(("Speed-up", "", factor(winner.speedup.value), note))
    if winner.drop is not None:
        lost = f"{loss(winner.drop.value)} lost, 95 % interval {between(winner.drop, 4)}"
        note = f"{lost}; budget {budget.max_quality_drop:g}" if moved else "the reference"
        tiles.append(("Quality", f"{fp32.quality.value:.4f}" if moved else "", f"{winner.quality.value:.4f}", note))
    before = size(fp32.bytes) if winner.bytes != fp32.bytes else ""
    return [*tiles, ("Files", before, size(winner.bytes), f"{size(winner.peak_rss_bytes)} of memory at the peak")]


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
    rows = sorted(by_kind.items(), key=lambda row: -max(sum(group.ms for group in side) for side in row[1]))
    return {"engine": fp32.engine, "other": other.name, "rows": rows, "all": sides}


def _trial_charts(search: Trials, most: float) -> list[dict[str, Markup]]:
    """Draw the loss of each trial, in order and over its cost; nothing where no trial gave a model."""
    lost = [(trial, trial.drop) for trial in search.trials if trial.drop is not None]
    if not lost:
        return []
    best, _ = min(lost, key=lambda each: each[1])
    in_order = [(trial.id, drop, f"trial {trial.id}") for trial, drop in lost]
    over_cost = [(trial.cost, drop, f"trial {trial.id}") for trial, drop in lost]
    return [
        _both(charts.trials, in_order, [f"trial {best.id}"], most, False, small=True),
        _both(charts.trials, over_cost, [f"trial {number}" for number in search.front], most, True, small=True),
    ]


def _qualities(history: Sequence[TrainingPoint]) -> list[tuple[int, float]]:
    return [(point.step, point.quality) for point in history]


def _curves(drawn: Mapping[str, Sequence[tuple[int, float]]]) -> list[Markup]:
    return [charts.curve(points, name, *_HALF) for name, points in drawn.items() if len(points) > 1]


def _sparsity(pruning: Pruning, ran: Sequence[RanVariant]) -> str:
    """Tell what zeros in single weights bring on each engine, as measured; empty where there are none."""
    weights, steps = list(pruning.sparse.values()), {step.name for step in pruning.steps}
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
