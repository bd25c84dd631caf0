"""One job, and the check of its sections against one another."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from act.registry import METRICS
from act.settings.analyze import Analyze
from act.settings.base import Metric, Settings, quoted
from act.settings.benchmark import Benchmark
from act.settings.budget import Budget
from act.settings.calibration import Calibration
from act.settings.data import AnyData
from act.settings.distillation import Distillation
from act.settings.model import ModelSource
from act.settings.prune import Prune
from act.settings.ptq_search import PtqSearch
from act.settings.qat import Qat
from act.settings.refine import Refine
from act.settings.target import Target

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


class Job(Settings):
    """One model on one target, with its data and budget.

    Every section must stand in the file, if only as `{}`: DVC refuses to follow a key that is not there.
    """

    model: ModelSource
    data: AnyData
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
            raise ValueError(f"{quoted(twice)} stands twice")
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
        labels = self.data.labels
        if labels is not None and _labels_of(self.metric) not in (None, labels):
            fitting = [name for name in METRICS.names() if _labels_of(name) in (None, labels)]
            raise ValueError(f"metric `{self.metric}` does not fit these data: use one of {quoted(fitting)}")
        return self


def _labels_of(metric: str) -> str | None:
    """Return the kind of labels that a metric needs; None for one that needs none."""
    labels: str | None = METRICS.load(metric).Metric.labels
    return labels


class Params(Settings):
    """All of `params.yaml`."""

    jobs: dict[str, Job] = Field(min_length=1)

    @field_validator("jobs")
    @classmethod
    def _names_are_plain(cls, jobs: dict[str, Job]) -> dict[str, Job]:
        for name in jobs:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
                raise ValueError(
                    f"the name `{name}` is not allowed: at most 64 letters, digits, '-' and '_', no sign first"
                )
        return jobs
