"""The memory of activations; worked out by hand."""

from __future__ import annotations

from typing import Any

from act.program.graph import Graph
from act.program.paddle_setup import paddle
from act.program.resources import activation_memory
from tests.support.analyze_networks import F, conv, of, sample
from tests.support.odd_models import ODD

PICTURE = 4 * 3 * 8 * 8
WIDE = 4 * 8 * 8 * 8


def test_a_chain_holds_two_tensors_at_a_time() -> None:
    def network(x: Any) -> Any:
        return conv(F.relu(conv(x, 8)), 3)

    found = activation_memory(Graph(of(network, 3, 8, 8), sample(3, 8, 8)))
    assert found.peak_bytes == 2 * WIDE
    # Paddle ends each saved model with a `scale`.
    assert found.total_bytes == PICTURE + 2 * WIDE + 2 * PICTURE
    assert sorted(each.bytes for each in found.alive_at_peak) == [WIDE, WIDE]


def test_what_is_added_later_stays_alive() -> None:
    def network(x: Any) -> Any:
        first = conv(x, 8)
        return first + F.relu(F.relu(first))

    found = activation_memory(Graph(of(network, 3, 8, 8), sample(3, 8, 8)))
    assert found.peak_bytes == 3 * WIDE


def test_another_shape_takes_no_memory_but_keeps_its_source() -> None:
    def network(x: Any) -> Any:
        flat = paddle.flatten(F.relu(x), 1)
        return flat.mean(axis=1, keepdim=True) + flat

    graph = Graph(of(network, 3, 8, 8), sample(3, 8, 8))
    found = activation_memory(graph)
    assert found.total_bytes == 4 * PICTURE + 4  # the picture, its relu, the sum, the end; and the mean
    assert found.peak_bytes == 2 * PICTURE + 4  # the relu, its mean, the sum


def test_integers_count_by_their_own_size() -> None:
    model = ODD["tokens"].model()
    batch = next(ODD["tokens"].samples(model, 1, seed=0).batches(1))
    graph = Graph(model, batch)
    length = batch["ids"].shape[1]
    assert graph.tensors["ids"].bytes == 8 * length
    found = activation_memory(graph)
    assert found.total_bytes == 8 * length + 4 * length * (8 + 16 + 16 + 5 + 5 + 5)
    assert found.peak_bytes == 4 * length * (16 + 16)
