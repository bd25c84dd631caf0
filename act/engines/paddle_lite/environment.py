"""Paddle Lite's environment: made on request, apart from ours, because its wheels stop at CPython 3.10.

`python -m act.engines.paddle_lite.environment` (or `make lite`) makes `.venv-lite` in the checkout from
`requirements-lite.lock`. This module is imported inside that environment too, so it needs nothing but Python itself.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
from itertools import chain
from pathlib import Path

from act.errors import InputError, exit_on_input_error

ROOT = Path(__file__).resolve().parents[3]
LOCK = ROOT / "requirements-lite.lock"
# Names another folder for the environment, so that several checkouts can share one.
VARIABLE = "ACT_LITE_ENVIRONMENT"
CURE = "`make lite` makes it, `make LITE_PYTHON=/path/to/python3.10 lite` from an interpreter that is named"

_STAMP = "installed-from"
_LOG = "installation.log"
# What `python3.10` on the path may be a shim for, and where uv keeps the interpreters that it installs.
_ELSEWHERE = (
    ".pyenv/versions/3.10.*/bin/python3.10",
    ".local/share/uv/python/cpython-3.10.*-linux-x86_64-gnu/bin/python3.10",
)
_FITS = (
    "import platform, sys, venv, ensurepip; "
    "sys.exit((platform.python_implementation(), *sys.version_info[:2]) != ('CPython', 3, 10))"
)
_PIP_OPTIONS = ("--no-deps", "--require-hashes", "--no-input", "--disable-pip-version-check")
_PROBE_SECONDS = 60
_INSTALL_SECONDS = 1800


def folder() -> Path:
    """Return where the environment is, or would be."""
    return Path(os.environ.get(VARIABLE) or ROOT / ".venv-lite")


def python() -> Path | None:
    """Return the interpreter of the environment, or None where it is not there or not whole."""
    interpreter = folder() / "bin" / "python"
    try:
        whole = (folder() / _STAMP).read_text(encoding="utf-8") == _checksum()
    except OSError:
        return None
    return interpreter if whole and os.access(interpreter, os.X_OK) else None


def lacks() -> str | None:
    """Return what is missing to run Paddle Lite here, with the cure; None where nothing is."""
    if python() is not None:
        return None
    if (folder() / _STAMP).exists():
        return f"Paddle Lite's environment is not of this {LOCK.name}: {CURE}"
    return f"Paddle Lite's environment is not there (its wheels need a CPython 3.10): {CURE}"


def make(named: str | None = None) -> Path:
    """Make the environment from a CPython 3.10, the named one or one found, unless it is whole; return its interpreter.

    `InputError` where there is no CPython 3.10, or installing failed.
    """
    if (ready := python()) is not None:
        return ready
    source, target = find_interpreter(named), folder()
    print(f"making {target} with {source} from {LOCK.name} (about a minute, 300 MB)", flush=True)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    interpreter, log = str(target / "bin" / "python"), target / _LOG
    for command in (
        [source, "-m", "venv", str(target)],
        # The lock is complete: nothing is resolved again, and nothing is installed that it does not name.
        [interpreter, "-m", "pip", "install", *_PIP_OPTIONS, "-r", str(LOCK)],
        [interpreter, "-c", "import numpy, paddlelite.lite"],
    ):
        try:
            with log.open("a", encoding="utf-8") as file:
                subprocess.run(command, stdout=file, stderr=file, timeout=_INSTALL_SECONDS, check=True)
        except subprocess.CalledProcessError:
            raise InputError(f"{target} cannot be made: {_last_words(log)}; the whole log is {log}") from None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InputError(f"{target} cannot be made: {error}") from None
    (target / _STAMP).write_text(_checksum(), encoding="utf-8")
    return Path(interpreter)


def find_interpreter(named: str | None = None) -> str:
    """Return a CPython 3.10 that runs and has `venv` and `ensurepip`: the named one, or the first that is found."""
    on_path = [shutil.which("python3.10", path=each) for each in os.get_exec_path()]
    elsewhere = [sorted(map(str, Path.home().glob(pattern)), reverse=True) for pattern in _ELSEWHERE]
    candidates = [named] if named is not None else [*filter(None, on_path), *chain(*elsewhere)]
    if (found := next(filter(_fits, candidates), None)) is not None:
        return found
    looked_at = ", ".join(candidates) or "no `python3.10` on the path"
    raise InputError(
        f"Paddle Lite needs a CPython 3.10 with the modules venv and ensurepip, and none that runs was found "
        f"({looked_at}): install one, and name it if need be: make LITE_PYTHON=/path/to/python3.10 lite"
    )


def _fits(candidate: str) -> bool:
    # The names of shims exist even where the interpreter does not: only one that runs counts.
    try:
        return subprocess.run([candidate, "-c", _FITS], capture_output=True, timeout=_PROBE_SECONDS).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _checksum() -> str:
    return hashlib.sha256(LOCK.read_bytes()).hexdigest()


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR") or "Error" in line]
    return (errors or lines or ["it did not say why"])[-1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m act.engines.paddle_lite.environment", description="Make Paddle Lite's own environment."
    )
    parser.add_argument("--python", help="a CPython 3.10 to make it from (default: one is looked for)")
    with exit_on_input_error():
        print(f"Paddle Lite's environment: {make(parser.parse_args().python).parents[1]}")
