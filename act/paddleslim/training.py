"""ACT's `TrainConfig` in terms of our settings for training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from act.errors import InputError
from act.paddleslim.sections import TrainConfigSection, number_if_one

# ACT trains a quantized model that was pruned before with a tenth of `TrainConfig` (compressor.py).
SHARE_AFTER_PRUNING = 0.1
# How many times ACT goes through the samples when nothing but `train_iter` ends it (compressor.py).
EPOCHS_WITHOUT_END = 100

Warn = Callable[[str, str], None]


def train_settings(train: TrainConfigSection, warn: Warn, origin: str) -> dict[str, Any]:
    """Return what every training is told, by our names.

    Args:
        train: ACT's section.
        warn: takes a key and why it means nothing here.
        origin: where the section comes from, for messages.

    Raises:
        InputError: the optimiser or the learning rate is of no form that ACT takes.
    """
    found: dict[str, Any] = {}
    if train.epochs is not None:
        found["epochs"] = train.epochs
    elif train.train_iter is not None:
        found["epochs"] = EPOCHS_WITHOUT_END
    for key in ("train_iter", "eval_iter", "target_metric"):
        if getattr(train, key) is not None:
            found[key] = getattr(train, key)
    if isinstance(train.learning_rate, dict):
        found |= _schedule(dict(train.learning_rate), origin)
    elif train.learning_rate is not None:
        found["learning_rate"] = train.learning_rate
    if train.optimizer_builder is not None:
        found |= _optimizer(dict(train.optimizer_builder), warn, origin)
    return found


def after_pruning(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what ACT makes of the settings for a model that was pruned with them: a tenth of its steps and rate."""
    found = dict(settings)
    for key in ("epochs", "train_iter"):
        if key in found:
            found[key] = max(int(found[key] * SHARE_AFTER_PRUNING), 1)
    if "learning_rate" in found:
        found["learning_rate"] *= SHARE_AFTER_PRUNING
    schedule = found.get("learning_rate_schedule")
    if schedule and "values" in schedule:
        found["learning_rate_schedule"] = {
            **schedule,
            "values": [value * SHARE_AFTER_PRUNING for value in schedule["values"]],
        }
    return found


def _schedule(rate: dict[str, Any], origin: str) -> dict[str, Any]:
    kind = rate.pop("type", None)
    if not isinstance(kind, str):
        raise InputError(
            f"{origin}: `TrainConfig.learning_rate.type` is {kind!r:.80}; name a class of paddle.optimizer.lr, such as "
            "CosineAnnealingDecay"
        )
    found: dict[str, Any] = {}
    if "learning_rate" in rate:
        found["learning_rate"] = _float(
            rate.pop("learning_rate"), f"{origin}: `TrainConfig.learning_rate.learning_rate`"
        )
    parameters = {
        key: [number_if_one(each) for each in value] if isinstance(value, list) else number_if_one(value)
        for key, value in rate.items()
    }
    return {**found, "learning_rate_schedule": {"type": kind, **parameters}}


def _optimizer(builder: dict[str, Any], warn: Warn, origin: str) -> dict[str, Any]:
    where = f"{origin}: `TrainConfig.optimizer_builder"
    optimizer = builder.pop("optimizer", None)
    if not isinstance(optimizer, dict) or not isinstance(optimizer.get("type"), str):
        raise InputError(f"{where}.optimizer` is {optimizer!r:.80}; give a mapping with `type`, such as Adam")
    found: dict[str, Any] = {"optimizer": optimizer["type"]}
    for key in optimizer:
        if key != "type":
            warn(f"TrainConfig.optimizer_builder.optimizer.{key}", "the optimisers run with Paddle's own values")
    decay = builder.pop("weight_decay", None)
    regularizer = builder.pop("regularizer", None)
    if isinstance(regularizer, dict) and decay is None and regularizer.get("type") == "L2Decay":
        decay = regularizer.get("coeff", regularizer.get("regularization_coeff"))
    elif regularizer is not None:
        warn("TrainConfig.optimizer_builder.regularizer", "`weight_decay` decays the weights")
    if decay is not None:
        found["weight_decay"] = _float(decay, f"{where}.weight_decay`")
    if builder.pop("grad_clip", None) is not None:
        warn("TrainConfig.optimizer_builder.grad_clip", "gradients are always clipped, by their global norm")
    for key in builder:
        raise InputError(
            f"{where}.{key}` is not a known key; known here: optimizer, weight_decay, regularizer, grad_clip"
        )
    return found


def _float(value: Any, what: str) -> float:
    number = number_if_one(value)
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise InputError(f"{what} is {value!r:.80}; it must be a number")
    return float(number)
