"""What an engine executes, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from act.results.export import ExecutedOperators


@dataclass(frozen=True)
class Executed:
    """What an engine executes, in words; each may be empty.

    Attributes:
        share: how many of the layers that multiply do so in the lowest precision.
        above: kinds and numbers of the others, by precision.
        conversions: quantize and dequantize operators that were not fused.
    """

    share: str
    above: str
    conversions: str


def executed(operators: ExecutedOperators) -> Executed:
    """Return what an engine executes, in words."""
    multiplying, conversions = operators.multiplying, _counts(operators.conversions)
    if not multiplying:
        return Executed("", "", conversions)
    lowest = next(name for name in ("int8", "fp16", "bf16", *multiplying) if name in multiplying)
    total = sum(sum(kinds.values()) for kinds in multiplying.values())
    others = [f"{_counts(kinds)} in {name}" for name, kinds in multiplying.items() if name != lowest]
    share = f"{sum(multiplying[lowest].values())} of {total} layers in {lowest}"
    return Executed(share, "; ".join(others), conversions)


def _counts(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())
