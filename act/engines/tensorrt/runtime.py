"""TensorRT through ONNX Runtime."""

from __future__ import annotations

from typing import Any, ClassVar

from act.engines.base import RuntimePrecision
from act.engines.onnxruntime_cuda.runtime import OnnxRuntimeCuda


class TensorRt(OnnxRuntimeCuda):
    """ONNX Runtime's `TensorrtExecutionProvider`; int8 takes the scales of the QDQ operators."""

    provider: ClassVar[str] = "TensorrtExecutionProvider"

    def precisions(self) -> tuple[RuntimePrecision, ...]:
        return ("fp32", "fp16", "int8")

    def _choose_providers(self, precision: RuntimePrecision) -> list[Any]:
        options = {"trt_fp16_enable": precision == "fp16", "trt_int8_enable": precision == "int8"}
        return [(self.provider, options), "CUDAExecutionProvider", "CPUExecutionProvider"]
