"""The sections of ACT's configurations, as `auto_compression/strategy_config.py` of PaddleSlim 2.3 to 2.6 has them.

A value that ACT would not take is refused here. What a section leaves out stays None, for ACT's defaults are not ours.
Beside each key stands what it becomes, or why it means nothing here; the translator knows the rest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from act.settings.base import ChannelCriterion, Settings, ThresholdAlgorithm

Item = TypeVar("Item")

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Becomes:
    """The section of a job in which a key, or each key of a section, becomes the setting of its own name."""

    section: str


@dataclass(frozen=True)
class Ignored:
    """Why a key means nothing here; told where its value is not the default."""

    why: str


def number_if_one(value: Any) -> Any:
    # YAML 1.1 takes 1e-5, which lacks a point, for a text.
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def null_if_none(value: Any) -> Any:
    return None if value == "None" else value


def _listed(value: Any) -> Any:
    return value if value is None or isinstance(value, list) else [value]


def _distinct(values: list[Item] | None) -> list[Item] | None:
    return values if values is None else list(dict.fromkeys(values))


def _eight(bits: int) -> int:
    if bits != 8:
        raise ValueError("only 8 bits are made here, because the engines run no others: use 8")
    return bits


Number = Annotated[float, BeforeValidator(number_if_one)]
Text = Annotated[str | None, BeforeValidator(null_if_none)]
OneOf = Annotated[Item | None, BeforeValidator(null_if_none)]
Choices = Annotated[list[Item] | None, BeforeValidator(_listed), AfterValidator(_distinct), Field(min_length=1)]
Names = Annotated[list[str] | None, BeforeValidator(_listed), BeforeValidator(null_if_none)]
Bits = Annotated[int, AfterValidator(_eight)]
WeightScale = Literal["abs_max", "channel_wise_abs_max", "range_abs_max", "moving_average_abs_max"]
ActivationScale = Literal["abs_max", "range_abs_max", "moving_average_abs_max"]

_NO_RANGES = Ignored("no moving ranges: training starts from the best post-training candidate's")
_NARROWED = Ignored("each engine gets in int8 what it runs so; `ptq_search.quantizable_op_type` narrows it")
_SHORT_MEMORY = Ignored("activations and weights are kept whole; lower `batch_size` where the memory is short")
_LAUNCHER = Ignored(
    "several processes train together where Paddle's launcher starts them: `python -m paddle.distributed.launch`, as "
    "in the section Training of the README"
)
_REGIONS = Ignored("regions are found in the graph: `refine.region_layers` says how large")


class QuantSection(Settings):
    weight_bits: Bits = 8
    activation_bits: Bits = 8
    quantize_op_types: Names = None
    weight_quantize_type: WeightScale | None = None
    onnx_format: Annotated[bool, Ignored("always true: Paddle's files have the form that converts to ONNX")] = True
    is_full_quantize: Annotated[bool, _NARROWED] = False


class QuantAwareSection(QuantSection):
    not_quant_pattern: Annotated[Names, Becomes("qat")] = None
    use_pact: Annotated[bool, Becomes("qat")] = False
    activation_quantize_type: Annotated[ActivationScale | None, _NO_RANGES] = None
    dtype: Literal["int8"] = "int8"
    window_size: Annotated[int | None, _NO_RANGES] = None
    moving_rate: Annotated[Number | None, _NO_RANGES] = None
    for_tensorrt: Annotated[bool, Ignored("`target.engines` says what the model is made for")] = False


class QuantPostSection(QuantSection):
    batch_size: Annotated[int | None, Field(ge=1), Becomes("calibration")] = None
    batch_nums: Annotated[OneOf[int], Field(ge=1)] = None
    epochs: Annotated[int | None, Ignored("reconstruction counts steps here: `refine.steps`")] = None
    lr: Annotated[Number | None, Ignored("reconstruction has a rate of its own: `refine.learning_rate`")] = None
    algo: ThresholdAlgorithm | None = None
    hist_percent: Number | None = None
    regions: Annotated[OneOf[list[list[str]]], _REGIONS] = None
    region_weights_names: Annotated[OneOf[list[list[str]]], _REGIONS] = None
    recon_level: OneOf[Literal["layer-wise", "region-wise"]] = None
    bias_correction: bool | None = None
    activation_quantize_type: Annotated[ActivationScale | None, Ignored("`ptq_search.ptq_algo` makes the ranges")] = (
        None
    )
    simulate_activation_quant: Annotated[bool, Ignored("reconstruction always quantizes activations")] = True
    skip_tensor_list: Annotated[Names, Ignored("the search finds float layers: `ptq_search.max_float_layers`")] = None


class HyperParameterOptimizationSection(Settings):
    ptq_algo: Annotated[Choices[ThresholdAlgorithm], Becomes("ptq_search")] = None
    bias_correct: Annotated[Choices[bool], Becomes("ptq_search")] = None
    weight_quantize_type: Choices[WeightScale] = None
    hist_percent: Choices[Number] = None
    batch_num: Choices[int] = None
    max_quant_count: Annotated[int | None, Field(ge=1), Becomes("ptq_search")] = None


Loss = Literal["l2", "soft_label", "dkd", "skd", "fsp"]


class DistillationSection(Settings):
    loss: Annotated[Loss | list[Loss] | None, Becomes("distillation")] = None
    node: Annotated[list[str] | list[list[str]] | None, Becomes("distillation")] = None
    alpha: Annotated[Number | list[Number] | None, Becomes("distillation")] = None
    teacher_model_dir: Text = None
    teacher_model_filename: Text = None
    teacher_params_filename: Text = None


class MultiTeacherDistillationSection(Settings):
    loss: Annotated[list[Loss] | None, Becomes("distillation")] = None
    node: Annotated[list[list[str]] | None, Becomes("distillation")] = None
    alpha: Annotated[list[Number] | None, Becomes("distillation")] = None
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
    prune_strategy: OneOf[Literal["base", "gmp"]] = None
    prune_mode: Literal["ratio", "threshold"] = "ratio"
    threshold: Number | None = None
    ratio: Number | None = None
    gmp_config: Gmp | None = None
    prune_params_type: OneOf[Literal["conv1x1_only"]] = None
    local_sparsity: bool | None = None


class Open(Settings):
    """A mapping with further keys than those named."""

    model_config = ConfigDict(extra="allow")


def _named_schedule(rate: Any) -> Any:
    if isinstance(rate, dict) and not isinstance(rate.get("type"), str):
        raise ValueError("name a class of paddle.optimizer.lr as `type`, such as CosineAnnealingDecay")
    return rate


class LearningRate(Open):
    type: str
    learning_rate: Number | None = None


class Optimizer(Open):
    type: str


class Regularizer(Open):
    type: str | None = None
    coeff: Number | None = None
    regularization_coeff: Number | None = None


class OptimizerBuilder(Settings):
    optimizer: Optimizer
    weight_decay: Number | None = None
    regularizer: Regularizer | None = None
    grad_clip: dict[str, Any] | None = None


class TrainConfigSection(Settings):
    epochs: int | None = Field(default=None, ge=1)
    train_iter: int | None = Field(default=None, ge=1)
    learning_rate: Annotated[Number | LearningRate | None, BeforeValidator(_named_schedule)] = None
    optimizer_builder: OptimizerBuilder | None = None
    eval_iter: int | None = Field(default=None, ge=1)
    logging_iter: Annotated[int | None, Ignored("progress is shown all the time; the report has the curves")] = None
    origin_metric: Number | None = None
    target_metric: Number | None = None
    use_fleet: Annotated[bool, _LAUNCHER] = False
    amp_config: Annotated[dict[str, Any] | None, Ignored("training is in fp32")] = None
    recompute_config: Annotated[dict[str, Any] | None, _SHORT_MEMORY] = None
    sharding_config: Annotated[dict[str, Any] | None, _SHORT_MEMORY] = None
    sparse_model: Annotated[bool, Ignored("weights that pruning made zero stay zero in all that follows")] = False


class GlobalSection(Open):
    """The keys of the example scripts that become a setting here."""

    model_dir: Text = None
    model_filename: Annotated[Text, Becomes("model")] = None
    params_filename: Annotated[Text, Becomes("model")] = None
    data_dir: Text = None
    batch_size: Annotated[OneOf[int], Field(ge=1, le=1024)] = None
    input_shapes: Any = None
    deploy_hardware: OneOf[Any] = None


class Sections(Settings):
    """Every section that a file may have; those that it lacks are None."""

    Global: GlobalSection | None = None
    QuantAware: QuantAwareSection | None = None
    Quantization: QuantAwareSection | None = None
    QuantPost: QuantPostSection | None = None
    HyperParameterOptimization: HyperParameterOptimizationSection | None = None
    Distillation: DistillationSection | None = None
    MultiTeacherDistillation: MultiTeacherDistillationSection | None = None
    ChannelPrune: Annotated[ChannelPruneSection | None, Becomes("prune.channel")] = None
    ASPPrune: Annotated[ASPPruneSection | None, Becomes("prune.asp")] = None
    TransformerPrune: Annotated[TransformerPruneSection | None, Becomes("prune.transformer")] = None
    UnstructurePrune: Annotated[UnstructurePruneSection | None, Becomes("prune.unstructured")] = None
    TrainConfig: TrainConfigSection | None = None
