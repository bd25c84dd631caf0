"""Small inference models made on the spot, for what the real models do not hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from act.program.model import InferenceModel
from act.program.paddle_setup import CPU, paddle


def build(
    network: Callable[..., Any],
    shape: tuple[int, ...],
    seed: int = 0,
    others: Mapping[str, tuple[int, ...]] | None = None,
) -> InferenceModel:
    """Build the inference model of `network`, a function from the input `x` (float32, batch first) to the output.

    `others` are further inputs of int64, by name, which the function takes after `x`. All weights are random, and those
    of batch norms far from the identity, so that a wrong sum shows.
    """
    program, startup, scope = paddle.static.Program(), paddle.static.Program(), paddle.static.Scope()
    with (
        paddle.static.scope_guard(scope),
        paddle.utils.unique_name.guard(),
        paddle.static.program_guard(program, startup),
    ):
        x = paddle.static.data("x", [-1, *shape[1:]], "float32")
        more = [paddle.static.data(name, list(axes), "int64") for name, axes in (others or {}).items()]
        output = network(x, *more)
        paddle.static.Executor(CPU).run(startup)
        program = paddle.static.normalize_program(program, [x, *more], [output])
    rng = np.random.default_rng(seed)
    fetches = [op.input("X")[0] for op in program.global_block().ops if op.type == "fetch"]
    model = InferenceModel(program, scope, ["x", *(others or {})], fetches)
    for name in model.weight_names():
        model.set_weight(name, rng.uniform(0.5, 1.5, model.weight(name).shape).astype(np.float32))
    return model


def batch(shape: tuple[int, ...]) -> dict[str, Any]:
    """Draw random values for the input `x`."""
    return {"x": np.random.default_rng(1).normal(size=shape).astype(np.float32)}
