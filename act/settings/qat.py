"""`qat`: quantization-aware training."""

from __future__ import annotations

from pydantic import Field, model_validator

from act.settings.base import QuantizableOperator, Text
from act.settings.training import TrainConfig


class Qat(TrainConfig):
    """Quantization-aware training with distillation, run only where post-training quantization misses the budget."""

    learning_rate: float = Field(default=3e-5, gt=0, le=1)
    evaluations_per_epoch: int = Field(
        default=8,
        ge=1,
        le=1000,
        description="the quality of a quantized model jumps when its ranges move by a thousandth, and the best of many "
        "states is better than that of a few, on other samples as well",
    )
    mean_decay: float = Field(
        default=0.95,
        ge=0,
        lt=1,
        description="what is measured and kept is a running mean of the weights, of which this share stays at each "
        "step; 0: the last weights",
    )
    use_pact: bool = Field(
        default=False,
        description="clip activations where training finds it best (PACT), by the loss of what is cut off",
    )
    scale_trainable: bool = Field(
        default=True, description="train the scales of activations and weights, too (LSQ), by the loss of rounding"
    )
    quantize_op_types: list[QuantizableOperator] | None = Field(
        default=None, min_length=1, description="others stay in float; as the candidate has them when left out"
    )
    not_quant_pattern: list[Text] = Field(
        default=[], description="layers stay in float whose name, weight or name scope holds one of these"
    )

    @model_validator(mode="after")
    def _one_way_to_learn_ranges(self) -> Qat:
        if self.use_pact and self.scale_trainable and "scale_trainable" in self.model_fields_set:
            raise ValueError(
                "`use_pact` and `scale_trainable` both train the ranges of activations: choose one of them"
            )
        return self
