"""Paddle Inference with TensorRT inside it: needs a Paddle that was built with both, and TensorRT's libraries."""

from __future__ import annotations

import ctypes.util
from typing import Any

from act.engines.base import RuntimePrecision
from act.engines.paddle_gpu.runtime import PaddleGpu
from act.program.paddle_setup import paddle

from paddle import inference  # isort: skip

_WORKSPACE_BYTES = 1 << 30
# As in ACT: smaller parts of the graph stay with Paddle.
_LEAST_SUBGRAPH = 30


class PaddleTensorRt(PaddleGpu):
    """Paddle's predictor that hands what it can to TensorRT; int8 takes the scales of the quantized model."""

    def lacks(self) -> str | None:
        if (lacking := super().lacks()) is not None:
            return lacking
        if inference.get_trt_compile_version() == (0, 0, 0):
            return f"this Paddle {paddle.__version__} is built without TensorRT: install a wheel that has it"
        if ctypes.util.find_library("nvinfer") is None:
            return "TensorRT's library libnvinfer is not found: install TensorRT and put it on LD_LIBRARY_PATH"
        return None

    def precisions(self) -> tuple[RuntimePrecision, ...]:
        return ("fp32", "fp16", "int8")

    def _choose_kernels(self, config: Any, precision: RuntimePrecision) -> None:
        super()._choose_kernels(config, precision)
        kinds = inference.PrecisionType
        config.enable_tensorrt_engine(
            workspace_size=_WORKSPACE_BYTES,
            max_batch_size=1024,
            min_subgraph_size=_LEAST_SUBGRAPH,
            precision_mode={"fp32": kinds.Float32, "fp16": kinds.Half, "int8": kinds.Int8}[precision],
            use_static=False,
            use_calib_mode=False,
        )
