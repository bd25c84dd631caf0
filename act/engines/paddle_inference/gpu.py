"""Paddle Inference on an NVIDIA GPU, by its own kernels or with TensorRT inside it.

Both need a Paddle that was built with CUDA, TensorRT also its libraries at run time. What is lacking is said; nothing
falls back to the CPU. The switches are those of ACT's `infer.py`.
"""

from __future__ import annotations

import ctypes.util
from typing import Any

from act.engines.base import RuntimePrecision
from act.engines.paddle_inference.runtime import PaddleInference
from act.program.paddle_setup import paddle

from paddle import inference  # isort: skip

_FIRST_MEMORY_MIB = 500
_WORKSPACE_BYTES = 1 << 30
# As in ACT: smaller parts of the graph stay with Paddle.
_LEAST_SUBGRAPH = 30
_BUILD_CURE = (
    "install the `paddlepaddle-gpu` wheel of the same version for your CUDA, or run on the CPU (use_gpu: false)"
)


class PaddleGpu(PaddleInference):
    """Paddle's own CUDA kernels, first GPU."""

    name = "paddle_gpu"

    def lacks(self) -> str | None:
        if not paddle.is_compiled_with_cuda():
            return f"this Paddle {paddle.__version__} is built without CUDA: {_BUILD_CURE}"
        if paddle.device.cuda.device_count() == 0:
            return "Paddle sees no NVIDIA GPU: check the driver with `nvidia-smi`, or run on the CPU (use_gpu: false)"
        return None

    def precisions(self) -> tuple[RuntimePrecision, ...]:
        return ("fp32",)

    def _choose_kernels(self, config: Any, precision: RuntimePrecision) -> None:
        config.enable_use_gpu(_FIRST_MEMORY_MIB, 0)

    def operators(self) -> dict[str, dict[str, Any]]:
        return {}  # the program says nothing of the precisions that CUDA's and TensorRT's kernels have

    def _kernels_in_force(self, config: Any) -> dict[str, Any]:
        return {"gpu": bool(config.use_gpu()), "tensorrt": bool(config.tensorrt_engine_enabled())}


class PaddleTensorRt(PaddleGpu):
    """Paddle's predictor that hands what it can to TensorRT; int8 takes the scales of the quantized model."""

    name = "paddle_tensorrt"

    def lacks(self) -> str | None:
        lacking = super().lacks()
        if lacking is not None:
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
        modes = {
            "fp32": inference.PrecisionType.Float32,
            "fp16": inference.PrecisionType.Half,
            "int8": inference.PrecisionType.Int8,
        }
        config.enable_tensorrt_engine(
            workspace_size=_WORKSPACE_BYTES,
            max_batch_size=1024,
            min_subgraph_size=_LEAST_SUBGRAPH,
            precision_mode=modes[precision],
            use_static=False,
            use_calib_mode=False,
        )
