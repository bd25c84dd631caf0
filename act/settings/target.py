"""`target`: what the model must run fast on."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, field_validator

from act.registry import ENGINES, one_of
from act.settings.base import Distinct, Precision, Settings


def _engine_specs() -> list[Any]:
    """Return the specs of the engines that a target can have (`act.engines.spec.Spec`), in their usual order."""
    specs = [ENGINES.load(name).SPEC for name in ENGINES.names()]
    return sorted((spec for spec in specs if spec.writer is not None), key=lambda spec: spec.order)


def _engine(name: str) -> str:
    """Refuse a name that no engine has, or one that only the stand-alone measurement runs."""
    return one_of([spec.name for spec in _engine_specs()], name)


EngineName = Annotated[str, AfterValidator(_engine)]


class Target(Settings):
    """What the model must run fast on: engines are compared with one another, the fastest may win."""

    device: Literal["cpu"] = "cpu"
    engines: Distinct[EngineName] = Field(
        default_factory=lambda: [spec.name for spec in _engine_specs() if spec.default is not None],
        description="the first is what candidates are searched on; some also give files for other devices",
    )
    precisions: Distinct[Precision] = Field(default=list(get_args(Precision)))
    threads: int = Field(default=1, ge=1, le=256)
    batch: int = Field(default=1, ge=1, le=1024)

    @field_validator("engines")
    @classmethod
    def _some_do_not_decide(cls, names: list[str]) -> list[str]:
        reason = ENGINES.load(names[0]).SPEC.not_first
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
