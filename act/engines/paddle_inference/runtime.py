"""Paddle Inference on the CPU, with oneDNN or its own kernels, and on NVIDIA GPUs, with its own or TensorRT's.

A quantized program runs in int8 only when `enable_mkldnn_int8` is set; without it every pair of `quantize_linear` and
`dequantize_linear` is executed one by one, which is slower than fp32.
"""

import ctypes.util
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from act.engines.base import Engine, ExecutedKernel, Runner, RuntimePrecision
from act.machine import BF16_FLAGS, cpu_flags
from act.program.files import PROGRAM_FILE, WEIGHTS_FILE, read_kernels
from act.program.paddle_setup import paddle
from act.samples.dataset import Array

from paddle import inference  # isort: skip

_PRECISIONS = {"int8": "int8", "bfloat16": "bf16"}
# oneDNN keeps compiled primitives for this many input shapes; models with dynamic axes would else compile again.
_CACHED_SHAPES = 16
_FIRST_MEMORY_MIB = 500
_WORKSPACE_BYTES = 1 << 30
# As in ACT: smaller parts of the graph stay with Paddle.
_LEAST_SUBGRAPH = 30


class PaddleNative(Engine):
    """Paddle's predictor with its own CPU kernels, in fp32 only."""

    # As the optimised program names them.
    multiplying = (
        *("conv2d", "fused_conv2d", "depthwise_conv2d", "conv2d_transpose", "fc", "mul", "matmul", "matmul_v2"),
        *("fused_matmul", "fusion_gru", "multi_gru", "fusion_lstm"),
    )
    conversions = ("quantize", "dequantize", "requantize", "quantize_linear", "dequantize_linear")

    def version(self) -> str:
        return str(paddle.__version__)

    def load(self, path: Path, precision: RuntimePrecision, threads: int) -> None:
        self._configure = partial(self._configured, path, precision, threads)
        config = self._configure()
        self._predictor = inference.create_predictor(config)
        threads = int(config.cpu_math_library_num_threads())
        self._described = {**self._kernels_in_force(config), "kernels": precision, "threads": threads}

    def _configured(self, path: Path, precision: RuntimePrecision, threads: int) -> Any:
        config = inference.Config(str(path / PROGRAM_FILE), str(path / WEIGHTS_FILE))
        config.disable_glog_info()
        config.switch_ir_optim(True)
        config.enable_memory_optim()
        config.set_cpu_math_library_num_threads(threads)
        self._choose_kernels(config, precision)
        return config

    def _choose_kernels(self, config: Any, precision: RuntimePrecision) -> None:
        config.disable_gpu()
        config.disable_mkldnn()

    def _kernels_in_force(self, config: Any) -> dict[str, Any]:
        """Return what the library says it will use once it is ready."""
        return {"onednn": bool(config.mkldnn_enabled())}

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        return _predict(self._predictor, feeds)

    def streams(self, count: int) -> list[Runner]:
        return [partial(_predict, self._predictor.clone()) for _ in range(count)]

    def kernels(self) -> list[ExecutedKernel]:
        """Read the optimised program as Paddle writes it down."""
        with tempfile.TemporaryDirectory() as folder:
            config = self._configure()
            config.set_optim_cache_dir(folder)
            config.enable_save_optim_model(True)
            inference.create_predictor(config)
            return [
                ExecutedKernel(kind, _PRECISIONS.get(precision, "fp32"), names)
                for kind, precision, names in read_kernels(Path(folder) / "_optimized.pdmodel")
                if kind not in ("feed", "fetch")
            ]

    def describe(self) -> dict[str, Any]:
        return self._described


class PaddleInference(PaddleNative):
    """Paddle's predictor with oneDNN kernels."""

    def precisions(self) -> tuple[RuntimePrecision, ...]:
        bf16 = cpu_flags().intersection(BF16_FLAGS)
        return ("fp32", "bf16", "int8") if bf16 else ("fp32", "int8")

    def _choose_kernels(self, config: Any, precision: RuntimePrecision) -> None:
        config.disable_gpu()
        config.enable_mkldnn()
        config.set_mkldnn_cache_capacity(_CACHED_SHAPES)
        if precision == "bf16":
            config.enable_mkldnn_bfloat16()
        if precision == "int8":
            config.enable_mkldnn_int8()


class PaddleGpu(PaddleNative):
    """Paddle's own CUDA kernels, first GPU: needs a Paddle that was built with CUDA."""

    def lacks(self) -> str | None:
        if not paddle.is_compiled_with_cuda():
            return (
                f"this Paddle {paddle.__version__} is built without CUDA: install the `paddlepaddle-gpu` wheel of the "
                "same version for your CUDA, or run on the CPU (use_gpu: false)"
            )
        if paddle.device.cuda.device_count() == 0:
            return "Paddle sees no NVIDIA GPU: check the driver with `nvidia-smi`, or run on the CPU (use_gpu: false)"
        return None

    def _choose_kernels(self, config: Any, precision: RuntimePrecision) -> None:
        config.enable_use_gpu(_FIRST_MEMORY_MIB, 0)

    def kernels(self) -> list[ExecutedKernel]:
        return []  # the program says nothing of the precisions that CUDA's and TensorRT's kernels have

    def _kernels_in_force(self, config: Any) -> dict[str, Any]:
        return {"gpu": bool(config.use_gpu()), "with_tensorrt": bool(config.tensorrt_engine_enabled())}


class PaddleTensorRt(PaddleGpu):
    """Paddle's predictor that hands what it can to TensorRT; int8 takes the scales of the quantized model."""

    offered = ("fp32", "fp16", "int8")

    def lacks(self) -> str | None:
        if (lacking := super().lacks()) is not None:
            return lacking
        if inference.get_trt_compile_version() == (0, 0, 0):
            return f"this Paddle {paddle.__version__} is built without TensorRT: install a wheel that has it"
        if ctypes.util.find_library("nvinfer") is None:
            return "TensorRT's library libnvinfer is not found: install TensorRT and put it on LD_LIBRARY_PATH"
        return None

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


def _predict(predictor: Any, feeds: Mapping[str, Array]) -> list[Array]:
    for name in predictor.get_input_names():
        predictor.get_input_handle(name).copy_from_cpu(feeds[name])
    predictor.run()
    return [np.asarray(predictor.get_output_handle(name).copy_to_cpu()) for name in predictor.get_output_names()]
