"""The settings of every job, read from `params.yaml` and checked in full before any work starts.

One pydantic model a stage. Unknown keys are refused, and each error names the key, the value found and what is allowed.
The default and the range of a setting stand here and nowhere else; `dvc.yaml` names the same keys as dependencies.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from act import registry
from act.errors import InputError

DEFAULT_PATH = Path("params.yaml")

ThresholdAlgorithm = Literal["abs_max", "avg", "min_max", "hist", "mse", "emd", "KL"]
Precision = Literal["fp32", "bf16", "int8"]
Metric = Literal["ctc_exact", "top1", "similarity"]
StrategyName = Literal[
    "QuantPost",
    "HyperParameterOptimization",
    "QuantAware",
    "Distillation",
    "ChannelPrune",
    "UnstructurePrune",
    "ASPPrune",
    "TransformerPrune",
]
PRUNING: tuple[StrategyName, ...] = ("ChannelPrune", "UnstructurePrune", "ASPPrune", "TransformerPrune")
QUANTIZING: tuple[StrategyName, ...] = ("QuantPost", "HyperParameterOptimization", "QuantAware")
ChannelCriterion = Annotated[str, AfterValidator(registry.CRITERIA.check)]
WeightQuantization = Literal["abs_max", "channel_wise_abs_max", "channel_wise_mse"]
OptimizerName = Literal["SGD", "Momentum", "Adagrad", "RMSProp", "Adam", "Adamax", "AdamW", "Lamb"]
ScheduleName = Literal[
    "constant",
    "CosineAnnealingDecay",
    "PiecewiseDecay",
    "StepDecay",
    "MultiStepDecay",
    "ExponentialDecay",
    "NaturalExpDecay",
    "InverseTimeDecay",
    "PolynomialDecay",
]
DistillationLoss = Literal["l2", "soft_label", "dkd", "skd", "fsp"]
RefineMethod = Literal["adaround", "layer_wise", "region_wise"]
QuantizableOperator = Literal["conv2d", "depthwise_conv2d", "conv2d_transpose", "matmul_v2", "mul"]


def _engine(name: str) -> str:
    """Refuse a name that no engine has, or one that only the stand-alone measurement runs."""
    known = [spec.name for spec in _engine_specs()]
    if name not in known:
        *others, last = (f"'{each}'" for each in known)
        raise ValueError(f"Input should be {', '.join(others)} or {last}")
    return name


def _engine_specs() -> list[Any]:
    """Return the specs of the engines that a target can have (`act.engines.spec.Spec`), in their usual order."""
    specs = [registry.ENGINES.load(name).SPEC for name in registry.ENGINES.names()]
    return sorted((spec for spec in specs if spec.writer is not None), key=lambda spec: spec.order)


EngineName = Annotated[str, AfterValidator(_engine)]

PAGE_STEP = 32

Checked = TypeVar("Checked", bound="Settings")

JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, numbers are not guessed from strings, nothing changes later."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ModelSource(Settings):
    """Where the inference model is."""

    path: str = Field(
        min_length=1,
        description="a folder with an inference model, its `.pdmodel` file, or a `.yaml` file that names a folder "
        "inside an installed package",
    )
    model_filename: str | None = Field(default=None, description="name of the program file, when it is not a usual one")
    params_filename: str | None = Field(
        default=None, description="name of the weights file, when it is not a usual one"
    )


class TextLines(Settings):
    """Text drawn with real fonts and degraded like photographs, from a list of words and a seed.

    For `recognition` and `direction` a sample is one line, for `detection` a page with several, unlabelled.
    """

    reader: Literal["text_lines"]
    path: str = Field(min_length=1, description="text file with one word a line")
    task: Literal["recognition", "direction", "detection"] = "recognition"
    alphabet: str | None = Field(
        default=None,
        description="file with one character a line, or a model's reference file; needed for `recognition`",
    )
    calibration: int = Field(default=128, ge=1, le=100_000)
    evaluation: int = Field(default=512, ge=1, le=100_000)
    height: int = Field(default=48, ge=8, le=4096)
    width: int = Field(default=320, ge=16, le=4096)
    seed: int = Field(default=0, ge=0, le=2**32 - 1)

    @model_validator(mode="after")
    def _recognition_needs_an_alphabet(self) -> TextLines:
        if self.task == "recognition" and self.alphabet is None:
            raise ValueError("`alphabet` is missing: the task `recognition` needs the model's alphabet file")
        return self

    @model_validator(mode="after")
    def _pages_can_be_halved(self) -> TextLines:
        if self.task == "detection" and (self.height % PAGE_STEP or self.width % PAGE_STEP):
            raise ValueError(
                f"`height` is {self.height} and `width` {self.width}: the task `detection` needs multiples of "
                f"{PAGE_STEP}, because the network halves its pictures five times"
            )
        return self


class Arrays(Settings):
    """The user's own samples: one array a feed, first axis = samples, with or without an array `label`.

    Either `calibration.npz` and `evaluation.npz`, or the folders `calibration/` and `evaluation/` with a file
    `FEED.npy` for each feed, which is mapped and so may be larger than the memory. Samples of different shapes: all
    values one after another, and `FEED.shapes`, the shape of each sample.
    """

    reader: Literal["arrays"]
    path: str = Field(
        min_length=1,
        description="folder with calibration.npz and evaluation.npz, or with the folders calibration/ and evaluation/",
    )


class ImageFolder(Settings):
    """Pictures in a folder, in ImageNet's layout: a list names them, each with or without its class number."""

    reader: Literal["image_folder"]
    path: str = Field(min_length=1, description="folder that holds the pictures and the lists, at whatever depth")
    calibration_list: str | None = Field(
        default=None,
        min_length=1,
        description="text file inside the folder, a line `relative/path.jpg CLASS` a picture, the class optional; all "
        "pictures of the folder, sorted, when left out",
    )
    evaluation_list: str | None = Field(
        default=None,
        min_length=1,
        description="likewise; when left out, the pictures of `calibration_list` are dealt out to both",
    )
    calibration: int = Field(default=128, ge=1, le=1_000_000, description="pictures at most, evenly from the list")
    evaluation: int = Field(default=512, ge=1, le=1_000_000, description="pictures at most, evenly from the list")
    resize: int | None = Field(
        default=256, ge=1, le=8192, description="length of the shorter side; null: the picture is stretched to `size`"
    )
    size: list[Annotated[int, Field(ge=1, le=8192)]] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="[height, width] cut from the middle; what the model's input asks for when left out",
    )
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    order: Literal["RGB", "BGR"] = "RGB"
    scale: float = Field(
        default=1 / 255, gt=0, description="an input is (pixel x scale - mean) / std, a pixel 0 to 255"
    )
    mean: list[float] = Field(default=[0.485, 0.456, 0.406], min_length=1, max_length=3, description="in this `order`")
    std: list[Annotated[float, Field(gt=0)]] = Field(default=[0.229, 0.224, 0.225], min_length=1, max_length=3)

    @model_validator(mode="after")
    def _stretching_needs_no_crop(self) -> ImageFolder:
        if self.resize is not None and self.size is not None and max(self.size) > self.resize:
            raise ValueError(
                f"`size` is {self.size}, larger than `resize` {self.resize}: raise that, or set it to null to stretch"
            )
        if {len(self.mean), len(self.std)} - {1, 3} or len(self.mean) != len(self.std):
            raise ValueError("`mean` and `std` must both have one value, or both three")
        return self


class Function(Settings):
    """A Python function of the user's that returns a loader: an iterable of batches, such as a `paddle.io.DataLoader`.

    A batch is a dictionary of arrays by input, with or without `label`, or a list of arrays in the order of the
    model's inputs, with or without the labels at its end. The first axis of each array counts the samples.
    """

    reader: Literal["function"]
    path: str = Field(
        min_length=1, description="file or folder that DVC follows: where the function is, or what it reads"
    )
    function: str = Field(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$",
        description="`package.module:function`, in the project's folder or an installed package",
    )
    evaluation_function: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$",
        description="likewise for the evaluation samples; when left out, one loader's samples are dealt out to both",
    )
    settings: dict[str, bool | int | float | str | None] = Field(
        default={}, max_length=64, description="keyword arguments of the functions"
    )
    calibration: int = Field(default=128, ge=1, le=1_000_000, description="samples at most")
    evaluation: int = Field(default=512, ge=1, le=1_000_000, description="samples at most")


Data = Annotated[TextLines | Arrays | ImageFolder | Function, Field(discriminator="reader")]
_READERS: dict[str, type[Settings]] = {
    "text_lines": TextLines,
    "arrays": Arrays,
    "image_folder": ImageFolder,
    "function": Function,
}


class Target(Settings):
    """What the model must run fast on: engines are compared with one another, the fastest may win."""

    device: Literal["cpu"] = "cpu"
    engines: list[EngineName] = Field(
        default_factory=lambda: [spec.name for spec in _engine_specs() if spec.default is not None],
        min_length=1,
        description="the first is what candidates are searched on; some also give files for other devices",
    )
    precisions: list[Precision] = Field(default=list(get_args(Precision)), min_length=1)
    threads: int = Field(default=1, ge=1, le=256)
    batch: int = Field(default=1, ge=1, le=1024)

    @field_validator("engines", "precisions")
    @classmethod
    def _no_repeats(cls, names: list[str]) -> list[str]:
        if len(set(names)) != len(names):
            raise ValueError("a name stands twice")
        return names

    @field_validator("engines")
    @classmethod
    def _some_do_not_decide(cls, names: list[str]) -> list[str]:
        reason = registry.ENGINES.load(names[0]).SPEC.not_first
        if reason is not None:
            raise ValueError(
                f"`{names[0]}` cannot stand first: candidates are searched on the first engine, and {reason}; put "
                "another before it"
            )
        return names

    @field_validator("precisions")
    @classmethod
    def _fp32_is_the_reference(cls, names: list[str]) -> list[str]:
        if "fp32" not in names:
            raise ValueError("fp32 must be listed: it is what every candidate is compared with")
        return names


ROUNDING = 1e-9
"""A drop is a mean over samples: 0.01 of 500 samples must not miss a budget of 0.01 by a rounding error."""
CLEARLY = 2.0
"""So many times the quality that may be lost is clearly too much: no training is expected to win it back."""


class Budget(Settings):
    """What the user will give for speed."""

    max_quality_drop: float = Field(default=0.01, ge=0, le=1, description="in units of the quality metric")
    min_speedup: float = Field(
        default=1.0, ge=1.0, le=1000, description="a winner other than fp32 is at least this many times faster than it"
    )
    max_latency_ms: float | None = Field(
        default=None, gt=0, description="a winner's median latency for one batch is at most this"
    )
    time_limit_minutes: float | None = Field(
        default=None, gt=0, description="no further strategy is tried that is expected to end later than this"
    )


class Calibration(Settings):
    """The one pass over the calibration samples that every threshold rule reads its statistics from."""

    batch_size: int = Field(default=8, ge=1, le=1024)
    batch_num: list[int] = Field(
        default=[4, 16],
        min_length=1,
        max_length=8,
        description="numbers of batches after which the statistics are kept, for the search to choose from",
    )

    @field_validator("batch_num")
    @classmethod
    def _whole_batches(cls, numbers: list[int]) -> list[int]:
        if any(not 1 <= number <= 1_000_000 for number in numbers):
            raise ValueError("each must lie between 1 and 1000000")
        return numbers


class PtqSearch(Settings):
    """The search over post-training quantization settings: its space (ACT's names of the parameters) and its limits."""

    ptq_algo: list[ThresholdAlgorithm] = Field(default=list(get_args(ThresholdAlgorithm)), min_length=1)
    hist_percent: list[float] = Field(
        default=[0.999, 0.9999, 0.99999], min_length=1, description="for `hist`: the share of values that is covered"
    )
    batch_num: list[int] | None = Field(
        default=None, min_length=1, description="some of `calibration.batch_num`; all of them when left out"
    )
    weight_quantize_type: list[WeightQuantization] = Field(
        default=["channel_wise_abs_max", "channel_wise_mse"], min_length=1
    )
    bias_correct: list[bool] = Field(default=[True, False], min_length=1)
    activation_symmetric: list[bool] = Field(
        default=[True, False], min_length=1, description="whether activations have no zero point"
    )
    quantizable_op_type: list[QuantizableOperator] = Field(
        default=list(get_args(QuantizableOperator)),
        min_length=1,
        description="those that the target's first engine cannot run in int8 are left out",
    )
    max_float_layers: int = Field(
        default=8, ge=0, le=1000, description="how many of the most sensitive layers may stay in floating point"
    )
    max_quant_count: int = Field(default=30, ge=1, le=10_000, description="trials")
    side_by_side: int = Field(
        default=2,
        ge=1,
        le=32,
        description="trials that are suggested at a time, and so may run at the same time; part of what is searched, "
        "wherever they run: the fewer, the more each learns from those before it",
    )
    time_limit_minutes: float = Field(default=30.0, gt=0, le=60 * 24 * 7)
    seed: int = Field(default=0, ge=0, le=2**32 - 1)

    @field_validator("hist_percent")
    @classmethod
    def _percent_is_a_share(cls, shares: list[float]) -> list[float]:
        if any(not 0.5 <= share <= 1 for share in shares):
            raise ValueError("each must lie between 0.5 and 1")
        return shares

    @field_validator("*")
    @classmethod
    def _no_repeats(cls, value: Any) -> Any:
        if isinstance(value, list) and len(set(value)) != len(value):
            raise ValueError("a value stands twice")
        return value


class Refine(Settings):
    """Later refinements of the search's best candidates; one that measures no better is dropped."""

    methods: list[RefineMethod] = Field(
        default=["adaround", "layer_wise", "region_wise"], description="in this order, each from the best so far"
    )
    candidates: int = Field(default=2, ge=0, le=100, description="of those that lose quality, how many are refined")
    samples: int = Field(default=64, ge=1, le=100_000, description="calibration samples, at most")
    batch_size: int = Field(default=8, ge=1, le=1024)
    steps: int = Field(default=48, ge=1, le=100_000, description="of training, for each reconstruction")
    learning_rate: float = Field(default=3e-5, gt=0, le=1)
    region_layers: int = Field(default=4, ge=1, le=1000, description="fewest quantized layers in a region")
    time_limit_minutes: float = Field(default=10.0, gt=0, le=60 * 24 * 7)
    seed: int = Field(default=0, ge=0, le=2**32 - 1)


class Schedule(Settings):
    """How the learning rate changes, step by step, by the name of Paddle's class in `paddle.optimizer.lr`.

    `learning_rate` is where it starts. Each class reads its own parameters and refuses those of others.
    """

    type: ScheduleName = "CosineAnnealingDecay"
    T_max: int | None = Field(
        default=None, ge=1, description="CosineAnnealingDecay: steps of the decay; all steps when left out"
    )
    eta_min: float | None = Field(default=None, ge=0, le=1, description="CosineAnnealingDecay: the rate at its end")
    gamma: float | None = Field(default=None, gt=0, le=10, description="the decays by a factor or an exponent")
    step_size: int | None = Field(default=None, ge=1, description="StepDecay: steps between two factors")
    milestones: list[int] | None = Field(default=None, min_length=1, description="MultiStepDecay: steps, ascending")
    boundaries: list[int] | None = Field(default=None, min_length=1, description="PiecewiseDecay: steps, ascending")
    values: list[Annotated[float, Field(ge=0, le=1)]] | None = Field(
        default=None, min_length=2, description="PiecewiseDecay: rates before, between and after `boundaries`"
    )
    decay_steps: int | None = Field(default=None, ge=1, description="PolynomialDecay: all steps when left out")
    end_lr: float | None = Field(default=None, ge=0, le=1, description="PolynomialDecay: the rate at its end")
    power: float | None = Field(default=None, gt=0, le=100, description="PolynomialDecay")
    warmup_steps: int = Field(default=0, ge=0, description="before any of them the rate rises linearly from 0")

    @model_validator(mode="after")
    def _parameters_fit(self) -> Schedule:
        needed, optional = _SCHEDULES[self.type]
        given = {name for name in self.model_fields_set - {"type", "warmup_steps"} if getattr(self, name) is not None}
        if missing := needed - given:
            raise ValueError(f"{self.type} needs {_quoted(missing)}")
        if foreign := given - needed - optional:
            known = f"it reads {_quoted(needed | optional)}" if needed | optional else "it reads none"
            raise ValueError(f"{self.type} has no {_quoted(foreign)}: {known}")
        for steps in (self.milestones, self.boundaries):
            if steps is not None and (steps[0] < 1 or any(a >= b for a, b in pairwise(steps))):
                raise ValueError(f"steps must be at least 1 and ascend: {steps}")
        if self.boundaries is not None and self.values is not None and len(self.values) != len(self.boundaries) + 1:
            raise ValueError("`values` must have one rate more than `boundaries` has steps")
        return self


# What each schedule must be given, and may be given.
_SCHEDULES: dict[str, tuple[set[str], set[str]]] = {
    "constant": (set(), set()),
    "CosineAnnealingDecay": (set(), {"T_max", "eta_min"}),
    "PiecewiseDecay": ({"boundaries", "values"}, set()),
    "StepDecay": ({"step_size"}, {"gamma"}),
    "MultiStepDecay": ({"milestones"}, {"gamma"}),
    "ExponentialDecay": ({"gamma"}, set()),
    "NaturalExpDecay": ({"gamma"}, set()),
    "InverseTimeDecay": ({"gamma"}, set()),
    "PolynomialDecay": (set(), {"decay_steps", "end_lr", "power"}),
}


def _quoted(names: set[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


class TrainConfig(Settings):
    """What every training is told; the names are those of ACT's `TrainConfig` where ACT has the setting."""

    epochs: int = Field(default=3, ge=1, le=100_000)
    batch_size: int = Field(default=8, ge=1, le=1024)
    train_iter: int | None = Field(default=None, ge=1, description="steps at most, whatever `epochs` says")
    eval_iter: int | None = Field(
        default=None,
        ge=1,
        description="steps from one evaluation to the next; by `evaluations_per_epoch` when left out",
    )
    evaluations_per_epoch: int = Field(default=1, ge=1, le=1000)
    learning_rate: float = Field(default=1e-5, gt=0, le=1)
    learning_rate_schedule: Schedule = Schedule()
    optimizer: OptimizerName = Field(default="Adam", description="a class of `paddle.optimizer`, with its own values")
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="decoupled in AdamW and Lamb, else L2")
    patience: int | None = Field(
        default=None, ge=1, description="evaluations in a row without a new best after which training stops"
    )
    target_metric: float | None = Field(default=None, description="quality at which training stops")
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    time_limit_minutes: float = Field(default=10.0, gt=0, le=60 * 24 * 7)


PrunedRatio = Annotated[float, Field(gt=0, lt=1)]
WeightNames = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class ChannelPrune(Settings):
    """Whole output channels are taken out of convolutions, and of all that goes with them."""

    pruned_ratio: PrunedRatio | Annotated[list[PrunedRatio], Field(min_length=1)] | None = Field(
        default=None,
        description="share of the channels that goes, one for all layers or one for each of `prune_params_name`; "
        "chosen layer by layer when left out",
    )
    prune_params_name: WeightNames | None = Field(
        default=None, description="weights of the convolutions that are pruned; all that can be when left out"
    )
    criterion: ChannelCriterion = "l1_norm"
    target_speedup: float | None = Field(
        default=None,
        gt=1,
        le=100,
        description="ratios are chosen so that the model is this many times faster on the target's first engine",
    )
    kept_multiply_adds: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="ratios are chosen so that this share of the MACs is left; 0.6, or what the chosen "
        "strategy says, when all three are left out",
    )

    @model_validator(mode="after")
    def _one_way_to_choose(self) -> ChannelPrune:
        given = [
            f"`{name}`"
            for name in ("pruned_ratio", "target_speedup", "kept_multiply_adds")
            if getattr(self, name) is not None
        ]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} each say how much is pruned: choose one of them")
        if isinstance(self.pruned_ratio, list):
            names = len(self.prune_params_name or [])
            if len(self.pruned_ratio) != names:
                raise ValueError(
                    f"`pruned_ratio` lists {len(self.pruned_ratio)} ratios for {names} names in `prune_params_name`: "
                    "give each name one ratio, or all the same"
                )
        return self


class GmpConfig(Settings):
    """The steps of gradual magnitude pruning. What is left out is a share of all steps of the training.

    ACT's names, and its spelling of `tunning_iterations`.
    """

    stable_iterations: int | None = Field(default=None, ge=0, description="steps before pruning; 0 when left out")
    pruning_iterations: int | None = Field(
        default=None, ge=1, description="steps over which weights become zero; half of all when left out"
    )
    tunning_iterations: int | None = Field(
        default=None, ge=0, description="steps after pruning; the rest when left out, and training ends with them"
    )
    resume_iteration: int = Field(default=-1, ge=-1, le=0, description="a stage that was stopped goes on by itself")
    pruning_steps: int = Field(default=100, ge=1, description="how many times the ratio is raised")
    initial_ratio: float = Field(default=0.15, ge=0, lt=1, description="share of zeros at the first of them")


class UnstructurePrune(Settings):
    """Single weights of smallest magnitude become zero."""

    prune_strategy: Literal["base", "gmp"] = Field(
        default="gmp", description="`base`: all of them before training; `gmp`: more and more while it goes on"
    )
    prune_mode: Literal["ratio", "threshold"] = "ratio"
    ratio: float = Field(default=0.75, gt=0, lt=1, description="share of zeros, for the mode `ratio`")
    threshold: float = Field(default=0.01, gt=0, description="magnitude below which weights go, for `threshold`")
    gmp_config: GmpConfig = GmpConfig()
    prune_params_type: Literal["conv1x1_only"] | None = Field(
        default=None, description="`conv1x1_only`: no weights but those of 1x1 convolutions"
    )
    local_sparsity: bool = Field(
        default=False, description="`ratio` holds for each layer rather than for all of them together"
    )

    @model_validator(mode="after")
    def _gmp_has_a_ratio(self) -> UnstructurePrune:
        if (
            self.prune_strategy == "gmp"
            and self.prune_mode == "threshold"
            and "prune_strategy" in self.model_fields_set
        ):
            raise ValueError("`gmp` raises a ratio step by step: use `prune_mode: ratio`, or `prune_strategy: base`")
        if self.prune_strategy == "gmp" and self.prune_mode == "ratio" and self.gmp_config.initial_ratio > self.ratio:
            raise ValueError(
                f"`gmp_config.initial_ratio` is {self.gmp_config.initial_ratio:g}, more than the `ratio` of "
                f"{self.ratio:g} that it shall rise to"
            )
        return self

    @property
    def gradual(self) -> bool:
        """Whether zeros become more while the training goes on; a threshold makes all of them at once."""
        return self.prune_strategy == "gmp" and self.prune_mode == "ratio"


class ASPPrune(Settings):
    """Of every four weights in a row along the input channels two become zero: the 2:4 pattern of NVIDIA's GPUs."""

    prune_params_name: WeightNames | None = Field(
        default=None, description="weights that are pruned; all that hold the pattern when left out"
    )


class TransformerPrune(Settings):
    """Heads of attention and feed-forward width are taken out of a transformer."""

    pruned_ratio: PrunedRatio = Field(default=0.25, description="share of the heads and of the width that goes")


class Prune(TrainConfig):
    """Pruning, and training after it with the fp32 model as teacher.

    What is pruned, and in which order, the list in `strategy` says; the sub-sections say how.
    """

    epochs: int = Field(default=10, ge=1, le=100_000)
    learning_rate: float = Field(default=3e-4, gt=0, le=1)
    channel: ChannelPrune = ChannelPrune()
    unstructured: UnstructurePrune = UnstructurePrune()
    asp: ASPPrune = ASPPrune()
    transformer: TransformerPrune = TransformerPrune()


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
    not_quant_pattern: list[Annotated[str, Field(min_length=1)]] = Field(
        default=[], description="layers stay in float whose name, weight or name scope holds one of these"
    )

    @model_validator(mode="after")
    def _one_way_to_learn_ranges(self) -> Qat:
        if self.use_pact and self.scale_trainable and "scale_trainable" in self.model_fields_set:
            raise ValueError(
                "`use_pact` and `scale_trainable` both train the ranges of activations: choose one of them"
            )
        return self


class Distillation(Settings):
    """What training compares the student with; ACT's names, for one teacher and for several.

    `loss`, `node`, `alpha` and `teachers` may each be one or a list. Lists of one length belong together, entry by
    entry; what is given once holds for all.
    """

    loss: DistillationLoss | list[DistillationLoss] | None = Field(
        default=None,
        description="when left out, each output's squared error as a share of its mean square, for a softmax that of "
        "its logits and the cross entropy to the teacher's probabilities",
    )
    node: list[str] | list[list[str]] | None = Field(
        default=None,
        description="variables of the model, for `fsp` in pairs; found in the graph when left out",
    )
    alpha: float | list[float] = Field(default=1.0, description="weight of the loss")
    temperature: float = Field(default=1.0, gt=0, le=100, description="of `soft_label` and `dkd`")
    beta: float = Field(
        default=1.0, ge=0, le=100, description="of `dkd`: weight of the classes that are not the target"
    )
    teachers: list[ModelSource] = Field(
        default=[], max_length=8, description="other models that do the same; the fp32 model itself when left out"
    )

    @field_validator("loss", "node", "alpha")
    @classmethod
    def _no_empty_list(cls, value: Any) -> Any:
        if value == [] or (isinstance(value, list) and [] in value):
            raise ValueError("an empty list: leave it out, or fill it")
        return value

    @model_validator(mode="after")
    def _lists_belong_together(self) -> Distillation:
        if self.loss is None and self.node is not None:
            raise ValueError("`node` needs a `loss`")
        lengths = {key: length for key, length in self._lengths().items() if length > 1}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"`{key}` has {length}" for key, length in lengths.items())
            raise ValueError(f"lists must have the same length, or one entry: {found}")
        return self

    def _lengths(self) -> dict[str, int]:
        nested = self.node is not None and isinstance(self.node[0], list)
        return {
            "loss": len(self.loss) if isinstance(self.loss, list) else 1,
            "node": len(self.node or [0]) if nested else 1,
            "alpha": len(self.alpha) if isinstance(self.alpha, list) else 1,
            "teachers": len(self.teachers) or 1,
        }

    def terms(self) -> list[tuple[DistillationLoss | None, list[str] | None, float, int]]:
        """The parts of the loss: what is computed, on which variables (None: found), its weight, and which teacher."""
        count = max(self._lengths().values())
        losses = self.loss if isinstance(self.loss, list) else [self.loss]
        nodes: list[Any] = [self.node]
        if self.node is not None and isinstance(self.node[0], list):
            nodes = list(self.node)
        alphas = self.alpha if isinstance(self.alpha, list) else [self.alpha]
        teachers = range(len(self.teachers) or 1)
        return [
            (
                losses[part % len(losses)],
                nodes[part % len(nodes)],
                alphas[part % len(alphas)],
                teachers[part % len(teachers)],
            )
            for part in range(count)
        ]


class Analyze(Settings):
    """How each layer's sensitivity is measured; 0 samples or 0 seconds measure none."""

    samples: int = Field(default=8, ge=0, le=1024, description="calibration samples, at most")
    prune_ratios: list[PrunedRatio] = Field(default=[0.1, 0.3, 0.5], description="shares of a layer's channels")
    time_limit_seconds: float = Field(default=60, ge=0, le=24 * 3600, description="after which no layer is begun")

    @field_validator("prune_ratios")
    @classmethod
    def _ratios_ascend(cls, ratios: list[float]) -> list[float]:
        if any(a >= b for a, b in pairwise(ratios)):
            raise ValueError(f"ratios must ascend: {ratios}")
        return ratios


class Timing(Settings):
    """How latency and throughput are measured."""

    rounds: int = Field(
        default=20,
        ge=3,
        le=10_000,
        description="in each, every candidate takes a turn, in random order; a candidate's latency is the 20 % "
        "quantile of its turns' medians, so that many short rounds tell more than few long ones",
    )
    runs_per_round: int = Field(default=5, ge=1, le=10_000)
    time_limit_seconds: float = Field(default=300, gt=0, le=24 * 3600, description="for one candidate on one engine")
    streams: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="inferences at a time when throughput is measured; as many as there are cores for when left out, "
        "1 measures none",
    )
    seed: int = Field(default=0, ge=0, le=2**32 - 1)


class Benchmark(Timing):
    """How the candidates of a job are measured."""

    shapes: list[dict[str, Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]]] = Field(
        default=[],
        max_length=16,
        description="further shapes of the inputs to measure the latency of, for models with dynamic axes: for each "
        "feed the shape of a sample, without the batch axis",
    )


class Job(Settings):
    """One model on one target, with its data and budget.

    Every section must stand in the file, if only as `{}`: DVC refuses to follow a key that is not there.
    """

    model: ModelSource
    data: Data
    metric: Metric
    target: Target
    budget: Budget
    strategy: Literal["auto"] | list[StrategyName] = Field(description="`auto`, or a list that is obeyed as it is")
    act_config: str | None = Field(
        default=None,
        min_length=1,
        description="ACT's YAML file that this entry was made from (`python -m flows.act_config`); what it says, the "
        "entry must say, too, because DVC follows the entry",
    )
    # `python -m` does without it, DVC does not.
    analyze: Analyze = Analyze()
    calibration: Calibration
    ptq_search: PtqSearch
    refine: Refine
    distillation: Distillation
    prune: Prune
    qat: Qat
    benchmark: Benchmark

    @field_validator("strategy")
    @classmethod
    def _distillation_needs_training(cls, strategy: Any) -> Any:
        if "Distillation" in strategy and not {"QuantAware", *PRUNING} & set(strategy):
            raise ValueError("`Distillation` alone trains nothing: add `QuantAware`, or one that prunes")
        return strategy

    @field_validator("strategy")
    @classmethod
    def _order_makes_sense(cls, strategy: Any) -> Any:
        if strategy == "auto":
            return strategy
        if twice := {name for name in strategy if strategy.count(name) > 1}:
            raise ValueError(f"{_quoted(twice)} stands twice")
        prunes = [name for name in strategy if name in PRUNING]
        quantizes = [place for place, name in enumerate(strategy) if name in QUANTIZING]
        late = [name for name in prunes if quantizes and strategy.index(name) > quantizes[0]]
        if late:
            raise ValueError(f"{late[0]} must stand before {strategy[quantizes[0]]}: a quantized model is not pruned")
        sparse = [name for name in prunes if name in ("UnstructurePrune", "ASPPrune")]
        if len(sparse) > 1:
            raise ValueError("`UnstructurePrune` and `ASPPrune` set the same weights to zero: choose one of them")
        if sparse and prunes[-1] != sparse[0]:
            raise ValueError(
                f"{prunes[-1]} must stand before {sparse[0]}: channels that are cut out would break the pattern of "
                "zeros"
            )
        return strategy

    @model_validator(mode="after")
    def _strategy_fits_the_target(self) -> Job:
        quantizing = [] if self.strategy == "auto" else [name for name in self.strategy if name in QUANTIZING]
        if quantizing and "int8" not in self.target.precisions:
            raise ValueError(
                f"strategy {', '.join(quantizing)} makes int8 models, but `target.precisions` lacks int8: add it, "
                "or take it out of `strategy`"
            )
        return self

    @model_validator(mode="after")
    def _batch_numbers_are_kept(self) -> Job:
        missing = [n for n in self.ptq_search.batch_num or [] if n not in self.calibration.batch_num]
        if missing:
            raise ValueError(
                f"`ptq_search.batch_num` has {missing}, for which `calibration.batch_num` keeps no statistics: add them"
                " there"
            )
        return self

    @model_validator(mode="after")
    def _metric_fits_the_data(self) -> Job:
        if isinstance(self.data, TextLines):
            fitting = {"recognition": ["ctc_exact"], "direction": ["top1"], "detection": []}[self.data.task]
            fitting.append("similarity")
            if self.metric not in fitting:
                raise ValueError(
                    f"metric `{self.metric}` does not fit the task `{self.data.task}`: use "
                    + " or ".join(f"`{name}`" for name in fitting)
                )
        return self


class Params(Settings):
    """All of `params.yaml`."""

    jobs: dict[str, Job] = Field(min_length=1)

    @field_validator("jobs")
    @classmethod
    def _names_are_plain(cls, jobs: dict[str, Job]) -> dict[str, Job]:
        for name in jobs:
            if not JOB_NAME.fullmatch(name):
                raise ValueError(
                    f"the name `{name}` is not allowed: at most 64 letters, digits, '-' and '_', no sign first"
                )
        return jobs


def load(path: Path = DEFAULT_PATH) -> Params:
    """Read and check all settings.

    Raises:
        InputError: the file is missing, is not YAML, or a key or value is wrong. Every wrong key is named.
    """
    raw = read_mapping(path, "run from the folder that holds params.yaml")
    return validate(Params, raw, str(path))


def read_mapping(path: Path, cure: str) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Args:
        path: of the file.
        cure: what to do when there is no such file.

    Raises:
        InputError: the file is missing, is not YAML, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {cure}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that does not exist
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path}: must hold a mapping (`key: value`), found {type(raw).__name__}")
    return raw


def validate(kind: type[Checked], raw: Mapping[str, Any], origin: str) -> Checked:
    """Settings from what a file holds.

    Args:
        kind: which settings.
        raw: keys and values.
        origin: where they come from, for the message.

    Raises:
        InputError: a key or value is wrong. Every wrong key is named.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise InputError(_explain(kind, origin, error)) from None


def load_job(name: str, path: Path = DEFAULT_PATH) -> Job:
    """The settings of one job.

    Raises:
        InputError: as `load`, or there is no job of that name.
    """
    jobs = load(path).jobs
    if name not in jobs:
        raise InputError(f"{path}: there is no job `{name}` under `jobs`; there are: {', '.join(jobs)}")
    return jobs[name]


def _explain(kind: type[Settings], origin: str, error: ValidationError) -> str:
    """One line: for each wrong setting its key, the value found, and what is allowed."""
    parts = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"] if part not in _READERS)
        allowed = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            parts.append(f"`{key}` is not a known key{_nearest(kind, problem['loc'])}")
        elif problem["type"] == "missing":
            parts.append(f"`{key}` is missing")
        else:
            parts.append(f"`{key}` is {_short(problem['input'])}: {allowed}" if key else allowed)
    return f"{origin}: " + "; ".join(parts)


def settings_in(annotation: Any) -> type[Settings] | None:
    """The settings in an annotation such as `Qat | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    inner = (settings_in(part) for part in get_args(annotation))
    return next((settings for settings in inner if settings is not None), None)


def _short(value: Any) -> str:
    # Not `repr`: a few lines of YAML with references can stand for more values than any memory holds.
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 80, 80
    return short.repr(value)


def _nearest(kind: type[Settings], location: tuple[int | str, ...]) -> str:
    """The keys that are known where an unknown one stands."""
    model: Any = kind
    for part in location[:-1]:
        if model is Params and part == "jobs":
            continue
        if model is Params:
            model = Job
        elif part in _READERS:
            model = _READERS[str(part)]
        else:
            field = getattr(model, "model_fields", {}).get(part)
            model = settings_in(field.annotation) if field else None
    fields = getattr(model, "model_fields", None)
    return f"; known here: {', '.join(fields)}" if fields else ""
