"""ONNX Runtime on an NVIDIA GPU.

Left alone, ONNX Runtime falls back to the CPU with a warning when a provider does not start. Here that is an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import onnxruntime

from act.engines.base import RuntimePrecision
from act.engines.onnxruntime.runtime import OnnxRuntime


class OnnxRuntimeCuda(OnnxRuntime):
    """ONNX Runtime's `CUDAExecutionProvider`, first GPU."""

    provider: ClassVar[str] = "CUDAExecutionProvider"

    def lacks(self) -> str | None:
        if self.provider in onnxruntime.get_available_providers():
            return None
        return (
            f"this ONNX Runtime {onnxruntime.__version__} is built without {self.provider}: install `onnxruntime-gpu` "
            "of the same version in place of `onnxruntime`, or run on the CPU (use_gpu: false)"
        )

    def precisions(self) -> tuple[RuntimePrecision, ...]:
        return ("fp32",)

    def load(self, path: Path, precision: RuntimePrecision, threads: int) -> None:
        super().load(path, precision, threads)
        first = self._session.get_providers()[0]
        if first != self.provider:
            raise RuntimeError(
                f"{self.provider} did not start and ONNX Runtime fell back to {first}: check the driver and the CUDA, "
                "cuDNN and TensorRT libraries that this version asks for"
            )

    def _choose_providers(self, precision: RuntimePrecision) -> list[Any]:
        return [self.provider, "CPUExecutionProvider"]
