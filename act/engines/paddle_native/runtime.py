"""Paddle's predictor without oneDNN."""

from __future__ import annotations

from typing import Any

from act.engines.base import RuntimePrecision
from act.engines.paddle_inference.runtime import PaddleInference


class PaddleNative(PaddleInference):
    """Paddle's predictor with its own CPU kernels, in fp32 only."""

    def precisions(self) -> tuple[RuntimePrecision, ...]:
        return ("fp32",)

    def _choose_kernels(self, config: Any, precision: RuntimePrecision) -> None:
        config.disable_gpu()
        config.disable_mkldnn()
