"""Optimisers and learning-rate schedules by name: Paddle's own, with the values that Paddle gives them."""

from __future__ import annotations

from typing import Any

from act.program.paddle_setup import paddle
from act.settings import OptimizerName, Schedule

_LARGEST_GRADIENT = 1.0
# Those that decay weights apart from the gradient, and so take a plain number; others take it as L2.
_DECOUPLED = {"AdamW": "weight_decay", "Lamb": "lamb_weight_decay"}
# The length of the decays that need one, where the schedule gives none: all steps after the warm-up.
_LENGTHS = {"CosineAnnealingDecay": "T_max", "PolynomialDecay": "decay_steps"}


def make_rate(schedule: Schedule, learning_rate: float, steps: int) -> Any:
    """Return Paddle's schedule, to be stepped after each step of the optimiser.

    Args:
        learning_rate: at the start.
        steps: in all.
    """
    given = schedule.model_dump(exclude={"type", "warmup_steps"}, exclude_none=True)
    rate: Any
    if schedule.type == "constant":
        rate = paddle.optimizer.lr.MultiplicativeDecay(learning_rate, lambda _: 1.0)
    elif schedule.type == "PiecewiseDecay":
        rate = paddle.optimizer.lr.PiecewiseDecay(**given)
    else:
        if schedule.type in _LENGTHS:
            given = {_LENGTHS[schedule.type]: max(1, steps - schedule.warmup_steps), **given}
        rate = getattr(paddle.optimizer.lr, schedule.type)(learning_rate, **given)
    if schedule.warmup_steps:
        rate = paddle.optimizer.lr.LinearWarmup(rate, schedule.warmup_steps, start_lr=0.0, end_lr=learning_rate)
    return rate


def make_optimizer(name: OptimizerName, rate: Any, weight_decay: float) -> Any:
    """Return Paddle's optimiser of that name; gradients are clipped by their global norm.

    Args:
        rate: of `make_rate`.
        weight_decay: the share of each weight that a step takes away, times the rate.
    """
    decay = {_DECOUPLED.get(name, "weight_decay"): weight_decay} if name in _DECOUPLED or weight_decay else {}
    clip = paddle.nn.ClipGradByGlobalNorm(_LARGEST_GRADIENT)
    return getattr(paddle.optimizer, name)(learning_rate=rate, grad_clip=clip, **decay)
