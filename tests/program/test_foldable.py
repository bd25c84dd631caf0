"""Operators that a model could do without: each kind of them put into a small network on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from act.program import foldable
from act.program.graph import Graph
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.program.passes.normalise import normalise
from tests.support.analyze_networks import F, conv, of, sample
from tests.support.odd_models import ODD


def found(model: InferenceModel) -> list[tuple[str, str]]:
    """Kind and operator type of what is found, without the `scale` by 1 that Paddle saves at the end."""
    told = foldable.find(Graph(model, sample(3, 8, 8)))
    return [(finding.kind, finding.type) for finding in told if finding.name not in model.fetch_names]


def identities(x: Any) -> Any:
    x = F.dropout(F.relu(x), 0.5, training=False)
    x = paddle.assign(paddle.scale(x, 1.0))
    x = paddle.transpose(paddle.cast(x, "float32"), [0, 1, 2, 3])
    return paddle.reshape(F.max_pool2d(x, 1, 1), [-1, 3, 8, 8])


def cancelling(x: Any) -> Any:
    turned = paddle.transpose(paddle.transpose(F.relu(x), [0, 2, 3, 1]), [0, 3, 1, 2])
    return paddle.reshape(paddle.reshape(F.relu(turned), [-1, 24, 8]), [-1, 192])


def norm_behind_a_layer(x: Any) -> Any:
    return F.relu(paddle.static.nn.batch_norm(conv(x, 4), is_test=True))


def norm_behind_a_join(x: Any) -> Any:
    return F.relu(paddle.static.nn.batch_norm(x + F.relu(x), is_test=True))


def norm_of_what_others_read(x: Any) -> Any:
    x = conv(x, 3)
    return paddle.static.nn.batch_norm(x, is_test=True) + x


def scaled(x: Any) -> Any:
    return F.relu(conv(x, 4) * 0.5)


def constant(x: Any) -> Any:
    weight = paddle.static.create_parameter([3], "float32")
    return F.relu(x + paddle.reshape(weight * 2.0, [1, 3, 1, 1]))


def repeated(x: Any) -> Any:
    return F.relu(paddle.exp(x)) + F.sigmoid(paddle.exp(x))


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (
            identities,
            [("identity", kind) for kind in ("scale", "assign", "cast", "transpose2", "pool2d", "reshape2")],
        ),
        (cancelling, [("cancels", "transpose2"), ("cancels", "reshape2")]),
        (norm_behind_a_layer, [("batch norm", "batch_norm")]),
        (norm_behind_a_join, []),
        (norm_of_what_others_read, []),
        (scaled, [("scale", "scale")]),
        (constant, [("constant", "reshape2")]),
        (repeated, [("repeated", "exp")]),
    ],
)
def test_what_was_put_in_is_found(network: Callable[[Any], Any], expected: list[tuple[str, str]]) -> None:
    model = of(network, 3, 8, 8)
    assert [entry for entry in found(model) if entry[1] != "dropout"] == expected


def test_a_name_and_a_reason_are_given() -> None:
    model = of(norm_behind_a_layer, 3, 8, 8)
    graph = Graph(model, sample(3, 8, 8))
    (norm,) = [finding for finding in foldable.find(graph) if finding.kind == "batch norm"]
    layer = next(node for node in graph.nodes if node.type == "conv2d")
    assert norm.why == f"folds into `{layer.name}`" and norm.name in {node.name for node in graph.nodes}


def test_dropout_counts_only_where_it_does_nothing() -> None:
    for mode, expected in (("upscale_in_train", 1), ("downscale_in_infer", 0)):

        def network(x: Any, mode: str = mode) -> Any:
            return F.relu(paddle.nn.Dropout(0.5, mode=mode)(F.relu(x)))

        model = of(network, 3, 8, 8)
        for op in model.ops:
            if op.has_attr("is_test"):
                op._set_attr("is_test", True)
        assert [kind for kind, type_ in found(model) if type_ == "dropout"] == ["identity"] * expected


def test_zeros_that_are_added_and_ones_that_are_multiplied_with() -> None:
    def network(x: Any) -> Any:
        zeros, ones, others = (paddle.static.create_parameter([3, 1, 1], "float32") for _ in range(3))
        return F.relu((x + zeros) * ones + others)

    model = of(network, 3, 8, 8)
    zeros, ones, _ = (name for op in model.ops for name in op.input_arg_names if model.is_weight(name))
    model.set_weight(zeros, np.zeros((3, 1, 1), dtype=np.float32))
    model.set_weight(ones, np.ones((3, 1, 1), dtype=np.float32))
    assert found(model) == [("identity", "elementwise_add"), ("identity", "elementwise_mul")]


def test_what_no_output_depends_on_is_dead() -> None:
    model = ODD["two_outputs"].model()
    assert not [kind for kind, _ in found(model) if kind == "dead"]
    graph = Graph(model, sample(3, 8, 8))
    graph.fetches = graph.fetches[:1]
    dead = [finding.type for finding in foldable.find(graph) if finding.kind == "dead"]
    assert "arg_max" in dead and "conv2d" not in dead


def test_prepare_leaves_nothing_of_what_it_folds() -> None:
    for network in (norm_behind_a_layer, scaled, identities):
        model = normalise(of(network, 3, 8, 8))[0]
        assert not {kind for kind, _ in found(model)} & {"batch norm", "dead"}
    left = normalise(of(norm_behind_a_layer, 3, 8, 8))[0]
    assert {kind for kind, _ in found(left)} <= {"unused weight"}
