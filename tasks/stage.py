"""How a stage starts: `python -m tasks.STAGE --job NAME` gives it the settings of one job."""

import argparse
import logging
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from act.artifacts import fingerprint, stage_folder
from act.errors import exit_on_input_error
from act.settings import DEFAULT_PATH, Job, load_job

# What the stage's own code says; libraries keep the logging that they have. A stage's entry runs as `__main__`.
_LOGGERS = ("__main__", "tasks", "act")
CHECKOUT = Path(__file__).parents[1]


@contextmanager
def job_from_command_line(module: str, description: str) -> Iterator[tuple[str, Job]]:
    """Give the name and the settings of the job that the command line names, and print what is logged meanwhile.

    Wrong input, on the command line or inside the block, ends the process with one line on stderr and exit code 2.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--job", required=True, help=f"a job in {DEFAULT_PATH}")
    parser.add_argument("--params", type=Path, default=DEFAULT_PATH, help="the settings (default: %(default)s)")
    parser.add_argument("-v", "--verbose", action="store_true", help="say more")
    parser.add_argument("-q", "--quiet", action="store_true", help="say only what is wrong")
    arguments = parser.parse_args()
    level = logging.DEBUG if arguments.verbose else logging.WARNING if arguments.quiet else logging.INFO
    with log_to_stdout(level), exit_on_input_error():
        yield arguments.job, load_job(arguments.job, arguments.params)


@contextmanager
def log_to_stdout(level: int, loggers: Iterable[str] = _LOGGERS) -> Iterator[None]:
    """Print the messages of loggers, by default those of `act` and `tasks`, from a level on, each as it stands.

    They go nowhere else: Paddle puts a handler of its own on the root logger.
    """
    handler = logging.StreamHandler(sys.stdout)
    with ExitStack() as stack:
        for logger in map(logging.getLogger, loggers):
            stack.callback(logger.setLevel, logger.level)
            stack.callback(logger.removeHandler, handler)
            stack.callback(setattr, logger, "propagate", logger.propagate)
            logger.setLevel(level)
            logger.addHandler(handler)
            logger.propagate = False
        yield


def described_stages() -> dict[str, dict[str, Any]]:
    """Return what `dvc.yaml` says of each stage, each after those that it needs."""
    described = yaml.safe_load((CHECKOUT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return {name: stage["do"] for name, stage in described.items()}


def code_of(stage: str) -> list[Path]:
    """Return the folders and files of code that make a stage's result, as `dvc.yaml` lists them."""
    return [CHECKOUT / dep for dep in described_stages()[stage]["deps"] if dep.startswith(("act/", "tasks/"))]


def checkpoint_folder(job: str, stage: str, settings: Any, inputs: Iterable[Path], tidy: bool = True) -> Path:
    """Return where a stage's unfinished work is kept: the name stands for its settings, its inputs and its code.

    A tidy stage removes what is left of work on other inputs.
    """
    place = stage_folder(job, stage).parent / f".{stage}_checkpoint"
    folder = place / fingerprint(settings, inputs, code_of(stage))
    for other in place.glob("*"):
        if tidy and other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return folder
