"""Small networks to prune, as inference models with their batch norms folded."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from act.program.model import InferenceModel
from act.program.paddle_setup import CPU, paddle
from act.program.passes.normalise import normalise

LENGTH, WIDTH, HEADS, FEED_FORWARD, CLASSES = 6, 32, 4, 64, 3


def static(build: Callable[[Any], Any], shape: Sequence[int], seed: int = 0) -> InferenceModel:
    """Build a network of static operators with random weights; its input is `x` [N, *shape]."""
    program, begin, scope = paddle.static.Program(), paddle.static.Program(), paddle.static.Scope()
    with (
        paddle.static.scope_guard(scope),
        paddle.static.program_guard(program, begin),
        paddle.utils.unique_name.guard(),
    ):
        x = paddle.static.data("x", [-1, *shape], "float32")
        output = build(x)
        executor = paddle.static.Executor(CPU)
        executor.run(begin)
        with tempfile.TemporaryDirectory() as folder:
            paddle.static.save_inference_model(f"{folder}/model", [x], [output], executor, program=program)
            model = InferenceModel.load(Path(folder))
    rng = np.random.default_rng(seed)
    for name in model.weight_names():
        size = model.weight(name).shape
        model.set_weight(name, rng.normal(scale=1 / np.sqrt(np.prod(size[1:]) or 1), size=size).astype(np.float32))
    return model


def plain(x: Any) -> Any:
    """Build two convolutions and a classifier that reads the flattened second; 16 channels each; input [3, 8, 8]."""
    hidden = paddle.nn.functional.relu(paddle.static.nn.conv2d(x, 16, 3, padding=1))
    hidden = paddle.nn.functional.relu(paddle.static.nn.conv2d(hidden, 16, 3, stride=2, padding=1))
    return paddle.static.nn.fc(paddle.flatten(hidden, 1), 3)


def vision(name: str, folder: Path, size: int = 64) -> InferenceModel:
    """Return a network of `paddle.vision.models` with random weights, as `prepare` leaves it."""
    return _saved(lambda: getattr(paddle.vision.models, name)(num_classes=5), [None, 3, size, size], folder)


def encoder(folder: Path) -> InferenceModel:
    """Return a BERT-like encoder of two layers, as `prepare` leaves it; input x [N, LENGTH, 8]."""
    from benchmarks.training.transformer import Encoder

    return _saved(
        lambda: Encoder(LENGTH, 8, WIDTH, HEADS, FEED_FORWARD, 2, CLASSES), [None, LENGTH, 8], folder, normal=True
    )


def _saved(make: Callable[[], Any], shape: Sequence[int | None], folder: Path, normal: bool = False) -> InferenceModel:
    paddle.disable_static()
    try:
        paddle.seed(0)
        network = make()
        network.eval()
        folder.mkdir(parents=True, exist_ok=True)
        paddle.jit.save(network, str(folder / "model"), input_spec=[paddle.static.InputSpec(shape, "float32", "x")])
    finally:
        paddle.enable_static()
    return normalise(InferenceModel.load(folder))[0]


def pictures(count: int, shape: Sequence[int], seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Draw pictures, float32 [count, *shape]."""
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)
