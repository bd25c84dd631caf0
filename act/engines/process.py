"""An inference engine in a process of its own, so that its crash or time-out is a result and not an end.

The worker (`act/engines/worker.py`) takes commands and answers them over a connection, each a JSON object; whatever
native libraries print goes to a file, whose tail explains a crash. The worker leads a process group that is killed as a
whole, and it ends by itself when the connection closes, which is what happens when its parent dies.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, final

import numpy as np

import act
from act.engines.base import ExecutedKernel, RuntimePrecision
from act.engines.spec import spec_of
from act.metrics import Quality, find
from act.samples.dataset import Array, Ragged, Samples

if TYPE_CHECKING:  # the worker imports this too, maybe where there is no pydantic
    from act.settings import Metric

# missing: the engine is not installed; unsupported: it lacks the precision here; error: it refused, with its message;
# wrong_output: it answered with NaN or infinity; crash: its process died; timeout: it was killed at its time limit.
FailureKind = Literal["missing", "unsupported", "error", "wrong_output", "crash", "timeout"]

_POLL_SECONDS = 0.5
_CHECK_SECONDS = 600  # to load a file and run a few samples
_LONGEST_CAUSE = 300
_STDERR_TAIL_BYTES = 8192
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class EngineFailure(Exception):
    """An engine did not do what was asked, and why: a sort of failure, and one line for a table."""

    def __init__(self, kind: FailureKind, cause: str) -> None:
        self.kind, self.cause = kind, one_line(cause)
        super().__init__(f"{kind}: {self.cause}")

    @classmethod
    def unsupported(cls, precision: str, offered: Sequence[str]) -> EngineFailure:
        """Return the failure of an engine that lacks a precision here."""
        return cls("unsupported", f"no {precision} here; this engine offers {', '.join(offered)}")


@dataclass(frozen=True)
class LoadInfo:
    """What is known of an engine once it has loaded a model."""

    version: str
    precisions: list[str]  # that it offers on this machine
    load_seconds: float  # from the files to ready, without importing the library
    peak_rss_bytes: int  # of the worker so far
    description: dict[str, Any]  # what the engine says it did with the model


@dataclass(frozen=True)
class WarmUp:
    """How a model came to a steady latency."""

    runs: int
    seconds: float
    first_seconds: float  # of the very first run, in which engines compile or allocate what they put off until then
    steady: bool  # before the time was up


@final
class EngineProcess:
    """One engine with one model in a process of its own; a context manager.

    Every method may raise `EngineFailure`; after a crash or a time-out the process is gone and every further call
    raises the same failure. `samples` is a folder that `Samples.save` wrote, `batch` the number of samples in each run.

    Args:
        path: a `.onnx` file, or a folder with `model.pdmodel` and `model.pdiparams`, as the engine reads.
        threads: that one inference may use.
        time_limit_seconds: how long all calls together may take; waiting between calls is free.
    """

    def __init__(
        self, engine: str, path: Path, precision: RuntimePrecision, threads: int = 1, time_limit_seconds: float = 300.0
    ) -> None:
        self.engine, self.path, self.precision, self.threads = engine, path, precision, threads
        self.time_limit_seconds = self._left_seconds = time_limit_seconds
        self._opened = ExitStack()
        self._connection: Connection | None = None
        self._failure: EngineFailure | None = None

    def __enter__(self) -> EngineProcess:
        spec = spec_of(self.engine)
        # The worker must find this very `act`, from whatever folder it is started.
        root = str(Path(act.__file__).resolve().parent.parent)
        environment = {
            **os.environ,
            **dict.fromkeys(_THREAD_VARIABLES, str(self.threads)),
            "GLOG_minloglevel": "2",
            "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        }
        with ExitStack() as stack:
            self._log = stack.enter_context(tempfile.TemporaryFile())
            self._connection, theirs = Pipe()
            stack.callback(self._connection.close)
            with theirs:
                self._process = subprocess.Popen(
                    [spec.python(), "-m", "act.engines.worker", spec.runtime, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=self._log,
                    stderr=self._log,
                    pass_fds=(theirs.fileno(),),
                    env=environment,
                    start_new_session=True,
                )
            stack.callback(self._kill)
            self._opened = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process and everything that it started; may be called twice."""
        self._opened.close()

    @property
    def pid(self) -> int:
        """Return the number of the process that runs the engine."""
        return self._process.pid

    @property
    def is_gone(self) -> bool:
        """Tell whether the process has crashed or taken too long."""
        return self._failure is not None

    def load(
        self, path: Path | None = None, precision: RuntimePrecision | None = None, optimised: bool = True
    ) -> LoadInfo:
        """Import the engine and load the model, or another one in the place of the one before.

        Args:
            optimised: as the library makes it fast; else as it is written, as far as the engine can, which is in fp32.
        """
        self.path, self.precision = path or self.path, precision or self.precision
        arguments = {"precision": self.precision, "threads": self.threads, "optimised": optimised}
        return LoadInfo(**self._call("load", path=self.path, **arguments))

    def renew(self, seconds: float | None = None) -> None:
        """Let the calls to come take so long together, None: as long as a new process's; one that is gone stays so."""
        self._left_seconds = self.time_limit_seconds if seconds is None else seconds

    def offer(self) -> tuple[str, list[RuntimePrecision]]:
        """Return the version of the engine's library and the precisions that it has here; needs no model."""
        version, precisions = self._call("offer")
        return version, precisions

    def warm_up(self, samples: Path, batch: int, seconds: float = 3.0) -> WarmUp:
        """Run until the latency is steady, at most about `seconds`."""
        return WarmUp(**self._call("warm_up", samples=samples, batch=batch, seconds=seconds))

    def time(self, samples: Path, batch: int, runs: int) -> list[float]:
        """Return the seconds of single inferences, from NumPy to NumPy, after one that is not counted.

        They run over the same first batches in each call; one with too few samples of a shape is filled up.
        """
        return self._call("time", samples=samples, batch=batch, runs=runs)

    def throughput(self, samples: Path, batch: int, streams: int, seconds: float) -> float:
        """Return the samples a second that several streams together do, each an inference after the other.

        The streams stay open afterwards, so that it can be asked again, and hold their memory.
        """
        return self._call("throughput", samples=samples, batch=batch, streams=streams, seconds=seconds)

    def quality(
        self,
        samples: Path,
        metric: Metric,
        reference: Path | None = None,
        count: int | None = None,
        batch: int = 1,
        whole: Sequence[int] = (),
    ) -> Quality:
        """Measure the quality on all samples or the first `count`; the outputs never leave the worker.

        Asked again on more samples, the model runs on those alone that it has not been run on yet.

        Args:
            reference: a folder of samples whose feeds are the fp32 model's outputs in order, for `similarity`.
            whole: numbers of the outputs without a batch axis; where there are any, the samples run one at a time.
        """
        arguments = {"samples": samples, "metric": metric, "reference": reference, "count": count, "batch": batch}
        return Quality(**self._call("quality", **arguments, whole=list(whole)), kind=find(metric))

    def outputs(self, samples: Path, count: int | None = None, batch: int = 1) -> list[Ragged]:
        """Return each output on all samples or the first `count`, with one array a sample (no batch axis)."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "outputs"
            self._call("outputs", samples=samples, count=count, batch=batch, folder=folder)
            return [Ragged(feed.flat.copy(), feed.shapes) for feed in Samples.load(folder).feeds.values()]

    def tensors(self, samples: Path) -> list[Array]:
        """Return the outputs of a run on the first sample as they are, whatever their axes mean."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "tensors"
            count = self._call("tensors", samples=samples, folder=folder)
            return [np.load(folder / f"{index}.npy", allow_pickle=False) for index in range(count)]

    def profile(self, samples: Path, batch: int, runs: int = 20) -> list[dict[str, Any]]:
        """Return the time of each kernel, as `Engine.profile` gives it, on the first batch of the samples."""
        return self._call("profile", samples=samples, batch=batch, runs=runs)

    def operators(self) -> dict[str, dict[str, Any]]:
        """Return what the engine executes, as `Engine.operators` gives it; may take memory of the worker."""
        return self._call("operators")

    def kernels(self) -> list[ExecutedKernel]:
        """Return every kernel with what it stands for, as `Engine.kernels` gives it; may take memory of the worker."""
        kernels = self._call("kernels")
        if not all(isinstance(kernel, (list, tuple)) for kernel in kernels):
            raise EngineFailure("error", "the engine's `kernels` must give `ExecutedKernel`s")
        return [ExecutedKernel(*kernel) for kernel in kernels]

    def peak_rss_bytes(self) -> int:
        """Return the largest resident memory of the worker so far."""
        return self._call("peak_rss_bytes")

    def _call(self, command: str, **arguments: Any) -> Any:
        """Have the worker carry out a command; paths become absolute ones."""
        if self._failure is not None:
            raise self._failure
        if self._connection is None:
            raise RuntimeError("EngineProcess is used as a context manager: `with EngineProcess(...) as engine:`")
        if self._left_seconds <= 0:
            self._time_out()
        started = time.monotonic()
        message = {"command": command, "seconds_left": self._left_seconds, "arguments": arguments}
        try:
            self._connection.send_bytes(json.dumps(message, default=lambda path: str(path.resolve())).encode())
            reply = json.loads(self._receive(self._connection, started + self._left_seconds))
        except (EOFError, ConnectionError):
            self._fail("crash", self._crash_cause())
        self._left_seconds -= time.monotonic() - started
        if "failure" in reply:
            raise EngineFailure(*reply["failure"])
        return reply["result"]

    def _receive(self, connection: Connection, deadline: float) -> bytes:
        while not connection.poll(min(max(0.0, deadline - time.monotonic()), _POLL_SECONDS)):
            if self._process.poll() is not None:
                # A child of the dead worker may still hold its end, so that no end of file arrives.
                raise EOFError
            if time.monotonic() >= deadline:
                self._time_out()
        return connection.recv_bytes()

    def _time_out(self) -> NoReturn:
        self._fail("timeout", f"not done within its time limit of {self.time_limit_seconds:g} s")

    def _fail(self, kind: FailureKind, cause: str) -> NoReturn:
        self._kill()
        self._failure = EngineFailure(kind, cause)
        raise self._failure

    def _crash_cause(self) -> str:
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "the process stopped answering"
        if code == -signal.SIGALRM:
            self._time_out()
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - _STDERR_TAIL_BYTES))
        return cause_of_death(code, self._log.read())

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@final
class Int8Engines:
    """Runs int8 files on their engines, each engine in a process that is kept for its next file; a context manager."""

    def __init__(self) -> None:
        self._processes: dict[str, EngineProcess] = {}

    def __enter__(self) -> Int8Engines:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes.values():
            process.close()

    def outputs(self, engine: str, path: Path, samples: Path) -> list[Ragged] | None:
        """Return each output of a file on all samples; None where the engine is not here or does not run it."""
        process = self._processes.get(engine)
        if process is None:
            process = self._processes[engine] = EngineProcess(engine, path, "int8", 1, _CHECK_SECONDS).__enter__()
        try:
            process.renew()
            process.load(path)
            return process.outputs(samples)
        except EngineFailure:
            # It may have died: the next file gets a new one.
            self._processes.pop(engine).close()
            return None


def one_line(text: str) -> str:
    """Return a message without line breaks, short enough for a table."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_CAUSE else f"{line[: _LONGEST_CAUSE - 3]}..."


def cause_of_death(code: int, output: bytes) -> str:
    """Say how a process ended, and the last line with words in it that it printed."""
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    lines = output.decode(errors="replace").splitlines()
    last = next((line for line in reversed(lines) if any(map(str.isalpha, line))), "")
    return f"{how}: {last}" if last else how
