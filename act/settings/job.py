"""One job, and the check of its sections against one another."""

from __future__ import annotations

import re
from typing import Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from act.errors import InputError, quoted
from act.registry import METRICS
from act.settings.base import Settings, distinct
from act.settings.data import AnyData, ModelSource
from act.settings.measuring import Analyze, Benchmark
from act.settings.metric import Metric, checked, class_of, fits
from act.settings.prune import Prune
from act.settings.quantization import Calibration, PtqSearch, Refine
from act.settings.target import Budget, Target
from act.settings.training import Distillation, Qat

PruningName = Literal["ChannelPrune", "UnstructurePrune", "ASPPrune", "TransformerPrune"]
QuantizingName = Literal["QuantPost", "HyperParameterOptimization", "QuantAware"]
StrategyName = Literal[QuantizingName, "Distillation", PruningName]
PRUNING: tuple[PruningName, ...] = get_args(PruningName)
QUANTIZING: tuple[QuantizingName, ...] = get_args(QuantizingName)
_SPARSE = ("UnstructurePrune", "ASPPrune")


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
    act_config: str | None = Field(default=None, min_length=1)
    """ACT's YAML file that this entry was made from (`python -m flows.act_config`); what it says, the entry must say,
    too, because DVC follows the entry"""
    # `python -m` does without it, DVC does not.
    analyze: Analyze = Analyze()
    calibration: Calibration
    ptq_search: PtqSearch
    refine: Refine
    distillation: Distillation
    prune: Prune
    qat: Qat
    benchmark: Benchmark

    @model_validator(mode="before")
    @classmethod
    def _metric_says_what_may_be_lost(cls, raw: Any) -> Any:
        budget = raw.get("budget") if isinstance(raw, dict) else None
        if not isinstance(budget, dict) or budget.get("max_quality_drop") is not None:
            return raw
        try:
            kind = class_of(checked(raw.get("metric")))
        except (ValueError, InputError):  # the metric's own check tells
            return raw
        return {**raw, "budget": {**budget, "max_quality_drop": kind.may_lose}}

    @field_validator("strategy")
    @classmethod
    def _strategy_makes_sense(cls, strategy: Any) -> Any:
        if strategy == "auto":
            return strategy
        given = set(distinct(strategy))
        if "Distillation" in given and given.isdisjoint({"QuantAware", *PRUNING}):
            raise ValueError("`Distillation` alone trains nothing: add `QuantAware`, or one that prunes")
        if given.issuperset(_SPARSE):
            raise ValueError(f"{quoted(_SPARSE)} set the same weights to zero: choose one of them")
        steps = [name for name in strategy if name != "Distillation"]
        for step, first in zip(steps, sorted(steps, key=lambda name: (name in QUANTIZING, name in _SPARSE))):
            if step != first:
                zeros = "channels that are cut out would break the pattern of zeros"
                why = "a quantized model is not pruned" if step in QUANTIZING else zeros
                raise ValueError(f"{first} must stand before {step}: {why}")
        return strategy

    @model_validator(mode="after")
    def _sections_fit_one_another(self) -> Job:
        quantizing = [] if self.strategy == "auto" else [name for name in self.strategy if name in QUANTIZING]
        if quantizing and "int8" not in self.target.precisions:
            found = f"strategy {', '.join(quantizing)} makes int8 models, but `target.precisions` lacks int8"
            raise ValueError(f"{found}: add it, or take it out of `strategy`")
        if missing := [n for n in self.ptq_search.batch_num or [] if n not in self.calibration.batch_num]:
            why = "for which `calibration.batch_num` keeps no statistics"
            raise ValueError(f"`ptq_search.batch_num` has {missing}, {why}: add them there")
        strengths = [each for each in self.ptq_search.smooth_strength or [] if each is not None]
        if unknown := [each for each in strengths if each not in self.calibration.smooth_strength]:
            why = "for which `calibration.smooth_strength` keeps no statistics"
            raise ValueError(f"`ptq_search.smooth_strength` has {unknown}, {why}: add them there")
        name = self.metric if isinstance(self.metric, str) else self.metric["name"]
        if not fits(self.metric, self.data.labels):
            others = [other for other in METRICS.load_all() if fits(other, self.data.labels)]
            raise ValueError(f"metric `{name}` does not fit these data: use one of {quoted(others)}")
        if self.budget.min_worst_part is not None and not class_of(self.metric).by_parts:
            others = [other for other in METRICS.load_all() if class_of(other).by_parts]
            why = f"metric `{name}` does not judge outputs part by part"
            raise ValueError(f"`budget.min_worst_part`: {why}: leave it out, or use {quoted(others)}")
        return self


class Params(Settings):
    """All of `params.yaml`."""

    jobs: dict[str, Job] = Field(min_length=1)

    @field_validator("jobs", mode="before")
    @classmethod
    def _names_are_texts(cls, jobs: Any) -> Any:
        for name in jobs if isinstance(jobs, dict) else ():
            if not isinstance(name, str):
                written = "null" if name is None else f"{name!r:.80}"
                raise ValueError(f"the name `{written}` is no text in YAML: put it in quotes")
        return jobs

    @field_validator("jobs")
    @classmethod
    def _names_are_plain(cls, jobs: dict[str, Job]) -> dict[str, Job]:
        for name in jobs:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
                allowed = "at most 64 letters, digits, '-' and '_', no sign first"
                raise ValueError(f"the name `{name}` is not allowed: {allowed}")
        return jobs
