"""How a stage starts: `python -m tasks.STAGE --job NAME` gives it the settings of one job."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from act.errors import exit_on_input_error
from act.paddleslim import refuse_lagging
from act.settings import DEFAULT_PATH, Job, load_job


@contextmanager
def job_from_command_line(module: str, description: str) -> Iterator[tuple[str, Job]]:
    """Give the name and the settings of the job that the command line names.

    Wrong input, on the command line or inside the block, ends the process with one line on stderr and exit code 2.

    Args:
        module: what stands after `python -m`.
        description: one line for `--help`.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--job", required=True, help=f"a job in {DEFAULT_PATH}")
    parser.add_argument("--params", type=Path, default=DEFAULT_PATH, help="the settings (default: %(default)s)")
    arguments = parser.parse_args()
    with exit_on_input_error():
        job = load_job(arguments.job, arguments.params)
        refuse_lagging(arguments.job, job)
        yield arguments.job, job
