"""The process that an engine runs in: takes commands over a connection and answers each, in JSON.

Started by `EngineProcess` as `python -m act.engines.worker MODULE:CLASS DESCRIPTOR`. It dies with its parent (the
connection closes) and, should native code hang while nobody is left to kill it, by an alarm that the kernel delivers.
It is imported by the engines' own interpreters, too: NumPy and CPython 3.10 must do.
"""

import json
import math
import os
import pkgutil
import queue
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from act.engines.base import Engine, ExecutedKernel, Runner, RuntimePrecision
from act.engines.process import EngineFailure, LoadInfo, WarmUp
from act.errors import InputError
from act.metrics import Choice, Quality, Scorer, scorer
from act.samples.dataset import Array, Ragged, Samples

# Latency is steady when the medians of two windows of runs in a row differ by less than this share. A window is a
# quarter of all runs so far, so that models of microseconds are not called steady within microseconds.
_STEADY = 0.03
_FEWEST_IN_WINDOW = 5
_FEWEST_WARM_UP_RUNS = 2 * _FEWEST_IN_WINDOW
_SHORTEST_WARM_UP_SECONDS = 0.1
# Runs of each stream before throughput is counted.
_STREAM_WARM_UP_RUNS = 3
# Batches kept ready for timing; more would only push the model out of the CPU's caches.
_TIMED_BATCHES = 16
_ALARM_SLACK_SECONDS = 30


class Worker:
    """Carries out commands on one engine; each public method is a command and returns JSON values."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._engine: Engine | None = None
        self._timed: dict[tuple[str, int], list[dict[str, Array]]] = {}
        self._streams: list[Runner] = []
        self._scoring: _Scoring | None = None

    def offer(self) -> tuple[str, list[str]]:
        engine = self._create()
        return engine.version(), list(engine.precisions())

    def load(self, path: str, precision: RuntimePrecision, threads: int, optimised: bool = True) -> dict[str, Any]:
        # Of the model before, if there was one.
        self._engine, self._streams, self._timed, self._scoring = None, [], {}, None
        engine = self._create()
        offered = engine.precisions()
        if precision not in offered:
            raise EngineFailure.unsupported(precision, offered)
        if not Path(path).exists():
            raise EngineFailure("error", f"{path}: no such file or folder")
        started = time.perf_counter()
        if optimised:
            engine.load(Path(path), precision, threads)
        else:
            engine.load_unoptimised(Path(path), threads)
        seconds, self._engine = time.perf_counter() - started, engine
        return vars(LoadInfo(engine.version(), list(offered), seconds, self.peak_rss_bytes(), engine.describe()))

    def _create(self) -> Engine:
        try:
            engine: Engine = pkgutil.resolve_name(self._location)()
        except ImportError as error:
            raise EngineFailure("missing", f"the engine cannot be imported: {error}") from error
        if (lacking := engine.lacks()) is not None:
            raise EngineFailure("missing", lacking)
        return engine

    def warm_up(self, samples: str, batch: int, seconds: float) -> dict[str, Any]:
        batches = self._batches(samples, batch)
        started = time.perf_counter()
        outputs = self._loaded.run(batches[0])
        first = time.perf_counter() - started
        for output in outputs:
            _check_finite(output, 0)
        taken: list[float] = []
        steady = False
        while not steady and (len(taken) < _FEWEST_WARM_UP_RUNS or time.perf_counter() - started < seconds):
            taken.append(self._run_timed(batches[len(taken) % len(batches)]))
            steady = sum(taken) >= min(seconds, _SHORTEST_WARM_UP_SECONDS) and _is_steady(taken)
        return vars(WarmUp(len(taken) + 1, time.perf_counter() - started, first, steady))

    def time(self, samples: str, batch: int, runs: int) -> list[float]:
        batches = self._batches(samples, batch)
        # The first run after others had the machine meets cold caches, which is their doing.
        self._run_timed(batches[0])
        return [self._run_timed(batches[run % len(batches)]) for run in range(runs)]

    def throughput(self, samples: str, batch: int, streams: int, seconds: float) -> float:
        feeds = self._batches(samples, batch)
        if len(self._streams) != streams:
            self._streams = self._loaded.streams(streams)
            if not self._streams:
                raise EngineFailure("unsupported", "this engine cannot run several streams")
            # One after the other: OpenVINO's Python binding deadlocks when its very first two inferences begin together
            # (one waits for the interpreter's lock, with it the other for what the first is initialising).
            for run in self._streams:
                run(feeds[0])
            self._run_streams(feeds, batch, 0.0)
        return self._run_streams(feeds, batch, seconds)

    def _run_streams(self, feeds: list[dict[str, Array]], batch: int, seconds: float) -> float:
        """Return the samples a second that all streams together do, each at least a few runs."""

        def keep_running(run: Runner, first: int) -> float:
            runs, started = 0, time.perf_counter()
            while runs < _STREAM_WARM_UP_RUNS or time.perf_counter() - started < seconds:
                run(feeds[(first + runs) % len(feeds)])
                runs += 1
            return runs * batch / (time.perf_counter() - started)

        with ThreadPoolExecutor(len(self._streams)) as pool:
            return sum(pool.map(keep_running, self._streams, range(len(self._streams))))

    def quality(
        self, samples: str, metric: Choice, reference: str | None, count: int | None, batch: int, whole: list[int]
    ) -> dict[str, Any]:
        asked = (samples, metric, reference, batch, whole)
        # Not kept where it fails: the outputs would end there.
        scoring, self._scoring = self._scoring, None
        if scoring is None or not scoring.goes_on(asked, count):
            data = _load_samples(samples)
            scores = scorer(metric, data, _load_samples(reference) if reference is not None else None)
            scoring = _Scoring(asked, scores, self._outputs(data, 1 if whole else batch, whole))
        quality = scoring.scores.of_model(self._loaded.run) or scoring.quality(count)
        self._scoring = scoring
        return {name: getattr(quality, name) for name in ("value", "statistics", "beside", "notes")}

    def outputs(self, samples: str, count: int | None, batch: int, folder: str) -> None:
        found = self._outputs(_load_samples(samples, count), batch)
        rows = [[output.copy() for output in outputs] for outputs in found]
        Samples({str(place): Ragged.of(column) for place, column in enumerate(zip(*rows))}).save(Path(folder))

    def tensors(self, samples: str, folder: str) -> int:
        found = self._loaded.run(next(_load_samples(samples).batches(1)))
        Path(folder).mkdir()
        for index, tensor in enumerate(found):
            np.save(Path(folder) / f"{index}.npy", tensor, allow_pickle=False)
        return len(found)

    def profile(self, samples: str, batch: int, runs: int) -> list[dict[str, Any]]:
        return self._loaded.profile(self._batches(samples, batch)[0], runs)

    def operators(self) -> dict[str, Any]:
        return self._loaded.operators()

    def kernels(self) -> list[ExecutedKernel]:
        return self._loaded.kernels()

    def peak_rss_bytes(self) -> int:
        # `getrusage` counts the parent's memory too, from before the worker replaced its image.
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)

    @property
    def _loaded(self) -> Engine:
        if self._engine is None:
            raise EngineFailure("error", "no model is loaded")
        return self._engine

    def _run_timed(self, feeds: dict[str, Array]) -> float:
        engine, started = self._loaded, time.perf_counter()
        engine.run(feeds)
        return time.perf_counter() - started

    def _outputs(self, samples: Samples, batch: int, whole: Collection[int] = ()) -> Iterator[list[Array]]:
        """Yield the outputs of each sample in order, without the batch axis, which those numbered in `whole` lack."""
        index = 0
        for feeds in samples.batches(batch):
            size = len(next(iter(feeds.values())))
            outputs = self._loaded.run(feeds)
            for number, output in enumerate(outputs):
                if number not in whole and (output.ndim == 0 or len(output) != size):
                    raise EngineFailure("wrong_output", f"an output of shape {[*output.shape]} for a batch of {size}")
                _check_finite(output, index)
            for row in range(size):
                yield [output if number in whole else output[row] for number, output in enumerate(outputs)]
            index += size

    def _batches(self, samples: str, batch: int) -> list[dict[str, Array]]:
        key = (samples, batch)
        if key not in self._timed:
            batches = islice(_load_samples(samples).batches(batch), _TIMED_BATCHES)
            # A feed that has fewer samples is filled up by repetition.
            self._timed[key] = [
                {name: np.ascontiguousarray(np.resize(feed, (batch, *feed.shape[1:]))) for name, feed in feeds.items()}
                for feeds in batches
            ]
            if not self._timed[key]:
                raise EngineFailure("error", f"{samples}: no samples")
        return self._timed[key]


@dataclass
class _Scoring:
    """The quality of a loaded model so far: what is asked for on more samples goes on behind those that were run."""

    asked: tuple[Any, ...]  # all but the number of samples
    scores: Scorer
    _outputs: Iterator[list[Array]]

    def goes_on(self, asked: tuple[Any, ...], count: int | None) -> bool:
        """Tell whether a question is of the same, on as many samples as were run or more."""
        return self.asked == asked and (count is None or count >= self.scores.index)

    def quality(self, count: int | None) -> Quality:
        for outputs in islice(self._outputs, None if count is None else count - self.scores.index):
            self.scores.add(outputs)
        return self.scores.quality()


def _is_steady(taken: list[float]) -> bool:
    window = max(_FEWEST_IN_WINDOW, len(taken) // 4)
    last, before = taken[-window:], taken[-2 * window : -window]
    return len(taken) >= 2 * window and bool(abs(np.median(last) / np.median(before) - 1) < _STEADY)


def _load_samples(folder: str, count: int | None = None) -> Samples:
    samples = Samples.load(Path(folder))
    return samples if count is None else samples.head(count)


def _check_finite(output: Array, index: int) -> None:
    if np.issubdtype(output.dtype, np.floating) and not np.isfinite(output).all():
        raise EngineFailure("wrong_output", f"NaN or infinity in the output for sample {index}")


def _read_commands(connection: Connection, commands: queue.Queue[bytes]) -> None:
    """Pass commands on; end the whole process group at once when the parent closes the connection or dies."""
    with suppress(EOFError, OSError):
        while True:
            commands.put(connection.recv_bytes())
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def main() -> None:
    worker = Worker(sys.argv[1])
    connection = Connection(int(sys.argv[2]))
    os.set_inheritable(connection.fileno(), False)
    # Killed from outside, and not by the terminal's Ctrl-C: the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    commands: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_read_commands, args=(connection, commands), daemon=True).start()
    while True:
        message = json.loads(commands.get())
        signal.alarm(math.ceil(message["seconds_left"]) + _ALARM_SLACK_SECONDS)
        try:
            reply = {"result": getattr(worker, message["command"])(**message["arguments"])}
        except EngineFailure as failure:
            reply = {"failure": (failure.kind, failure.cause)}
        except InputError as error:
            reply = {"failure": ("error", str(error))}
        except Exception as error:  # engines raise what they like, and all of it is a row
            reply = {"failure": ("error", f"{type(error).__name__}: {error}")}
        signal.alarm(0)
        connection.send_bytes(json.dumps(reply).encode())


if __name__ == "__main__":
    main()
