"""`metric`: a name, or a mapping with the name and what else the metric can be told.

What it can be told stands in the metric's own module, as a plain dataclass: engines' processes build it where there is
no pydantic, from what was checked here.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, JsonValue, ValidationError
from pydantic.dataclasses import dataclass

from act.errors import quoted
from act.registry import METRICS

# What a metric takes that does not care for labels, and the one that is named by its setting alone.
_ANY, _FUNCTION = "any", "function"


def checked(raw: Any) -> Any:
    """Return a metric as it was given; `ValueError` where there is none of that name, or it has no such settings."""
    if isinstance(raw, str):
        return METRICS.check(raw)
    if isinstance(raw, Mapping) and "name" not in raw and raw.get(_FUNCTION) is not None:
        raw = {"name": _FUNCTION, **raw}
    if not isinstance(raw, Mapping) or not isinstance(raw.get("name"), str):
        raise ValueError("give the name of a metric, or a mapping with its `name` and its settings")
    METRICS.check(raw["name"])
    given = {key: value for key, value in raw.items() if key != "name"}
    kind = METRICS.load(raw["name"]).Metric.Settings
    known = [each.name for each in fields(kind)]
    if strange := [key for key in given if key not in known]:
        raise ValueError(f"{quoted(map(str, strange))} is not a known key; known here: {', '.join(['name', *known])}")
    try:
        dataclass(frozen=True, config=ConfigDict(strict=True))(kind)(**given)
    except ValidationError as error:
        problem = error.errors()[0]
        key, allowed = ".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")
        raise ValueError(f"`{key}`: {allowed}" if key else allowed) from None
    return dict(raw)


Metric = Annotated[str | dict[str, JsonValue], BeforeValidator(checked)]


def class_of(metric: Any) -> Any:
    """Return the class of a metric that was checked (`act.metrics.Scorer`)."""
    return METRICS.load(metric if isinstance(metric, str) else metric["name"]).Metric


def fits(metric: Any, labels: str | None) -> bool:
    """Tell whether a metric can be had with such labels; None: the reader does not know what they are."""
    wanted = class_of(metric).labels
    return wanted in (None, _ANY) or labels is None or labels in ((wanted,) if isinstance(wanted, str) else wanted)
