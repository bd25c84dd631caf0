"""The sections of ACT's configurations, as `auto_compression/strategy_config.py` of PaddleSlim 2.3 to 2.6 has them.

A value that ACT would not take is refused here. What a section leaves out stays None, for ACT's defaults are not ours.
Beside each key stands what it becomes, or why it means nothing here; the translator knows the rest.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from act.settings import DistillationLoss, GmpConfig, Settings, ThresholdAlgorithm
from act.settings.base import ChannelCriterion

Item = TypeVar("Item")

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Becomes:
    """The section of a job in which a key, or each key of a section, becomes a setting, of its own name or another."""

    section: str
    name: str | None = None


@dataclass(frozen=True)
class Ignored:
    """Why a key means nothing here; told where its value is not the default."""

    why: str


def _number_if_one(value: Any) -> Any:
    # YAML 1.1 takes 1e-5, which lacks a point, for a text.
    if isinstance(value, list):
        return [_number_if_one(each) for each in value]
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def _numbers(values: Any) -> Any:
    """Return what is given in a mapping, with its numbers."""
    if not isinstance(values, dict):
        return values
    return {key: _number_if_one(value) for key, value in values.items() if value is not None}


def _null_if_none(value: Any) -> Any:
    return None if value == "None" else value


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _distinct(values: list[Item]) -> list[Item]:
    return list(dict.fromkeys(values))


def _eight(bits: int) -> int:
    if bits != 8:
        raise ValueError("only 8 bits are made here, because the engines run no others: use 8")
    return bits


Number = Annotated[float, BeforeValidator(_number_if_one)]
OneOf = Annotated[Item | None, BeforeValidator(_null_if_none)]
Text = OneOf[str]
Folder = Annotated[Text, AfterValidator(lambda path: path and (path.rstrip("/") or "/"))]
Pixels = OneOf[Annotated[int, Field(ge=1)]]
Choices = Annotated[list[Item], BeforeValidator(_listed), AfterValidator(_distinct), Field(min_length=1)] | None
Names = OneOf[Annotated[list[str], BeforeValidator(_listed)]]
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
_INPUTS = Ignored("inputs are read from the model")
_GRAPH = Ignored("the kind of model is read from its graph")
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
    batch_nums: OneOf[Annotated[int, Field(ge=1)]] = None
    epochs: Annotated[int | None, Ignored("reconstruction counts steps here: `refine.steps`")] = None
    lr: Annotated[Number | None, Ignored("reconstruction has a rate of its own: `refine.learning_rate`")] = None
    algo: ThresholdAlgorithm | None = None
    hist_percent: Number | None = None
    regions: Annotated[OneOf[list[list[str]]], _REGIONS] = None
    region_weights_names: Annotated[OneOf[list[list[str]]], _REGIONS] = None
    recon_level: OneOf[Literal["layer-wise", "region-wise"]] = None
    bias_correction: bool | None = None
    activation_quantize_type: Annotated[ActivationScale | None, Ignored("`ptq_search.ptq_algo` makes them")] = None
    simulate_activation_quant: Annotated[bool, Ignored("reconstruction always quantizes activations")] = True
    skip_tensor_list: Annotated[Names, Ignored("the search finds float layers: `ptq_search.max_float_layers`")] = None


class HyperParameterOptimizationSection(Settings):
    ptq_algo: Annotated[Choices[ThresholdAlgorithm], Becomes("ptq_search")] = None
    bias_correct: Annotated[Choices[bool], Becomes("ptq_search")] = None
    weight_quantize_type: Choices[WeightScale] = None
    hist_percent: Choices[Number] = None
    batch_num: Choices[int] = None
    max_quant_count: Annotated[int | None, Field(ge=1), Becomes("ptq_search")] = None


class DistillationSection(Settings):
    loss: Annotated[DistillationLoss | list[DistillationLoss] | None, Becomes("distillation")] = None
    node: Annotated[list[str] | list[list[str]] | None, Becomes("distillation")] = None
    alpha: Annotated[Number | list[Number] | None, Becomes("distillation")] = None
    teacher_model_dir: Text | list[str] = None
    teacher_model_filename: Text | list[Text] = None
    teacher_params_filename: Text | list[Text] = None


class ChannelPruneSection(Settings):
    pruned_ratio: Number | list[Number]
    prune_params_name: Names = None
    criterion: ChannelCriterion | None = None


class ASPPruneSection(Settings):
    prune_params_name: Names = None


class TransformerPruneSection(Settings):
    pruned_ratio: Number


class UnstructurePruneSection(Settings):
    prune_strategy: OneOf[Literal["base", "gmp"]] = None
    prune_mode: Literal["ratio", "threshold"] = "ratio"
    threshold: Number | None = None
    ratio: Number | None = None
    gmp_config: Annotated[GmpConfig | None, BeforeValidator(_numbers)] = None
    prune_params_type: OneOf[Literal["conv1x1_only"]] = None
    local_sparsity: bool | None = None


class Open(Settings):
    """A mapping with further keys than those named."""

    model_config = ConfigDict(extra="allow")


def _schedule(rate: Any) -> Any:
    if not isinstance(rate, dict):
        return rate
    if not isinstance(rate.get("type"), str):
        raise ValueError("name a class of paddle.optimizer.lr as `type`, such as CosineAnnealingDecay")
    return {key: _number_if_one(value) for key, value in rate.items()}


class Named(Open):
    """A class of Paddle, with its parameters."""

    type: str


class LearningRate(Named):
    learning_rate: Number | None = None


class Regularizer(Named):
    coeff: Number | None = None
    regularization_coeff: Number | None = None


class OptimizerBuilder(Settings):
    optimizer: Named
    weight_decay: Number | None = None
    regularizer: Regularizer | None = None
    grad_clip: Annotated[dict[str, Any] | None, Ignored("gradients are clipped, always by their global norm")] = None


class TrainConfigSection(Settings):
    epochs: int | None = Field(default=None, ge=1)
    train_iter: int | None = Field(default=None, ge=1)
    learning_rate: Annotated[Number | LearningRate | None, BeforeValidator(_schedule)] = None
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
    """The keys of PaddleSlim's example scripts."""

    model_dir: Annotated[Folder, Becomes("model", "path")] = None
    model_filename: Annotated[Text, Becomes("model")] = None
    params_filename: Annotated[Text, Becomes("model")] = None
    data_dir: Folder = None
    # These three count with `data_dir` alone.
    img_size: Pixels = None
    crop_size: Pixels = None
    resize_size: Pixels = None
    batch_size: OneOf[Annotated[int, Field(ge=1, le=1024)]] = None
    input_shapes: OneOf[Any] = None
    deploy_hardware: OneOf[Any] = None
    input_name: Annotated[OneOf[Any], _INPUTS] = None
    input_names: Annotated[OneOf[Any], _INPUTS] = None
    character_dict_path: Annotated[OneOf[Any], Ignored("`data.alphabet` of the reader `text_lines`")] = None
    Evaluation: Annotated[OneOf[Any], Ignored("evaluation is always done, by the job's `metric`")] = None
    model_type: Annotated[OneOf[Any], _GRAPH] = None
    arch: Annotated[OneOf[Any], _GRAPH] = None


class Sections(Settings):
    """Every section that a file may have; those that it lacks are None."""

    Global: GlobalSection | None = None
    QuantAware: QuantAwareSection | None = None
    Quantization: QuantAwareSection | None = None
    QuantPost: QuantPostSection | None = None
    HyperParameterOptimization: HyperParameterOptimizationSection | None = None
    Distillation: DistillationSection | None = None
    MultiTeacherDistillation: DistillationSection | None = None
    ChannelPrune: Annotated[ChannelPruneSection | None, Becomes("prune.channel")] = None
    ASPPrune: Annotated[ASPPruneSection | None, Becomes("prune.asp")] = None
    TransformerPrune: Annotated[TransformerPruneSection | None, Becomes("prune.transformer")] = None
    UnstructurePrune: Annotated[UnstructurePruneSection | None, Becomes("prune.unstructured")] = None
    TrainConfig: TrainConfigSection | None = None
