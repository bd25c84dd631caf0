"""Measuring a latency table: the networks that are drawn, and a profile that is gone on with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from act.errors import InputError
from act.program.blocks import FEED, build
from act.strategy.latency.model import Measured
from act.strategy.latency.table import Table
from act.strategy.profile.__main__ import SEED, profile
from act.strategy.profile.networks import (
    FAMILIES,
    ROUND,
    Network,
    draw,
    family_of,
    family_weights,
    planned_networks,
)
from tests.support.commands import run_module
from tests.support.latency import convolution, rule


def test_the_same_numbers_draw_the_same_networks() -> None:
    assert draw(5, 0) == draw(5, 0)
    assert len({draw(number, 0).name for number in range(20)}) == 20
    assert draw(5, 0) != draw(5, 1)


def test_a_kind_of_block_can_be_drawn_more_often() -> None:
    def share(weights: dict[str, float] | None) -> float:
        kinds = [block["kind"] for number in range(60) for block in draw(number, 0, weights).blocks]
        return kinds.count("shuffle") / len(kinds)

    often = dict.fromkeys(FAMILIES, 0.2) | {"shuffle": 5.0}
    assert share(often) > 2 * share(None) > 0


def test_drawn_networks_run_with_any_batch() -> None:
    kinds = set()
    for number in (0, 15, 26, 38):
        network = draw(number, 0)
        network = Network(network.name, (1, 3, *[min(64, side) for side in network.shape[2:]]), network.blocks)
        model = build(network.shape, network.blocks)
        values = np.random.default_rng(0).normal(size=(2, *network.shape[1:])).astype(np.float32)
        whole, half = model.run({FEED: values})[0], model.run({FEED: values[:1]})[0]
        assert whole.shape == (2, *half.shape[1:]) and np.isfinite(whole).all()
        np.testing.assert_allclose(whole[:1], half, rtol=1e-3, atol=1e-4)
        kinds |= {family_of(block) for block in network.blocks}
        model.discard()
    assert {"encoder", "inverted", "inception", "dense", "shuffle", "grouped", "map", "sequence", "up"} <= kinds


def test_what_was_predicted_worst_is_drawn_more_often() -> None:
    measured: dict[str, list[Measured]] = {}
    drawn = []
    for network in planned_networks(ROUND + 1, 3, measured):
        drawn.append(network)
        kernel = convolution(32, 32, 14)
        # Whatever holds a network's `shuffle` takes a time that no rule tells.
        odd = any(block["kind"] == "shuffle" for block in network.blocks)
        seconds = rule(kernel) * (1 + 9 * odd * (len(drawn) % 3))
        measured[network.name] = [Measured(network.name, seconds, [(kernel, rule(kernel))])]
    weights = family_weights(drawn[:ROUND], measured)
    assert weights["shuffle"] > 1.2 * float(np.mean(list(weights.values())))  # others stand beside it
    assert drawn[ROUND] == draw(ROUND, 3, weights)


def test_a_profile_goes_on_and_never_measures_twice(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    table = profile("onnxruntime", path, [1], ["fp32"], 1, 600)
    assert [row.key for row in table.rows] == [(f"drawn {SEED}/0", "fp32", 1)]
    first = path.read_bytes()
    assert profile("onnxruntime", path, [1], ["fp32"], 1, 600).rows
    assert path.read_bytes() == first
    more = profile("onnxruntime", path, [1], ["fp32", "int8"], 2, 600)
    assert [row.key for row in more.rows] == [
        (f"drawn {SEED}/0", "fp32", 1),
        (f"drawn {SEED}/0", "int8", 1),
        (f"drawn {SEED}/1", "fp32", 1),
        (f"drawn {SEED}/1", "int8", 1),
    ]
    assert path.read_bytes().startswith(first.split(b"\n")[0])
    read = Table.read(path)
    for row in read.rows:
        kernels = [kernel for kernel, _ in row.measured.kernels]
        assert row.failure is None and row.measured.seconds > 0 and any(kernel.multiplies for kernel in kernels)
        integers = [kernel for kernel in kernels if kernel.computes_in == "int8" and kernel.multiplies]
        assert bool(integers) == (row.precision == "int8")
        # What the kernels take is about what the whole takes.
        assert 0.3 < sum(seconds for _, seconds in row.measured.kernels) / row.measured.seconds < 3


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--target", "tensorrt/gpu"], "tells nothing of its kernels"),
        (["--target", "nonsense"], "is no engine"),
        (["--target", "openvino/cpu", "--threads", "4096"], "--threads: 4096 is not between 1 and"),
        (["--target", "openvino/cpu", "--networks", "0"], "must be above 0"),
    ],
)
def test_wrong_arguments_are_told(tmp_path: Path, arguments: list[str], reason: str) -> None:
    done = run_module("act.strategy.profile.__main__", [*arguments, "--table", "t.jsonl"], tmp_path)
    assert done.returncode == 2 and reason in done.stderr and not (tmp_path / "t.jsonl").exists()


def test_an_engine_without_the_precision_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="onnxruntime has none of bf16"):
        profile("onnxruntime", tmp_path / "t.jsonl", [1], ["bf16"], 1, 60)
