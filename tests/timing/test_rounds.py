"""The rounds are fair, what fails in them stays where it belongs, and a noisy machine is noticed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, cast

import pytest

from act.engines import EngineFailure, EngineProcess, WarmUp
from act.engines.quiet import PATIENCE
from act.engines.worker import _is_steady
from act.settings import Timing
from act.timing import quiet, rounds
from act.timing.quiet import Watch, verdict
from act.timing.rounds import Measured, Running, Workload, time_in_rounds

WARM = WarmUp(runs=20, seconds=0.1, first_seconds=0.01, steady=True)


class Process:
    """Stands for an engine process: answers at once, and tells a list what it was asked."""

    pid = 1

    def __init__(self, name: str, told: list[tuple[str, str]], refuses: dict[str, EngineFailure]) -> None:
        self.name, self.told, self.refuses, self.closed = name, told, refuses, False

    def _asked(self, what: str) -> None:
        self.told.append((what, self.name))
        if what in self.refuses:
            raise self.refuses[what]

    def warm_up(self, samples: Path, batch: int) -> WarmUp:
        self._asked(f"warm up {samples}")
        return WARM

    def time(self, samples: Path, batch: int, runs: int, first: int) -> list[float]:
        self._asked(f"time {samples} from {first}")
        return [0.01] * runs

    def quickest(self, samples: Path, batch: int) -> list[float]:
        return [0.01, 0.01]

    def throughput(self, samples: Path, batch: int, streams: int, seconds: float) -> float:
        self._asked(f"{streams} streams")
        return 100.0

    def peak_rss_bytes(self) -> int:
        return 1000

    def operators(self) -> dict[str, Any]:
        self._asked("operators")
        return {"multiplying": {"int8": {"Conv": 1}}}

    def profile(self, samples: Path, batch: int) -> list[dict[str, Any]]:
        self._asked("profile")
        kernels = [("Conv", "u8", 0.001), ("Reorder", "f32", 0.0004), ("Conv", "u8", 0.002), ("Conv", "f32", 0.004)]
        return [{"kind": kind, "precision": precision, "seconds": each} for kind, precision, each in kernels]

    def close(self) -> None:
        self.closed = True


def take_turns(
    names: str, shapes: int = 1, streams: int = 1, **refuses: dict[str, EngineFailure]
) -> tuple[list[Measured], list[tuple[str, str]]]:
    told: list[tuple[str, str]] = []
    everything = [
        Running(
            Measured([Workload(Path(str(shape)), {"x": [1, shape + 1]}) for shape in range(shapes)]),
            cast(EngineProcess, Process(name, told, refuses.get(name, {}))),
        )
        for name in names
    ]
    settings = Timing(rounds=6, runs_per_round=2, streams=streams)
    time_in_rounds(everything, {"a": everything[0].measured}, 1, 1, settings, lambda done: None)
    return [running.measured for running in everything], told


def test_every_round_has_everyone_once_on_the_same_samples_in_an_order_of_its_own() -> None:
    measured, told = take_turns("abcde")
    orders = []
    for number in range(6):
        asked = [name for what, name in told if what == f"time 0 from {2 * number}"]
        assert sorted(asked) == list("abcde")
        orders.append("".join(asked))
    assert len(set(orders)) > 3
    timed = [what for what, _ in told if what.startswith("time")]
    assert timed == [f"time 0 from {2 * number}" for number in range(6) for _ in range(5)]
    assert all(one.main.rounds == [[0.01, 0.01]] * 6 and one.peak_rss_bytes == 1000 for one in measured)


def test_what_was_disturbed_is_timed_anew_behind_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """`b` is disturbed in two rounds, and in one of them once more; `c` is in one, and `d` crashes when asked again."""
    taken = {
        ("b", 2): iter([0.02]),
        ("b", 6): iter([0.03, 0.04]),
        ("c", 4): iter([0.02]),
        ("d", 4): iter([0.02, None]),
        ("d", 8): iter([0.02]),
    }

    def seconds(process: Process, samples: Path, batch: int, runs: int, first: int) -> list[float]:
        process._asked(f"time {samples} from {first}")
        each = next(taken.get((process.name, first), iter(())), 0.01)
        if each is None:
            raise EngineFailure("crash", "ended by SIGSEGV")
        return [each] * runs

    monkeypatch.setattr(Process, "time", seconds)
    monkeypatch.setenv(PATIENCE, "1")
    (one, two, three, four), told = take_turns("abcd")
    behind = [each for each in told if each[0].startswith("time")][4 * 6 :]
    assert behind == [("time 0 from 2", "b"), ("time 0 from 6", "b"), ("time 0 from 4", "d")], "five are enough"
    assert one.main.rounds == [[0.01] * 2] * 6 and one.main.counting == [0, 1, 2, 3, 4, 5]
    assert two.main.rounds == [[0.01] * 2] * 3 + [[0.03] * 2] + [[0.01] * 2] * 2
    # What was disturbed does not count.
    assert two.main.counting == [0, 1, 2, 4, 5]
    assert three.main.counting == [0, 1, 3, 4, 5] and three.main.seconds.tolist() == [[0.01] * 2] * 5
    assert four.failure is not None and four.failure.kind == "crash"
    entry = rounds.to_json(three, one, 1, seed=0)
    assert entry["latency"]["runs"] == 10 and entry["speedup"]["value"] == 1
    # No more than the user's patience.
    taken |= {("b", 2): iter([0.02]), ("b", 6): iter([0.03]), ("d", 4): iter([0.02]), ("d", 8): iter([0.02])}
    monkeypatch.setenv(PATIENCE, "0")
    (_, two, _, four), told = take_turns("abcd")
    assert len([what for what, _ in told if what.startswith("time")]) == 4 * 6
    assert two.main.counting == [0, 1, 2, 4, 5], "the least disturbed, where fewer than five were not disturbed"
    assert four.failure is None


def test_a_refused_shape_is_missing_alone_and_the_first_fails_the_row() -> None:
    refusal = EngineFailure("error", "the axis is fixed")
    (one, two), told = take_turns("ab", shapes=2, a={"warm up 1": refusal}, b={"warm up 0": refusal})
    assert one.failure is None and one.workloads[1].failure is refusal and two.failure is refusal
    assert ("time 1 from 0", "a") not in told and ("time 0 from 0", "b") not in told
    entry = rounds.to_json(one, one, 1, seed=0)
    assert [shape["inputs"] for shape in entry["shapes"]] == [{"x": [1, 1]}, {"x": [1, 2]}]
    assert entry["shapes"][0]["speedup"]["value"] == 1 and entry["shapes"][1]["failure"]["cause"] == "the axis is fixed"
    assert entry["throughput"] is None
    assert rounds.to_json(two, one, 1, seed=0)["failure"] == {"kind": "error", "cause": "the axis is fixed"}


def test_a_crash_ends_a_row_and_one_in_the_streams_costs_only_the_throughput() -> None:
    crash = EngineFailure("crash", "ended by SIGSEGV")
    (one, two, three), told = take_turns("abc", streams=4, a={"time 0 from 4": crash}, b={"4 streams": crash})
    assert one.failure is crash and ("time 0 from 6", "a") not in told
    assert two.failure is None and two.streams_failure is crash and ("4 streams", "a") not in told
    assert rounds.to_json(two, None, 4, seed=0)["throughput"]["failure"]["cause"] == "ended by SIGSEGV"
    assert rounds.to_json(two, None, 4, seed=0)["operators"]["multiplying"] == {"int8": {"Conv": 1}}
    throughput = rounds.to_json(three, None, 4, seed=0)["throughput"]
    assert (throughput["streams"], throughput["per_second"], len(three.streams)) == (4, 100, 3)


def test_kernels_are_added_up_by_kind_and_precision_and_a_refusal_leaves_none() -> None:
    (one, two), _ = take_turns("ab", b={"profile": EngineFailure("crash", "gone")})
    groups = [(each["kind"], each["precision"], each["count"]) for each in one.kernels]
    assert groups == [("Conv", "f32", 1), ("Conv", "u8", 2), ("Reorder", "f32", 1)]
    assert [each["ms"] for each in one.kernels] == pytest.approx([4, 3, 0.4])
    assert two.kernels == [] and two.failure is None


def test_steady_is_when_two_windows_agree_and_windows_grow() -> None:
    assert _is_steady([1.0] * 10) and not _is_steady([2.0] * 5 + [1.0] * 5)
    # The last ten runs agree by themselves, but half of the last quarter of all is slower.
    creeping = [1.0 + 0.001 * run for run in range(400)]
    assert not _is_steady(creeping) and _is_steady(creeping[-10:])


def test_processor_time_of_others_is_what_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, used = iter([100.0, 130.0]), {7: 1.0}
    monkeypatch.setattr(quiet, "_busy_seconds", lambda: next(busy))
    monkeypatch.setattr(quiet, "_used_seconds", used.get)
    monkeypatch.setattr(time, "process_time", lambda: 5.0)
    clock = iter([0.0, 20.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    watch = Watch()
    watch.next_round([7])
    watch.time_reference()
    used[7] = 11.0
    watch.next_round([7])
    watch.time_reference()
    del used[7]  # a worker that died keeps what it had used until then
    seen = watch.end([7], {"openvino": [[1.0], [1.0]]})
    assert seen["cores_used_by_others"] == pytest.approx((30 - 10) / 20)
    assert seen["noisy"] and "used 1.00 of its" in seen["cause"]
    assert seen["by_engine"] == {"openvino": 0} and seen["reference"]["runs"] == 20


def test_this_very_process_is_seen_to_work() -> None:
    before = quiet._used_seconds(os.getpid()), quiet._busy_seconds()
    sum(range(10_000_000))
    after = quiet._used_seconds(os.getpid()), quiet._busy_seconds()
    assert before[0] is not None and after[0] is not None and after[0] > before[0]
    assert before[1] is not None and after[1] is not None and after[1] > before[1]
    assert quiet._used_seconds(2**22 + 1) is None


def test_each_sign_of_noise_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert verdict(0.02, 0.05, 0.03) == {"noisy": False, "cause": None}
    assert verdict(0.02, 0.05, None)["noisy"] is False
    signs: Any = [(0.3, 0, 0, "took up to 30% longer"), (0, 0.2, 0, "moved by 20%"), (0, 0, 0.5, "used 0.50 of its")]
    for work, models, others, words in signs:
        assert words in verdict(work, models, others)["cause"]
