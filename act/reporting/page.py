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
from act.reporting.winner import Choice, called, title
from act.reporting.wording import size
from act.results.ptq_search import Trials, TrialSettings
from act.results.report import DeployedFile, Report
from act.results.training import TrainingPoint
from act.settings import Job

_WIDE, _NARROW = (1000, 430), (380, 380)
_SMALL_WIDE, _SMALL_NARROW = (1000, 240), (380, 240)
_HALF = (476, 240)


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
    environment.globals.update(title=title, called=called, title_of=title_of)
    search, history, most = report.search, report.training.history, job.budget.max_quality_drop
    losses = [(point.step, point.loss) for point in history if point.loss is not None]
    return environment.get_template("page.html.j2").render(
        report=report,
        choice=choice,
        job=job,
        chart=_both(charts.accuracy_latency, choice, job.target.engines, most),
        int8_rows=[row for row in choice.ran if "int8" in row.precision and row.operators.share],
        kernels=_kernels(choice),
        metric=find(job.metric).title,
        samples=evaluation_samples,
        trial_charts=_trial_charts(search, most),
        setting_names=list(TrialSettings.model_fields),
        training_curves=_curves({"loss": losses, "quality": _qualities(history)}),
        pruning_curves=_curves({f"quality, {step.name}": _qualities(step.history) for step in report.pruning.steps}),
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


def _kernels(choice: Choice) -> dict[str, Any] | None:
    """Tell where the time of an inference goes: fp32 beside the winner, or beside the fastest int8 where that won."""
    other = choice.winner
    fp32 = next((row for row in choice.ran if row.engine == other.engine and row.name == "fp32"), choice.reference)
    if other.is_reference or other is fp32:
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


def _both(draw: Callable[..., Markup], *arguments: Any, small: bool = False) -> dict[str, Markup]:
    """Draw a chart for wide pages and for narrow ones."""
    wide, narrow = (_SMALL_WIDE, _SMALL_NARROW) if small else (_WIDE, _NARROW)
    return {"wide": draw(*arguments, *wide), "narrow": draw(*arguments, *narrow)}
