"""`python -m tasks.report --job NAME`: pick the winner, fill `deploy/NAME`, write the report.

Reads what `benchmark` measured and what the other stages left; measures nothing. Writes the figures that DVC shows to
`artifacts/NAME/report` (`metrics.json`, `accuracy_latency.csv`, `trials.csv`, `sensitivity.csv`, `training.csv`,
`pruning.csv`), and the user's result to `deploy/NAME`: the models, `manifest.json`, `report.html` and its twin for
scripts, `report.json`.
"""

import logging

from act.artifacts import DEPLOY_ROOT, ROOT, replace_folder, stage_folder
from act.reporting import page
from act.reporting.deploy import checksums, copy_models, gather, manifest_of
from act.reporting.tables import write_tables
from act.reporting.winner import choose, title
from act.reporting.wording import milliseconds
from act.results.benchmark import Measurements
from act.results.export import ExportedCandidates
from act.settings import Job
from tasks.stage import job_from_command_line

log = logging.getLogger(__name__)


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.report", "Pick one job's winner, write its report.") as (name, job):
        _report(name, job)


def _report(name: str, job: Job) -> None:
    measurements = Measurements.read(stage_folder(name, "benchmark") / "measurements.json")
    exported = stage_folder(name, "export")
    candidates = ExportedCandidates.read(exported / "candidates.json")
    choice = choose(measurements.variants, job.budget)
    with replace_folder(DEPLOY_ROOT / name) as folder:
        deployed = copy_models(exported, candidates, choice, folder)
        files = checksums(folder)
        report = gather(name, job, ROOT / name, choice, measurements, candidates, deployed, files)
        html = page.render(report, job, choice, files, measurements.evaluation_samples)
        (folder / "report.html").write_text(html, encoding="utf-8")
        report.write(folder / "report.json")
        manifest_of(report, checksums(folder)).write(folder / "manifest.json")
        with replace_folder(stage_folder(name, "report")) as for_dvc:
            write_tables(for_dvc, choice, report)
    winner = choice.winner
    log.info(
        f"report: {title(winner)} wins: {milliseconds(winner.latency.median_ms)}, quality {winner.quality.value:.4f}"
        + (f", {winner.speedup.value:.2f} times as fast as {title(choice.reference)}" if winner.speedup else "")
    )
    log.info(f"report: {choice.why}")
    log.info(f"report: {DEPLOY_ROOT / name / 'report.html'}")


if __name__ == "__main__":
    main()
