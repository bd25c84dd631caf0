"""Runs the flow of `flows.compress` on a schedule: `python -m flows.serve --cron '0 3 * * *'`.

It registers a deployment with the user's Prefect server and stays, to start each run when it is due; Ctrl-C pauses the
schedule and ends it. A run that falls due while the last one is still at work is cancelled.
"""

# Prefect and DVC read their settings when they are imported.
# ruff: noqa: E402
from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from flows import environment

environment.prepare()

from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.schedules import Cron
from pydantic import ValidationError

from act.errors import InputError, exit_on_input_error
from act.params import load
from flows.compress import DEFAULT_LIMIT, check, compress
from flows.server import is_reachable

DEPLOYMENT = "scheduled"
EXAMPLE_ADDRESS = "http://127.0.0.1:4200/api"


def serve(cron: str, timezone: str, jobs: Sequence[str], limit: int) -> None:
    """Run the flow whenever `cron` says so, until stopped.

    Args:
        cron: five fields, as in crontab.
        timezone: an IANA name in which `cron` is meant, like `Europe/Berlin`.
        jobs: names under `jobs` in params.yaml; none means all that stand there now.
        limit: how many stages may run at the same time.

    Raises:
        InputError: there is no server, the schedule is not one, or a job cannot start.
    """
    address = _server()
    try:
        CronSchedule(cron=cron, timezone=timezone)
    except ValidationError as error:
        reasons = "; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())
        raise InputError(
            f"--cron {cron!r} --timezone {timezone!r}: {reasons}; an example: --cron '0 3 * * *'"
        ) from None
    if limit < 1:
        raise InputError("--limit must be at least 1")
    params = load()
    jobs = list(jobs) or list(params.jobs)
    check(params, jobs)
    print(f"serving compress/{DEPLOYMENT} of {', '.join(jobs)} at {cron!r} ({timezone}) against {address}", flush=True)
    compress.serve(
        name=DEPLOYMENT,
        schedule=Cron(cron, timezone=timezone),
        parameters={"jobs": jobs, "limit": limit},
        global_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        print_starting_message=False,
    )


def _server() -> str:
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        raise InputError(
            "PREFECT_API_URL is not set, and a schedule needs a Prefect server: run `prefect server start`, "
            f"and here `export PREFECT_API_URL={EXAMPLE_ADDRESS}`"
        )
    if not is_reachable(address):
        raise InputError(
            f"PREFECT_API_URL is {address!r}, where no Prefect server answers: start it with `prefect server start`"
        )
    return address


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m flows.serve", description="Run the flow on a schedule.")
    parser.add_argument("--cron", required=True, help="when, as in crontab: '0 3 * * *' is three in the morning")
    parser.add_argument("--timezone", default="UTC", help="in which --cron is meant (default: %(default)s)")
    parser.add_argument("--job", action="append", default=[], help="a job in params.yaml, repeatable (default: all)")
    parser.add_argument(
        "--limit", type=int, default=DEFAULT_LIMIT, help="stages at the same time (default: %(default)s)"
    )
    arguments = parser.parse_args()
    with exit_on_input_error():
        serve(arguments.cron, arguments.timezone, arguments.job, arguments.limit)


if __name__ == "__main__":
    main()
