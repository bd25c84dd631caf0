"""`target` and `budget`: what the model must run fast on, and what the user will give for that."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from act.registry import ENGINES, one_of
from act.settings.base import Distinct, Precision, Settings


def _engine_specs() -> list[Any]:
    """Return the specs of the engines that a target can have (`act.engines.spec.Spec`), in their usual order."""
    specs = [module.SPEC for module in ENGINES.load_all().values()]
    return sorted((spec for spec in specs if spec.writer is not None), key=lambda spec: spec.order)


def _engine(name: str) -> str:
    """Refuse a name that no engine has, that cannot be imported, or that only the stand-alone measurement runs."""
    choices = [spec.name for spec in _engine_specs()]
    if name in ENGINES.names() and name not in choices:
        ENGINES.load(name)  # which says why it cannot be imported
    return one_of(choices, name)


EngineName = Annotated[str, AfterValidator(_engine)]


class Target(Settings):
    """What the model must run fast on: engines are compared with one another, the fastest may win."""

    device: Literal["cpu"] = "cpu"
    engines: Distinct[EngineName] = Field(
        default_factory=lambda: [spec.name for spec in _engine_specs() if spec.default is not None],
        description="the first is what candidates are searched on; some also give files for other devices",
    )
    precisions: Distinct[Precision] = Field(default=["fp32", "bf16", "int8"])
    """`int8_weights` adds a file with weights alone in int8, for its size: some engines run it no faster than fp32"""
    threads: int = Field(default=1, ge=1, le=256)
    batch: int = Field(default=1, ge=1, le=1024)

    @field_validator("engines")
    @classmethod
    def _some_do_not_decide(cls, names: list[str]) -> list[str]:
        reason = ENGINES.load(names[0]).SPEC.not_first
        if reason is not None:
            why = f"candidates are searched on the first engine, and {reason}"
            raise ValueError(f"`{names[0]}` cannot stand first: {why}; put another before it")
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

    max_quality_drop: float = Field(default=0.01, ge=0, le=1)
    """in units of the quality metric; left out: 0.05 where outputs are compared with the fp32 model's, for those differ
    long before a task is lost"""
    min_worst_part: float | None = Field(default=None, ge=0, le=1)
    """a winner's worst part scores at least this, for a metric that judges outputs part by part"""
    min_speedup: float = Field(default=1.0, ge=1.0, le=1000)
    """a winner other than fp32 is at least this many times faster than it"""
    max_latency_ms: float | None = Field(default=None, gt=0)
    """a winner's median latency for one batch is at most this"""
    time_limit_minutes: float | None = Field(default=None, gt=0)
    """no further strategy is tried that is expected to end later than this"""
