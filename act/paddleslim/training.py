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
    values = train.model_dump(include={"epochs", "train_iter", "eval_iter", "target_metric"}, exclude_none=True)
    if "train_iter" in values:
        values.setdefault("epochs", EPOCHS_WITHOUT_END)
    if isinstance(train.learning_rate, dict):
        values |= _schedule(dict(train.learning_rate), origin)
    elif train.learning_rate is not None:
        values["learning_rate"] = train.learning_rate
    if train.optimizer_builder is not None:
        values |= _optimizer(dict(train.optimizer_builder), warn, origin)
    return values


def after_pruning(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what ACT makes of the settings for a model that was pruned with them: a tenth of its steps and rate."""
    result = dict(settings)
    for key in {"epochs", "train_iter"} & result.keys():
        result[key] = max(int(result[key] * SHARE_AFTER_PRUNING), 1)
    if "learning_rate" in result:
        result["learning_rate"] *= SHARE_AFTER_PRUNING
    schedule = result.get("learning_rate_schedule", {})
    if "values" in schedule:
        values = [value * SHARE_AFTER_PRUNING for value in schedule["values"]]
        result["learning_rate_schedule"] = {**schedule, "values": values}
    return result


def _schedule(rate: dict[str, Any], origin: str) -> dict[str, Any]:
    where = f"{origin}: `TrainConfig.learning_rate"
    kind = rate.pop("type", None)
    if not isinstance(kind, str):
        raise InputError(
            f"{where}.type` is {kind!r:.80}; name a class of paddle.optimizer.lr, such as CosineAnnealingDecay"
        )
    first = {}
    if "learning_rate" in rate:
        first["learning_rate"] = _float(rate.pop("learning_rate"), f"{where}.learning_rate`")
    parameters = {
        key: [number_if_one(each) for each in value] if isinstance(value, list) else number_if_one(value)
        for key, value in rate.items()
    }
    return {**first, "learning_rate_schedule": {"type": kind, **parameters}}


def _optimizer(builder: dict[str, Any], warn: Warn, origin: str) -> dict[str, Any]:
    key = "TrainConfig.optimizer_builder"
    where = f"{origin}: `{key}"
    optimizer = builder.pop("optimizer", None)
    if not isinstance(optimizer, dict) or not isinstance(optimizer.get("type"), str):
        raise InputError(f"{where}.optimizer` is {optimizer!r:.80}; give a mapping with `type`, such as Adam")
    settings: dict[str, Any] = {"optimizer": optimizer["type"]}
    for other in optimizer:
        if other != "type":
            warn(f"{key}.optimizer.{other}", "the optimisers run with Paddle's own values")
    decay = builder.pop("weight_decay", None)
    regularizer = builder.pop("regularizer", None)
    if isinstance(regularizer, dict) and decay is None and regularizer.get("type") == "L2Decay":
        decay = regularizer.get("coeff", regularizer.get("regularization_coeff"))
    elif regularizer is not None:
        warn(f"{key}.regularizer", "`weight_decay` decays the weights")
    if decay is not None:
        settings["weight_decay"] = _float(decay, f"{where}.weight_decay`")
    if builder.pop("grad_clip", None) is not None:
        warn(f"{key}.grad_clip", "gradients are always clipped, by their global norm")
    for unknown in builder:
        raise InputError(
            f"{where}.{unknown}` is not a known key; known here: optimizer, weight_decay, regularizer, grad_clip"
        )
    return settings


def _float(value: Any, what: str) -> float:
    number = number_if_one(value)
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise InputError(f"{what} is {value!r:.80}; it must be a number")
    return float(number)
