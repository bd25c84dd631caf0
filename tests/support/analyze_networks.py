"""Networks whose structure is known, as inference models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.samples.dataset import Array
from tests.support.prepare_networks import build

F = paddle.nn.functional


def sample(*shape: int, seed: int = 0) -> dict[str, Array]:
    """Draw one sample of the input `x`, without the batch axis in `shape`."""
    return {"x": np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)}


def conv(x: Any, channels: int, kernel: int = 3, **more: Any) -> Any:
    """Add a convolution without a bias."""
    return paddle.static.nn.conv2d(x, channels, kernel, padding=kernel // 2, bias_attr=False, **more)


def two_joins(x: Any) -> Any:
    """Build a stem, one block with an identity and one with a projection, and a head; input [3, 8, 8]."""
    x = F.relu(conv(x, 8))
    x = F.relu(x + conv(F.relu(conv(x, 8)), 8))
    x = F.relu(conv(x, 16, 1, stride=2) + conv(F.relu(conv(x, 16, stride=2)), 16))
    return paddle.static.nn.fc(x.mean(axis=[2, 3]), 5)


def pyramid(x: Any) -> Any:
    """Build two scales, the smaller one enlarged and added to the larger; two outputs could be made of it."""
    fine = F.relu(conv(x, 8))
    coarse = F.relu(conv(fine, 8, stride=2))
    return conv(conv(fine, 8, 1) + F.interpolate(conv(coarse, 8, 1), scale_factor=2), 1)


def of(network: Callable[[Any], Any], *shape: int) -> InferenceModel:
    """Return the inference model of a network of static operators, as it is built: nothing is folded."""
    return build(network, (1, *shape))


def saved(layer: Callable[[], Any], shape: list[int | None], folder: Path) -> InferenceModel:
    """Return the inference model of a `paddle.nn.Layer`, as it is saved."""
    paddle.disable_static()
    try:
        paddle.seed(0)
        network = layer()
        network.eval()
        paddle.jit.save(network, str(folder / "model"), input_spec=[paddle.static.InputSpec(shape, "float32", "x")])
    finally:
        paddle.enable_static()
    return InferenceModel.load(folder)
