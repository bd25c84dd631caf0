"""The end of a run: lines for the terminal, and artifacts where the user has a Prefect server.

Reads `deploy/JOB/manifest.json`, which the last stage writes; a job without one is shown as having no result yet.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_markdown_artifact

from act.artifacts import DEPLOY_ROOT
from act.errors import InputError
from act.reporting.winner import title
from act.results.report import JudgedVariant, Manifest, RefusedVariant
from flows.record import Record

_WINNER = "winner:   "


def manifest_of(job: str) -> Path:
    """Return where a job's manifest is."""
    return DEPLOY_ROOT / job / "manifest.json"


def lines(job: str, record: Record) -> list[str]:
    """Return what the terminal shows of one job: its stages, what was measured, the winner, and the files."""
    shown = ["", job, f"  {'stage':28} {'outcome':8} {'seconds':>8}"]
    for row in record.rows.values():
        seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
        shown.append(f"  {row.name:28} {row.outcome:8} {seconds:>8}".rstrip())
    with suppress(InputError):
        manifest = Manifest.read(manifest_of(job))
        header = f"  {'engine':17} {'variant':20} {'latency':>10} {'speed-up':>9} {'quality':>8}  inside the budget"
        shown += ["", header, *map(_variant, manifest.variants)]
        shown += ["", f"{_WINNER}{_winner(manifest)}", f"manifest: {manifest_of(job)}"]
    if (report := manifest_of(job).with_name("report.html")).exists():
        shown.append(f"report:   {report}")
    return shown


def publish(job: str, shown: Sequence[str]) -> None:
    """Show what the terminal shows of one job as artifacts on the Prefect server."""
    key = job.lower().replace("_", "-")
    winner = next((line.removeprefix(_WINNER) for line in shown if line.startswith(_WINNER)), "no result yet")
    create_markdown_artifact(
        key=f"compress-{key}",
        markdown="\n".join([f"# {job}", "", winner, "", "```", *shown, "```"]),
        description=f"the winner and the stages of the job {job}",
    )
    if (report := manifest_of(job).with_name("report.html")).exists():
        create_link_artifact(
            key=f"report-{key}",
            link=report.resolve().as_uri(),
            link_text=f"report of {job}",
            description=f"the report of the job {job}, on the machine that ran the flow",
        )


def _winner(manifest: Manifest) -> str:
    chosen = manifest.winner
    against = next((title(variant) for variant in manifest.variants if variant.is_reference), chosen.reference)
    speedup = "" if chosen.speedup is None else f"{chosen.speedup.value:.2f} times as fast as {against}, "
    return (
        f"{chosen.name} on {chosen.engine}: {chosen.latency_ms:.2f} ms, {speedup}"
        f"quality {chosen.quality:.4f} ({chosen.reference_quality:.4f} before)"
    )


def _variant(variant: JudgedVariant | RefusedVariant) -> str:
    label = f"  {variant.engine:17} {variant.name:20}"
    if isinstance(variant, RefusedVariant):
        return f"{label} {variant.failure.kind}: {variant.failure.cause}"
    speedup = "" if variant.speedup is None else f"{variant.speedup.value:.2f}x"
    inside = "yes" if variant.inside_budget else "no"
    latency, quality = variant.latency.median_ms, variant.quality.value
    return f"{label} {latency:7.2f} ms {speedup:>9} {quality:8.4f}  {inside}"
