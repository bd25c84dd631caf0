"""Clipping ranges of activations: integers of eight bits, one scale and one zero point a tensor.

q = clip(round(x / scale) + zero_point, -128, 127) (Jacob et al., 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BITS = 8
LEVELS = 127
SMALLEST_THRESHOLD = 1e-8


@dataclass(frozen=True)
class Range:
    """The values that an activation may take once quantized; with `low == -high` they need no zero point."""

    low: float  # at most 0
    high: float  # at least 0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low <= 0 <= self.high):
            raise ValueError(f"a range must be finite and hold zero: {self.low} to {self.high}")

    @classmethod
    def around_zero(cls, threshold: float) -> Range:
        """Return the symmetric range of a clipping threshold."""
        return cls(-threshold, threshold)

    def shifted(self, summand: float) -> Range:
        """Return the range of the values plus a number, widened to hold zero."""
        return Range(min(0.0, self.low + summand), max(0.0, self.high + summand))

    def within(self, other: Range) -> Range:
        """Return what this range and another have in common; zero always is."""
        return Range(max(self.low, other.low), min(self.high, other.high))

    @property
    def symmetric(self) -> bool:
        return self.low == -self.high

    @property
    def threshold(self) -> float:
        """The largest absolute value, > 0: what a symmetric quantizer would clip at."""
        return max(-self.low, self.high, SMALLEST_THRESHOLD)

    @property
    def scale(self) -> float:
        """The width of one step, > 0: 127 of them reach a symmetric range's end, 255 span any other."""
        width = self.threshold / LEVELS if self.symmetric else (self.high - self.low) / (2 * LEVELS + 1)
        return float(np.float32(max(width, SMALLEST_THRESHOLD / LEVELS)))

    @property
    def zero_point(self) -> int:
        """The integer, from -128 to 127, that stands for zero."""
        return 0 if self.symmetric else int(np.clip(np.round(-LEVELS - 1 - self.low / self.scale), -LEVELS - 1, LEVELS))

    def quantize(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the integers, as float32, that stand for these values."""
        rounded = np.round(values / np.float32(self.scale)) + np.float32(self.zero_point)
        clipped: npt.NDArray[np.float32] = np.clip(rounded, -LEVELS - 1, LEVELS)
        return clipped
