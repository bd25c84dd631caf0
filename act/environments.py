"""Environments apart from ours, for packages that cannot live beside Paddle 2.6: each made on request, by one command.

`python -m act.environments NAME` (or `make NAME`) makes `.venv-NAME` in the checkout from `requirements-NAME.lock`.
This module is imported inside those environments too, so it needs nothing but Python itself.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from act.errors import InputError, exit_on_input_error

ROOT = Path(__file__).resolve().parents[1]

_STAMP = "installed-from"
_LOG = "installation.log"
# What `pythonX.Y` on the path may be a shim for, and where uv keeps the interpreters that it installs.
_ELSEWHERE = (
    ".pyenv/versions/{0}.*/bin/python{0}",
    ".local/share/uv/python/cpython-{0}.*-linux-x86_64-gnu/bin/python{0}",
)
_FITS = (
    "import platform, sys, venv, ensurepip; "
    "sys.exit(platform.python_implementation() != 'CPython' or '%d.%d' % sys.version_info[:2] not in sys.argv[1:])"
)
_PIP_OPTIONS = ("--no-deps", "--require-hashes", "--no-input", "--disable-pip-version-check")
_PROBE_SECONDS = 60
_INSTALL_SECONDS = 1800


@dataclass(frozen=True)
class Environment:
    """A Python environment of its own, made from a lock that names every package with its hashes.

    Attributes:
        name: what `make` calls it.
        title: for people.
        pythons: the versions of CPython that its packages have wheels for, the best first.
        imports: modules that must import for it to count as made.
        size: of the installation, for people.
    """

    name: str
    title: str
    pythons: tuple[str, ...]
    imports: tuple[str, ...]
    size: str

    @property
    def lock(self) -> Path:
        """Return the file that names its packages."""
        return ROOT / f"requirements-{self.name}.lock"

    @property
    def variable(self) -> str:
        """Return the variable that may name another folder for it, so that several checkouts can share one."""
        return f"ACT_{self.name.upper()}_ENVIRONMENT"

    @property
    def cure(self) -> str:
        """Return what to do where it is not there."""
        named = f"{self._makefile_variable}=/path/to/python{self.pythons[0]}"
        return f"`make {self.name}` makes it, `make {named} {self.name}` from an interpreter that is named"

    def folder(self) -> Path:
        """Return where it is, or would be."""
        return Path(os.environ.get(self.variable) or ROOT / f".venv-{self.name}")

    def python(self) -> Path | None:
        """Return its interpreter, or None where it is not there or not whole."""
        interpreter = self.folder() / "bin" / "python"
        try:
            whole = (self.folder() / _STAMP).read_text(encoding="utf-8") == self.checksum()
        except OSError:
            return None
        return interpreter if whole and os.access(interpreter, os.X_OK) else None

    def lacks(self) -> str | None:
        """Return what is missing to use it, with the cure; None where nothing is."""
        if self.python() is not None:
            return None
        if (self.folder() / _STAMP).exists():
            return f"{self.title}'s environment is not of this {self.lock.name}: {self.cure}"
        return f"{self.title}'s environment is not there (it needs a CPython {self._versions}): {self.cure}"

    def make(self, named: str | None = None) -> Path:
        """Make it from a CPython that fits, the named one or one found, unless it is whole; return its interpreter.

        Raises:
            InputError: there is no CPython that fits, or installing failed.
        """
        if (ready := self.python()) is not None:
            return ready
        source, target = self.find_interpreter(named), self.folder()
        print(f"making {target} with {source} from {self.lock.name} ({self.size})", flush=True)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        interpreter, log = str(target / "bin" / "python"), target / _LOG
        for command in (
            [source, "-m", "venv", str(target)],
            # The lock is complete: nothing is resolved again, and nothing is installed that it does not name.
            [interpreter, "-m", "pip", "install", *_PIP_OPTIONS, "-r", str(self.lock)],
            [interpreter, "-c", f"import {', '.join(self.imports)}"],
        ):
            try:
                with log.open("a", encoding="utf-8") as file:
                    subprocess.run(command, stdout=file, stderr=file, timeout=_INSTALL_SECONDS, check=True)
            except subprocess.CalledProcessError:
                raise InputError(f"{target} cannot be made: {_last_words(log)}; the whole log is {log}") from None
            except (OSError, subprocess.TimeoutExpired) as error:
                raise InputError(f"{target} cannot be made: {error}") from None
        (target / _STAMP).write_text(self.checksum(), encoding="utf-8")
        return Path(interpreter)

    def find_interpreter(self, named: str | None = None) -> str:
        """Return a fitting CPython that runs and has `venv` and `ensurepip`: the named one, or the first found."""
        candidates = [named] if named is not None else list(self._candidates())
        if (found := next(filter(self._fits, candidates), None)) is not None:
            return found
        looked_at = ", ".join(candidates) or f"no `python{self.pythons[0]}` on the path"
        raise InputError(
            f"{self.title} needs a CPython {self._versions} with the modules venv and ensurepip, and none that runs "
            f"was found ({looked_at}): install one, and name it if need be: "
            f"make {self._makefile_variable}=/path/to/python{self.pythons[0]} {self.name}"
        )

    def checksum(self) -> str:
        """Return the digest of the lock, which tells an environment of this lock from others."""
        return hashlib.sha256(self.lock.read_bytes()).hexdigest()

    @property
    def _makefile_variable(self) -> str:
        return f"{self.name.upper()}_PYTHON"

    @property
    def _versions(self) -> str:
        return " or ".join(self.pythons)

    def _candidates(self) -> Iterator[str]:
        if "{}.{}".format(*sys.version_info[:2]) in self.pythons:
            yield sys.executable
        for version in self.pythons:
            yield from filter(None, (shutil.which(f"python{version}", path=each) for each in os.get_exec_path()))
        for pattern in _ELSEWHERE:
            for version in self.pythons:
                yield from sorted(map(str, Path.home().glob(pattern.format(version))), reverse=True)

    def _fits(self, candidate: str) -> bool:
        # The names of shims exist even where the interpreter does not: only one that runs counts.
        command = [candidate, "-c", _FITS, *self.pythons]
        try:
            return subprocess.run(command, capture_output=True, timeout=_PROBE_SECONDS).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False


LITE = Environment("lite", "Paddle Lite", ("3.10",), ("numpy", "paddlelite.lite"), "about a minute, 300 MB")
TENSORFLOW = Environment(
    "tensorflow", "TensorFlow", ("3.11", "3.12", "3.10"), ("keras", "tensorflow", "tf2onnx"), "two minutes, 1.4 GB"
)
PYTORCH = Environment(
    "pytorch", "PyTorch", ("3.11", "3.12", "3.10"), ("onnxscript", "torch", "torchvision"), "2.6 GB to download"
)
PADDLE3 = Environment("paddle3", "Paddle 3", ("3.11", "3.12", "3.10"), ("numpy", "paddle"), "about two minutes, 900 MB")
ENVIRONMENTS = {each.name: each for each in (LITE, TENSORFLOW, PYTORCH, PADDLE3)}


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR") or "Error" in line]
    return (errors or lines or ["it did not say why"])[-1]


def main() -> None:
    """Parse the command line and make the environment that it names."""
    parser = argparse.ArgumentParser(prog="python -m act.environments", description="Make an environment of its own.")
    parser.add_argument("name", choices=ENVIRONMENTS)
    parser.add_argument("--python", help="a CPython to make it from (default: one that fits is looked for)")
    arguments = parser.parse_args()
    environment = ENVIRONMENTS[arguments.name]
    with exit_on_input_error():
        environment.make(arguments.python)
        print(f"{environment.title}'s environment: {environment.folder()}")


if __name__ == "__main__":
    main()
