"""What every training is told: ACT's `TrainConfig`, and the schedules of the learning rate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from act.settings.base import Ascending, BatchSize, Minutes, Seed, Settings, Steps, quoted

Rate = Annotated[float, Field(ge=0, le=1)]
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

    type: str = "CosineAnnealingDecay"
    T_max: Steps | None = Field(default=None, description="CosineAnnealingDecay: its steps; all when left out")
    eta_min: Rate | None = Field(default=None, description="CosineAnnealingDecay: the rate at its end")
    gamma: float | None = Field(default=None, gt=0, le=10, description="the decays by a factor or an exponent")
    step_size: Steps | None = Field(default=None, description="StepDecay: steps between two factors")
    milestones: Ascending[Steps] | None = Field(default=None, min_length=1, description="MultiStepDecay: steps")
    boundaries: Ascending[Steps] | None = Field(default=None, min_length=1, description="PiecewiseDecay: steps")
    values: list[Annotated[float, Field(ge=0, le=1)]] | None = Field(
        default=None, min_length=2, description="PiecewiseDecay: rates before, between and after `boundaries`"
    )
    decay_steps: Steps | None = Field(default=None, description="PolynomialDecay: all steps when left out")
    end_lr: Rate | None = Field(default=None, description="PolynomialDecay: the rate at its end")
    power: float | None = Field(default=None, gt=0, le=100, description="PolynomialDecay")
    warmup_steps: int = Field(default=0, ge=0, description="before any of them the rate rises linearly from 0")

    @model_validator(mode="after")
    def _parameters_fit(self) -> Schedule:
        if self.type not in _SCHEDULES:
            raise ValueError(f"there is no schedule `{self.type}`; choose one of {', '.join(_SCHEDULES)}")
        needed, optional = _SCHEDULES[self.type]
        given = {name for name in self.model_fields_set - {"type", "warmup_steps"} if getattr(self, name) is not None}
        if missing := needed - given:
            raise ValueError(f"{self.type} needs {quoted(missing)}")
        if foreign := given - needed - optional:
            known = f"it reads {quoted(needed | optional)}" if needed | optional else "it reads none"
            raise ValueError(f"{self.type} has no {quoted(foreign)}: {known}")
        if self.boundaries is not None and self.values is not None and len(self.values) != len(self.boundaries) + 1:
            raise ValueError("`values` must have one rate more than `boundaries` has steps")
        return self


class TrainConfig(Settings):
    """What every training is told; the names are those of ACT's `TrainConfig` where ACT has the setting."""

    epochs: int = Field(default=3, ge=1, le=100_000)
    batch_size: BatchSize = 8
    train_iter: Steps | None = Field(default=None, description="steps at most, whatever `epochs` says")
    eval_iter: Steps | None = Field(
        default=None, description="steps from one evaluation to the next; by `evaluations_per_epoch` when left out"
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
    seed: Seed = 0
    time_limit_minutes: Minutes = 10.0
