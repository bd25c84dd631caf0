"""Engines that misbehave in every way that the real ones were seen to, and one that behaves."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from act.engines.base import Engine, Runner, RuntimePrecision
from act.samples.dataset import Array


class Doubles(Engine):
    """Gives back each input doubled."""

    name = "fake"

    def version(self) -> str:
        return "1"

    def precisions(self) -> tuple[RuntimePrecision, ...]:
        return ("fp32",)

    def load(self, path: Path, precision: RuntimePrecision, threads: int) -> None:
        print("noise on stdout", flush=True)
        print("noise on stderr", file=sys.stderr, flush=True)

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        return [np.asarray(2 * feed) for feed in feeds.values()]

    def streams(self, count: int) -> list[Runner]:
        return [self.run] * count

    def describe(self) -> dict[str, Any]:
        return {"threads_variable": os.environ["OMP_NUM_THREADS"]}


class Aborts(Doubles):
    """Crashes in native code, with a last word."""

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        print("illegal instruction in kernel 7", file=sys.stderr, flush=True)
        os.abort()


class Int8Doubles(Doubles):
    """Takes quantized models, too."""

    def precisions(self) -> tuple[RuntimePrecision, ...]:
        return ("fp32", "int8")


class Int8Aborts(Int8Doubles, Aborts):
    """Takes quantized models, and crashes."""


class AbortsOnce(Doubles):
    """Crashes at the first try only, as for want of memory."""

    def load(self, path: Path, precision: RuntimePrecision, threads: int) -> None:
        tried = Path(os.environ["FAKE_ENGINE_TRIED"])
        if not tried.exists():
            tried.touch()
            os.abort()


class Exits(Doubles):
    """A library that ends the process when it is displeased."""

    def load(self, path: Path, precision: RuntimePrecision, threads: int) -> None:
        os._exit(3)


class Hangs(Doubles):
    """Never comes back, and has started a process that does not either."""

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        child = subprocess.Popen(["sleep", "600"])
        Path(os.environ["FAKE_ENGINE_PIDS"]).write_text(f"{os.getpid()} {child.pid}")
        time.sleep(600)
        return []


class GivesNan(Doubles):
    """Computes nonsense."""

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        return [np.full_like(feed, np.nan) for feed in feeds.values()]
