"""Runs the flow of `flows.compress` on a schedule: `python -m flows.serve --cron '0 3 * * *'`.

It registers a deployment with the user's Prefect server and stays, to start each run when it is due; Ctrl-C or
SIGTERM pauses the schedule and ends it, with the run that is at work. A run that falls due while the last one is still
at work is cancelled.
"""

# Prefect and DVC read their settings when they are imported.
# ruff: noqa: E402
import argparse
import asyncio
import multiprocessing
import os
import signal
from collections.abc import Sequence
from typing import Any

from flows import environment

environment.prepare()

from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.runner import Runner
from prefect.schedules import Cron
from pydantic import ValidationError

from act.errors import InputError, exit_on_input_error
from flows.check_jobs import check_jobs
from flows.compress import add_run_options, choose_cluster, compress
from tasks.ptq_search.server import refuse_unreachable

DEPLOYMENT = "scheduled"


class _Runner(Runner):
    """Ends on SIGTERM as it does on Ctrl-C: what Prefect does there itself leaves the schedule active."""

    def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
        """Interrupt the flow runs, as a terminal would, and this process."""
        for run in multiprocessing.active_children():
            if run.pid is not None:
                os.kill(run.pid, signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def serve(cron: str, timezone: str, jobs: Sequence[str] | None, limit: int) -> None:
    """Run the flow whenever `cron` says so, until stopped.

    Raises:
        InputError: there is no server, the schedule is not one, or a job cannot start.
    """
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        raise InputError(
            "PREFECT_API_URL is not set, and a schedule needs a Prefect server: run `prefect server start`, "
            "and here `export PREFECT_API_URL=http://127.0.0.1:4200/api`"
        )
    refuse_unreachable(address)
    try:
        CronSchedule(cron=cron, timezone=timezone)
    except ValidationError as error:
        reasons = "; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())
        given = f"--cron {cron!r} --timezone {timezone!r}"
        raise InputError(f"{given}: {reasons}; an example: --cron '0 3 * * *'") from None
    jobs = check_jobs(jobs, limit)
    print(f"serving compress/{DEPLOYMENT} of {', '.join(jobs)} at {cron!r} ({timezone}) against {address}", flush=True)
    # A shell that starts it in the background has SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    runner = _Runner(name=DEPLOYMENT)
    runner.add_flow(
        compress,
        name=DEPLOYMENT,
        schedule=Cron(cron, timezone=timezone),
        parameters={"jobs": jobs, "limit": limit},
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
    )
    try:
        asyncio.run(runner.start())
    except KeyboardInterrupt:
        print("stopped; the schedule is paused", flush=True)


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m flows.serve", description="Run the flow on a schedule.")
    parser.add_argument("--cron", required=True, help="when, as in crontab: '0 3 * * *' is three in the morning")
    parser.add_argument("--timezone", default="UTC", help="of --cron, such as Europe/Berlin (default: %(default)s)")
    parser.add_argument("--job", action="append", help="a job in params.yaml, repeatable (default: all)")
    add_run_options(parser)
    arguments = parser.parse_args()
    with exit_on_input_error():
        # The runs are child processes, and so find it in their environment.
        choose_cluster(arguments.trials_on)
        serve(arguments.cron, arguments.timezone, arguments.job, arguments.limit)


if __name__ == "__main__":
    main()
