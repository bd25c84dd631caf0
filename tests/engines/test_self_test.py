"""The engines here compute single int8 layers of all kinds as NumPy does."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from act.engines.self_test import wrong_kernels
from act.program.graph import Graph
from act.program.paddle_setup import paddle
from tests.support.analyze_networks import F, conv, of, sample


def _all_kinds(x: Any) -> Any:
    x = conv(x, 8, stride=2)
    x = F.relu(conv(x, 8, groups=8))
    x = paddle.static.nn.conv2d(x, 12, (3, 1), padding=[2, 1, 0, 1], dilation=(2, 1), groups=2, bias_attr=False)
    x = paddle.static.nn.conv2d_transpose(x, 6, filter_size=3, stride=2, padding=1, bias_attr=False)
    return paddle.static.nn.fc(paddle.static.nn.fc(x.flatten(2), 16, num_flatten_dims=2), 5)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "paddle_inference"])
def test_int8_kernels_give_what_numpy_gives(engine: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    graph = Graph(of(_all_kinds, 3, 17, 20), sample(3, 17, 20))
    assert wrong_kernels(engine, graph, 1) == []
    assert " kinds of int8 layers as NumPy does" in caplog.text
