"""`qat` and `distillation`, and what every training is told: ACT's `TrainConfig` and the learning rate's schedules."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from act.errors import quoted
from act.registry import one_of
from act.settings.base import Ascending, BatchSize, Minutes, NonEmpty, QuantizableOperator, Seed, Settings, Steps, Text
from act.settings.data import ModelSource

Rate = Annotated[float, Field(ge=0, le=1)]
DistillationLoss = Literal["l2", "soft_label", "dkd", "skd", "fsp"]
OptimizerName = Literal["SGD", "Momentum", "Adagrad", "RMSProp", "Adam", "Adamax", "AdamW", "Lamb"]

# Classes of `paddle.optimizer.lr`: what each must be given, and may be given.
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


class Schedule(Settings):
    """How the learning rate changes, step by step, by the name of Paddle's class in `paddle.optimizer.lr`.

    `learning_rate` is where it starts. Each class reads its own parameters and refuses those of others.
    """

    type: Annotated[str, AfterValidator(lambda name: one_of(list(_SCHEDULES), name))] = "CosineAnnealingDecay"
    T_max: Steps | None = Field(default=None, description="CosineAnnealingDecay: its steps; all when left out")
    eta_min: Rate | None = Field(default=None, description="CosineAnnealingDecay: the rate at its end")
    gamma: float | None = Field(default=None, gt=0, le=10, description="the decays by a factor or an exponent")
    step_size: Steps | None = Field(default=None, description="StepDecay: steps between two factors")
    milestones: Ascending[Steps] | None = Field(default=None, min_length=1, description="MultiStepDecay: steps")
    boundaries: Ascending[Steps] | None = Field(default=None, min_length=1, description="PiecewiseDecay: steps")
    values: list[Rate] | None = Field(default=None, min_length=2)
    """PiecewiseDecay: rates before, between and after `boundaries`"""
    decay_steps: Steps | None = Field(default=None, description="PolynomialDecay: all steps when left out")
    end_lr: Rate | None = Field(default=None, description="PolynomialDecay: the rate at its end")
    power: float | None = Field(default=None, gt=0, le=100, description="PolynomialDecay")
    warmup_steps: int = Field(default=0, ge=0, description="before any of them the rate rises linearly from 0")

    @model_validator(mode="after")
    def _parameters_fit(self) -> Schedule:
        needed, optional = _SCHEDULES[self.type]
        given = {name for name in self.model_fields_set - {"type", "warmup_steps"} if getattr(self, name) is not None}
        if missing := needed - given:
            raise ValueError(f"{self.type} needs {quoted(sorted(missing))}")
        if foreign := given - needed - optional:
            known = f"it reads {quoted(sorted(needed | optional))}" if needed | optional else "it reads none"
            raise ValueError(f"{self.type} has no {quoted(sorted(foreign))}: {known}")
        if self.boundaries is not None and self.values is not None and len(self.values) != len(self.boundaries) + 1:
            raise ValueError("`values` must have one rate more than `boundaries` has steps")
        return self


class TrainConfig(Settings):
    """What every training is told; the names are those of ACT's `TrainConfig` where ACT has the setting."""

    epochs: int = Field(default=3, ge=1, le=100_000)
    batch_size: BatchSize = 8
    train_iter: Steps | None = Field(default=None, description="steps at most, whatever `epochs` says")
    eval_iter: Steps | None = None
    """steps from one evaluation to the next; by `evaluations_per_epoch` when left out"""
    evaluations_per_epoch: int = Field(default=1, ge=1, le=1000)
    learning_rate: float = Field(default=1e-5, gt=0, le=1)
    learning_rate_schedule: Schedule = Schedule()
    optimizer: OptimizerName = Field(default="Adam", description="a class of `paddle.optimizer`, with its own values")
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="decoupled in AdamW and Lamb, else L2")
    patience: int | None = Field(default=None, ge=1)
    """evaluations in a row without a new best after which training stops"""
    target_metric: float | None = Field(default=None, description="quality at which training stops")
    seed: Seed = 0
    time_limit_minutes: Minutes = 10.0


class Qat(TrainConfig):
    """Quantization-aware training with distillation, run only where post-training quantization misses the budget."""

    learning_rate: float = Field(default=3e-5, gt=0, le=1)
    evaluations_per_epoch: int = Field(default=8, ge=1, le=1000)
    """the quality of a quantized model jumps when its ranges move by a thousandth, and the best of many states is
    better than that of a few, on other samples as well"""
    mean_decay: float = Field(default=0.95, ge=0, lt=1)
    """what is measured and kept is a running mean of the weights, of which this share stays at each step; 0: the last
    weights"""
    use_pact: bool = False
    """clip activations where training finds it best (PACT), by the loss of what is cut off"""
    scale_trainable: bool = True
    """train the scales of activations and weights, too (LSQ), by the loss of rounding"""
    quantize_op_types: list[QuantizableOperator] | None = Field(default=None, min_length=1)
    """others stay in float; as the candidate has them when left out"""
    not_quant_pattern: list[Text] = Field(default=[])
    """layers stay in float whose name, weight or name scope holds one of these"""

    @model_validator(mode="after")
    def _one_way_to_learn_ranges(self) -> Qat:
        if self.use_pact and self.scale_trainable and "scale_trainable" in self.model_fields_set:
            raise ValueError("`use_pact` and `scale_trainable` both train the ranges of activations: choose one")
        return self


class Distillation(Settings):
    """What training compares the student with; ACT's names, for one teacher and for several.

    `loss`, `node`, `alpha` and `teachers` may each be one or a list. Lists of one length belong together, entry by
    entry; what is given once holds for all.
    """

    loss: DistillationLoss | NonEmpty[DistillationLoss] | None = None
    """when left out, each output's squared error as a share of its mean square, for a softmax that of its logits and
    the cross entropy to the teacher's probabilities"""
    node: NonEmpty[str] | NonEmpty[NonEmpty[str]] | None = None
    """variables of the model, for `fsp` in pairs; found in the graph when left out"""
    alpha: float | NonEmpty[float] = Field(default=1.0, description="weight of the loss")
    temperature: float = Field(default=1.0, gt=0, le=100, description="of `soft_label` and `dkd`")
    beta: float = Field(default=1.0, ge=0, le=100)
    """of `dkd`: weight of the classes that are not the target"""
    teachers: list[ModelSource] = Field(default=[], max_length=8)
    """other models that do the same; the fp32 model itself when left out"""

    @model_validator(mode="after")
    def _lists_belong_together(self) -> Distillation:
        if self.loss is None and self.node is not None:
            raise ValueError("`node` needs a `loss`")
        lengths = {key: len(values) for key, values in self._lists().items() if len(values) > 1}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"`{key}` has {length}" for key, length in lengths.items())
            raise ValueError(f"lists must have the same length, or one entry: {found}")
        return self

    def _lists(self) -> dict[str, list[Any]]:
        """Return what holds for each part, or once for all."""
        several_nodes = self.node is not None and isinstance(self.node[0], list)
        return {
            "loss": self.loss if isinstance(self.loss, list) else [self.loss],
            "node": list(self.node or []) if several_nodes else [self.node],
            "alpha": self.alpha if isinstance(self.alpha, list) else [self.alpha],
            "teachers": list(range(len(self.teachers) or 1)),
        }

    def terms(self) -> list[tuple[DistillationLoss | None, list[str] | None, float, int]]:
        """Return the parts of the loss: which, on which variables (None: found), its weight, and which teacher."""
        lists = self._lists().values()
        count = max(map(len, lists))
        return list(zip(*(values * count if len(values) == 1 else values for values in lists)))
