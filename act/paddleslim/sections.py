"""The sections of ACT's configurations, as `auto_compression/strategy_config.py` of PaddleSlim 2.3 to 2.6 has them.

A value that ACT would not take is refused here; what a section leaves out stays None, for ACT's defaults are not ours.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from act.settings.base import ChannelCriterion, Settings, ThresholdAlgorithm

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def number_if_one(value: Any) -> Any:
    # YAML 1.1 takes 1e-5, which lacks a point, for a text.
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def null_if_none(value: Any) -> Any:
    return None if value == "None" else value


def _names(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _listed(value: Any) -> Any:
    return value if value is None or isinstance(value, list) else [value]


Number = Annotated[float, BeforeValidator(number_if_one)]
Text = Annotated[str | None, BeforeValidator(null_if_none)]
Names = Annotated[list[str] | None, BeforeValidator(_names), BeforeValidator(null_if_none)]
WeightScale = Literal["abs_max", "channel_wise_abs_max", "range_abs_max", "moving_average_abs_max"]
ActivationScale = Literal["abs_max", "range_abs_max", "moving_average_abs_max"]


class _Bits(Settings):
    weight_bits: int = 8
    activation_bits: int = 8

    @field_validator("weight_bits", "activation_bits")
    @classmethod
    def _eight(cls, bits: int) -> int:
        if bits != 8:
            raise ValueError("only 8 bits are made here, because the engines run no others: use 8")
        return bits


class QuantAwareSection(_Bits):
    quantize_op_types: Names = None
    not_quant_pattern: Names = None
    use_pact: bool = False
    activation_quantize_type: ActivationScale | None = None
    weight_quantize_type: WeightScale | None = None
    dtype: Literal["int8"] = "int8"
    window_size: int | None = None
    moving_rate: Number | None = None
    for_tensorrt: bool = False
    onnx_format: bool = True
    is_full_quantize: bool = False


class QuantPostSection(_Bits):
    batch_size: int | None = Field(default=None, ge=1)
    batch_nums: Annotated[int | None, BeforeValidator(null_if_none)] = Field(default=None, ge=1)
    epochs: int | None = None
    lr: Number | None = None
    algo: ThresholdAlgorithm | None = None
    hist_percent: Number | None = None
    regions: Annotated[list[list[str]] | None, BeforeValidator(null_if_none)] = None
    region_weights_names: Annotated[list[list[str]] | None, BeforeValidator(null_if_none)] = None
    recon_level: Annotated[Literal["layer-wise", "region-wise"] | None, BeforeValidator(null_if_none)] = None
    is_full_quantize: bool = False
    bias_correction: bool | None = None
    weight_quantize_type: WeightScale | None = None
    activation_quantize_type: ActivationScale | None = None
    simulate_activation_quant: bool = True
    skip_tensor_list: Names = None
    onnx_format: bool = True
    quantize_op_types: Names = None


class HyperParameterOptimizationSection(Settings):
    ptq_algo: Annotated[list[ThresholdAlgorithm] | None, BeforeValidator(_listed)] = Field(default=None, min_length=1)
    bias_correct: Annotated[list[bool] | None, BeforeValidator(_listed)] = Field(default=None, min_length=1)
    weight_quantize_type: Annotated[list[WeightScale] | None, BeforeValidator(_listed)] = Field(
        default=None, min_length=1
    )
    hist_percent: Annotated[list[Number] | None, BeforeValidator(_listed)] = Field(default=None, min_length=1)
    batch_num: Annotated[list[int] | None, BeforeValidator(_listed)] = Field(default=None, min_length=1)
    max_quant_count: int | None = Field(default=None, ge=1)


Loss = Literal["l2", "soft_label", "dkd", "skd", "fsp"]


class DistillationSection(Settings):
    loss: Loss | list[Loss] | None = None
    node: list[str] | list[list[str]] | None = None
    alpha: Number | list[Number] | None = None
    teacher_model_dir: Text = None
    teacher_model_filename: Text = None
    teacher_params_filename: Text = None


class MultiTeacherDistillationSection(Settings):
    loss: list[Loss] | None = None
    node: list[list[str]] | None = None
    alpha: list[Number] | None = None
    teacher_model_dir: list[str] | None = None
    teacher_model_filename: list[Text] | None = None
    teacher_params_filename: list[Text] | None = None


class ChannelPruneSection(Settings):
    pruned_ratio: Number | list[Number]
    prune_params_name: Names = None
    criterion: ChannelCriterion | None = None


class ASPPruneSection(Settings):
    prune_params_name: Names = None


class TransformerPruneSection(Settings):
    pruned_ratio: Number


class Gmp(Settings):
    stable_iterations: int | None = None
    pruning_iterations: int | None = None
    tunning_iterations: int | None = None
    resume_iteration: int | None = None
    pruning_steps: int | None = None
    initial_ratio: Number | None = None


class UnstructurePruneSection(Settings):
    prune_strategy: Annotated[Literal["base", "gmp"] | None, BeforeValidator(null_if_none)] = None
    prune_mode: Literal["ratio", "threshold"] = "ratio"
    threshold: Number | None = None
    ratio: Number | None = None
    gmp_config: Gmp | None = None
    prune_params_type: Annotated[Literal["conv1x1_only"] | None, BeforeValidator(null_if_none)] = None
    local_sparsity: bool | None = None


class TrainConfigSection(Settings):
    epochs: int | None = Field(default=None, ge=1)
    train_iter: int | None = Field(default=None, ge=1)
    learning_rate: Number | dict[str, Any] | None = None
    optimizer_builder: dict[str, Any] | None = None
    eval_iter: int | None = Field(default=None, ge=1)
    logging_iter: int | None = None
    origin_metric: Number | None = None
    target_metric: Number | None = None
    use_fleet: bool = False
    amp_config: dict[str, Any] | None = None
    recompute_config: dict[str, Any] | None = None
    sharding_config: dict[str, Any] | None = None
    sparse_model: bool = False


class Sections(Settings):
    """Every section that a file may have; those that it lacks are None."""

    QuantAware: QuantAwareSection | None = None
    Quantization: QuantAwareSection | None = None
    QuantPost: QuantPostSection | None = None
    HyperParameterOptimization: HyperParameterOptimizationSection | None = None
    Distillation: DistillationSection | None = None
    MultiTeacherDistillation: MultiTeacherDistillationSection | None = None
    ChannelPrune: ChannelPruneSection | None = None
    ASPPrune: ASPPruneSection | None = None
    TransformerPrune: TransformerPruneSection | None = None
    UnstructurePrune: UnstructurePruneSection | None = None
    TrainConfig: TrainConfigSection | None = None
