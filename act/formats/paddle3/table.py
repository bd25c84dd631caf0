"""The table of operators (`operators.yaml`): how each of Paddle 3 is written in Paddle 2.6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

_FILE = Path(__file__).parent / "operators.yaml"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Computed(_Strict):
    """An input that is an attribute in Paddle 2.6 where it is constant, and goes into one of its slots where not.

    Attributes:
        attribute: its name in 2.6.
        tensor: the slot of one tensor with all values; None where 2.6 has none.
        tensors: the slot of one tensor for each value.
        unknown: what stands in the attribute for a value that is computed.
    """

    attribute: str
    tensor: str | None = None
    tensors: str | None = None
    unknown: int = -1


class Row(_Strict):
    """One operator, as `operators.yaml` explains."""

    type: str
    inputs: Sequence[str | Computed | None] = ()
    outputs: Sequence[str] = ("Out",)
    same: Mapping[str, str] = Field(default_factory=dict)
    attributes: Mapping[str, str] = Field(default_factory=dict)
    fixed: Mapping[str, Any] = Field(default_factory=dict)
    only: Mapping[str, Any] = Field(default_factory=dict)
    ignored: Sequence[str] = ()


@cache
def rows() -> Mapping[str, Row]:
    """Return all rows of the table by Paddle 3's name."""
    found: dict[str, Row] = {}
    for section in yaml.safe_load(_FILE.read_text(encoding="utf-8")):
        operators = section.pop("operators")
        for name, own in operators.items():
            found[name] = Row.model_validate({"type": name, **section, **(own or {})})
    return found
