"""`python -m act.reporting --job NAME`: pick the winner, fill `deploy/NAME`, write the report.

Reads what `benchmark` measured and what the other stages left; measures nothing. Writes the figures that DVC shows to
`artifacts/NAME/report` (`metrics.json`, `accuracy_latency.csv`, `trials.csv`, `training.csv`, `pruning.csv`), and the
user's result to `deploy/NAME`: the models, `manifest.json`, `report.html` and its twin for scripts, `report.json`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from act.artifacts import DEPLOY_ROOT, ROOT, read_json, replace_folder, stage_folder, write_json
from act.reporting import page, tables
from act.reporting.deploy import checksums, copy_models, how_to_load
from act.reporting.winner import Choice, choose, meets, title
from act.reporting.wording import milliseconds
from act.settings import Job
from act.timing.rows import read_rows
from tasks.stage import job_from_command_line

log = logging.getLogger(__name__)

REPORT_FILE = "report.html"
TWIN_FILE = "report.json"
MANIFEST_FILE = "manifest.json"


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("act.reporting", "Pick one job's winner, write its report.") as (name, job):
        _report(name, job)


def _report(name: str, job: Job) -> None:
    measurements = read_json(stage_folder(name, "benchmark") / "measurements.json")
    exported = stage_folder(name, "export")
    candidates = read_json(exported / "candidates.json")
    choice = choose(read_rows(measurements), job.budget)
    search = _optional(stage_folder(name, "ptq_search") / "trials.json")
    refined = _optional(stage_folder(name, "refine") / "refine.json")
    training = _optional(stage_folder(name, "qat") / "qat.json")
    pruning = _optional(stage_folder(name, "prune") / "prune.json")

    with replace_folder(stage_folder(name, "report")) as folder:
        write_json(folder / "metrics.json", tables.metrics(choice))
        tables.write_accuracy_latency(folder / "accuracy_latency.csv", choice)
        tables.write_trials(folder / "trials.csv", search.get("trials", []), search.get("front", []))
        tables.write_sensitivity(folder / "sensitivity.csv", search.get("sensitivity", []))
        tables.write_training(folder / "training.csv", training.get("history") or [])
        tables.write_pruning(folder / "pruning.csv", pruning.get("steps", []))

    with replace_folder(DEPLOY_ROOT / name) as folder:
        deployed = copy_models(exported, candidates, choice.winner, folder)
        inputs = page.Inputs(
            name=name,
            job=job,
            choice=choice,
            measurements=measurements,
            exported=candidates,
            deployed=deployed,
            files=checksums(folder),
            snippet=how_to_load(choice.winner, job.target.threads),
            search=search,
            refined=refined,
            training=training,
            pruning=pruning,
            analysis=_optional(stage_folder(name, "analyze") / "analysis.json"),
            strategy=_optional(stage_folder(name, "select") / "strategy.json"),
            options=_optional(stage_folder(name, "options") / "options.json"),
            stages=_optional(ROOT / "flow" / f"{name}.json").get("stages", []),
        )
        (folder / REPORT_FILE).write_text(page.render(inputs), encoding="utf-8")
        manifest = _manifest(name, job, choice, measurements, deployed, folder)
        write_json(folder / TWIN_FILE, _twin(inputs, manifest))
        write_json(folder / MANIFEST_FILE, {**manifest, "files": checksums(folder)})
    figures = choice.figures
    log.info(
        f"report: {title(choice.winner)} wins: {milliseconds(figures.median_ms)}, quality {figures.quality:.4f}"
        + (f", {figures.speedup.value:.2f} times as fast as fp32" if figures.speedup else "")
    )
    log.info(f"report: {choice.why}")
    log.info(f"report: {DEPLOY_ROOT / name / REPORT_FILE}")


def _twin(inputs: page.Inputs, manifest: dict[str, Any]) -> dict[str, Any]:
    """All that the page tells, for scripts: the manifest's content, and what the stages found."""
    found = {"search": inputs.search, "refined": inputs.refined, "training": inputs.training}
    found |= {"pruning": inputs.pruning}
    found |= {"analysis": inputs.analysis, "strategy": inputs.strategy, "options": inputs.options}
    return {
        **manifest,
        "left_in_float": {
            candidate["name"]: candidate["left_in_float"]
            for candidate in inputs.exported["candidates"]
            if "left_in_float" in candidate
        },
        **{key: {k: v for k, v in value.items() if k != "schema_version"} for key, value in found.items()},
        "stages": list(inputs.stages),
    }


def _manifest(
    name: str, job: Job, choice: Choice, measurements: dict[str, Any], deployed: str, folder: Path
) -> dict[str, Any]:
    row, figures = choice.winner, choice.figures
    verdicts = {verdict.row.key: verdict for verdict in choice.verdicts}
    return {
        "job": name,
        "measured_at": measurements.get("measured_at"),
        "winner": {
            "engine": row.engine,
            "engine_version": row.version,
            "name": row.name,
            "candidate": row.candidate,
            "precision": row.precision,
            "files": [file for file in checksums(folder) if file.startswith("winner/")],
            "latency_ms": figures.median_ms,
            "p90_ms": figures.p90_ms,
            "samples_per_second": figures.throughput.per_second if figures.throughput else None,
            "streams": figures.throughput.streams if figures.throughput else None,
            "peak_rss_bytes": figures.peak_rss_bytes,
            "load_seconds": figures.load_seconds,
            "fp32_latency_ms": choice.fp32.median_ms,
            "speedup": figures.speedup.to_json() if figures.speedup else None,
            "quality": figures.quality,
            "fp32_quality": choice.fp32.quality,
            "drop": figures.drop.to_json() if figures.drop else None,
            "how_to_load": how_to_load(row, job.target.threads),
        },
        "why": choice.why,
        "compressed": not row.is_reference,
        "budget": {
            **job.budget.model_dump(),
            "met": meets(figures, job.budget),
        },
        "deployed_candidate": deployed,
        "metric": job.metric,
        "settings": job.model_dump(mode="json"),
        "machine": measurements["machine"],
        "noise": measurements["noise"],
        "variants": [
            {**entry, "inside_budget": verdict.inside, "misses": list(verdict.misses)}
            for entry in measurements["variants"]
            if (verdict := verdicts[f"{entry['engine']}/{entry['name']}"])
        ],
    }


def _optional(path: Path) -> dict[str, Any]:
    """The content of a file that another stage may not have left."""
    return read_json(path) if path.exists() else {}


if __name__ == "__main__":
    main()
