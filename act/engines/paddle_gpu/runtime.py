"""Paddle Inference on an NVIDIA GPU, by its own kernels: needs a Paddle that was built with CUDA."""

from __future__ import annotations

from typing import Any

from act.engines.base import RuntimePrecision
from act.engines.paddle_inference.runtime import PaddleInference
from act.program.paddle_setup import paddle

_FIRST_MEMORY_MIB = 500
_BUILD_CURE = (
    "install the `paddlepaddle-gpu` wheel of the same version for your CUDA, or run on the CPU (use_gpu: false)"
)


class PaddleGpu(PaddleInference):
    """Paddle's own CUDA kernels, first GPU."""

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
        return {"gpu": bool(config.use_gpu()), "with_tensorrt": bool(config.tensorrt_engine_enabled())}
