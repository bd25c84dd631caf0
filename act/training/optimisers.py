"""Optimisers and learning-rate schedules by name: Paddle's own, with the values that Paddle gives them."""

from __future__ import annotations

from typing import Any

from act.program.paddle_setup import paddle
from act.settings import OptimizerName, Schedule

_LARGEST_GRADIENT = 1.0
# Those that decay weights apart from the gradient, and so take a plain number; others take it as L2.
_DECOUPLED = {"AdamW": "weight_decay", "Lamb": "lamb_weight_decay"}


def make_rate(schedule: Schedule, learning_rate: float, steps: int) -> Any:
    """Paddle's schedule, to be stepped after each step of the optimiser.

    Args:
        schedule: by name, with its parameters.
        learning_rate: at the start.
        steps: in all; for the decays that need a length where the schedule gives none.
    """
    given = {
        name: value
        for name, value in schedule.model_dump(exclude={"type", "warmup_steps"}).items()
        if value is not None
    }
    rates = paddle.optimizer.lr
    rate: Any
    if schedule.type == "constant":
        rate = rates.MultiplicativeDecay(learning_rate, lambda _: 1.0)
    elif schedule.type == "PiecewiseDecay":
        rate = rates.PiecewiseDecay(**given)
    else:
        if schedule.type == "CosineAnnealingDecay":
            given = {"T_max": max(1, steps - schedule.warmup_steps), **given}
        elif schedule.type == "PolynomialDecay":
            given = {"decay_steps": max(1, steps - schedule.warmup_steps), **given}
        rate = getattr(rates, schedule.type)(learning_rate, **given)
    if schedule.warmup_steps:
        rate = rates.LinearWarmup(rate, schedule.warmup_steps, start_lr=0.0, end_lr=learning_rate)
    return rate


def make_optimizer(name: OptimizerName, rate: Any, weight_decay: float) -> Any:
    """Paddle's optimiser; gradients are clipped by their global norm.

    Args:
        name: of the class.
        rate: of `make_rate`.
        weight_decay: the share of each weight that a step takes away, times the rate.
    """
    decay: dict[str, Any] = {_DECOUPLED.get(name, "weight_decay"): weight_decay}
    if name not in _DECOUPLED and weight_decay == 0:
        decay = {}
    clip = paddle.nn.ClipGradByGlobalNorm(_LARGEST_GRADIENT)
    return getattr(paddle.optimizer, name)(learning_rate=rate, grad_clip=clip, **decay)
