"""What all sections share: the base class, and kinds of values that several have."""

from itertools import pairwise
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from act.errors import quoted
from act.registry import CRITERIA, THRESHOLDS

Item = TypeVar("Item")

# Names of what plugs in: whatever the registries list.
ThresholdAlgorithm = Annotated[str, AfterValidator(THRESHOLDS.check)]
ChannelCriterion = Annotated[str, AfterValidator(CRITERIA.check)]

Precision = Literal["fp32", "bf16", "int8", "int8_weights"]
QuantizableOperator = Literal["conv2d", "depthwise_conv2d", "conv2d_transpose", "matmul_v2", "mul"]


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, numbers are not guessed from strings, nothing changes later."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def distinct(values: list[Item]) -> list[Item]:
    """Return the values, unless one stands twice."""
    if twice := {str(value) for value in values if values.count(value) > 1}:
        raise ValueError(f"{quoted(sorted(twice))} stands twice")
    return values


def _ascending(values: list[Item]) -> list[Item]:
    if any(a >= b for a, b in pairwise(values)):  # type: ignore[operator]
        raise ValueError(f"must ascend: {values}")
    return values


NonEmpty = Annotated[list[Item], Field(min_length=1)]
Distinct = Annotated[NonEmpty[Item], AfterValidator(distinct)]
Ascending = Annotated[list[Item], AfterValidator(_ascending)]

Text = Annotated[str, Field(min_length=1)]
BatchSize = Annotated[int, Field(ge=1, le=1024)]
Steps = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Minutes = Annotated[float, Field(gt=0, le=60 * 24 * 7)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
