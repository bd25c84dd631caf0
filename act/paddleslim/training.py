"""ACT's `TrainConfig` in terms of our settings for training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from act.paddleslim.sections import LearningRate, OptimizerBuilder, TrainConfigSection, number_if_one

# ACT trains a quantized model that was pruned before with a tenth of `TrainConfig` (compressor.py).
SHARE_AFTER_PRUNING = 0.1
# How many times ACT goes through the samples when nothing but `train_iter` ends it (compressor.py).
EPOCHS_WITHOUT_END = 100

Warn = Callable[[str, str], None]


def train_settings(train: TrainConfigSection, warn: Warn) -> dict[str, Any]:
    """Return what every training is told, by our names; `warn` takes a key and why it means nothing here."""
    values = train.model_dump(include={"epochs", "train_iter", "eval_iter", "target_metric"}, exclude_none=True)
    if "train_iter" in values:
        values.setdefault("epochs", EPOCHS_WITHOUT_END)
    rate = train.learning_rate
    if isinstance(rate, LearningRate):
        parameters = {
            key: [number_if_one(each) for each in value] if isinstance(value, list) else number_if_one(value)
            for key, value in (rate.model_extra or {}).items()
        }
        values["learning_rate_schedule"] = {"type": rate.type, **parameters}
        rate = rate.learning_rate
    if rate is not None:
        values["learning_rate"] = rate
    if train.optimizer_builder is not None:
        values |= _optimizer(train.optimizer_builder, warn)
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


def _optimizer(builder: OptimizerBuilder, warn: Warn) -> dict[str, Any]:
    key = "TrainConfig.optimizer_builder"
    for other in builder.optimizer.model_extra or ():
        warn(f"{key}.optimizer.{other}", "the optimisers run with Paddle's own values")
    decay, regularizer = builder.weight_decay, builder.regularizer
    if regularizer and decay is None and regularizer.type == "L2Decay":
        decay = regularizer.regularization_coeff if regularizer.coeff is None else regularizer.coeff
    elif regularizer:
        warn(f"{key}.regularizer", "`weight_decay` decays the weights")
    if builder.grad_clip is not None:
        warn(f"{key}.grad_clip", "gradients are always clipped, by their global norm")
    return {"optimizer": builder.optimizer.type, **({} if decay is None else {"weight_decay": decay})}
