"""`python -m tasks.machine`: note which machine this is, as an artefact that stages with timings depend on.

DVC always runs it, and it takes a moment; on the same machine it writes the same bytes, so that nothing after it is
done again. It also gives a file of attempts to each job that has none, because `select` depends on it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from act import machine
from act.artifacts import ROOT
from act.errors import InputError, exit_on_input_error
from act.results.machine import TimedOn
from act.settings import DEFAULT_PATH, load
from act.strategy import attempts

PATH = ROOT / "machine.json"


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(prog="python -m tasks.machine", description="Note which machine this is.")
    parser.add_argument("--params", type=Path, default=DEFAULT_PATH, help="the settings (default: %(default)s)")
    arguments = parser.parse_args()
    with exit_on_input_error():
        jobs = load(arguments.params).jobs
    PATH.parent.mkdir(parents=True, exist_ok=True)
    TimedOn(**machine.identity()).write(PATH)
    attempts.make_files(jobs)


def is_noted(root: Path) -> bool:
    """Tell whether the artefact of a checkout is of this machine."""
    try:
        return TimedOn.read(root / PATH) == TimedOn(**machine.identity())
    except InputError:
        return False


if __name__ == "__main__":
    main()
