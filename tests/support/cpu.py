"""What tests may expect of int8 on the CPU that they run on."""

from __future__ import annotations

import pytest

from act import machine

SUMS_SATURATE = machine.int8_sums_saturate()

EXACT_SUMS = pytest.mark.skipif(
    SUMS_SATURATE, reason="this CPU adds products of int8 in 16 bits, which large ones overflow"
)


def similar(least: float, where_sums_saturate: float) -> float:
    """Return the least similarity that int8 must have."""
    return where_sums_saturate if SUMS_SATURATE else least
