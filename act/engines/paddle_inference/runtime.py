"""Paddle Inference on the CPU with oneDNN.

A quantized program runs in int8 only when `enable_mkldnn_int8` is set; without it every pair of `quantize_linear` and
`dequantize_linear` is executed one by one, which is slower than fp32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from act.engines.base import Engine, Runner, RuntimePrecision, count_kernels
from act.machine import BF16_FLAGS, cpu_flags
from act.program.files import read_kernels
from act.program.paddle_setup import paddle
from act.samples.dataset import Array

from paddle import inference  # isort: skip

# As the optimised program names them.
_MULTIPLYING = (
    *("conv2d", "fused_conv2d", "depthwise_conv2d", "conv2d_transpose", "fc", "mul", "matmul", "matmul_v2"),
    *("fused_matmul", "fusion_gru", "multi_gru", "fusion_lstm"),
)
_CONVERSIONS = ("quantize", "dequantize", "requantize", "quantize_linear", "dequantize_linear")
_PRECISIONS = {"int8": "int8", "bfloat16": "bf16"}

# oneDNN keeps compiled primitives for this many input shapes; models with dynamic axes would else compile again.
_CACHED_SHAPES = 16


class PaddleInference(Engine):
    """Paddle's native predictor with oneDNN kernels."""

    def __init__(self) -> None:
        self._predictor: Any = None
        self._load: Callable[[], Any] | None = None
        self._described: dict[str, Any] = {}

    def version(self) -> str:
        return str(paddle.__version__)

    def precisions(self) -> tuple[RuntimePrecision, ...]:
        bf16 = cpu_flags().intersection(BF16_FLAGS)
        return ("fp32", "bf16", "int8") if bf16 else ("fp32", "int8")

    def load(self, path: Path, precision: RuntimePrecision, threads: int) -> None:
        self._load = partial(self._configured, path, precision, threads)
        config = self._load()
        self._predictor = inference.create_predictor(config)
        threads = int(config.cpu_math_library_num_threads())
        self._described = {**self._kernels_in_force(config), "kernels": precision, "threads": threads}

    def _configured(self, path: Path, precision: RuntimePrecision, threads: int) -> Any:
        config = inference.Config(str(path / "model.pdmodel"), str(path / "model.pdiparams"))
        config.disable_glog_info()
        config.switch_ir_optim(True)
        config.enable_memory_optim()
        config.set_cpu_math_library_num_threads(threads)
        self._choose_kernels(config, precision)
        return config

    def _choose_kernels(self, config: Any, precision: RuntimePrecision) -> None:
        config.disable_gpu()
        config.enable_mkldnn()
        config.set_mkldnn_cache_capacity(_CACHED_SHAPES)
        if precision == "bf16":
            config.enable_mkldnn_bfloat16()
        if precision == "int8":
            config.enable_mkldnn_int8()

    def _kernels_in_force(self, config: Any) -> dict[str, Any]:
        """Return what the library says it will use once it is ready."""
        return {"onednn": bool(config.mkldnn_enabled())}

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        return _predict(self._predictor, feeds)

    def streams(self, count: int) -> list[Runner]:
        return [partial(_predict, self._predictor.clone()) for _ in range(count)]

    def operators(self) -> dict[str, dict[str, Any]]:
        told = ((kernel["kind"], kernel["precision"]) for kernel in self.kernels())
        return count_kernels(told, _MULTIPLYING, _CONVERSIONS)

    def kernels(self) -> list[dict[str, Any]]:
        """Read the optimised program as Paddle writes it down."""
        if self._load is None:
            return []
        with tempfile.TemporaryDirectory() as folder:
            config = self._load()
            config.set_optim_cache_dir(folder)
            config.enable_save_optim_model(True)
            inference.create_predictor(config)
            return [
                {"kind": kind, "precision": _PRECISIONS.get(precision, "fp32"), "names": names}
                for kind, precision, names in read_kernels(Path(folder) / "_optimized.pdmodel")
                if kind not in ("feed", "fetch")
            ]

    def describe(self) -> dict[str, Any]:
        """Return which kernels are switched on, and the number of threads."""
        return self._described


def _predict(predictor: Any, feeds: Mapping[str, Array]) -> list[Array]:
    for name in predictor.get_input_names():
        predictor.get_input_handle(name).copy_from_cpu(feeds[name])
    predictor.run()
    return [np.asarray(predictor.get_output_handle(name).copy_to_cpu()) for name in predictor.get_output_names()]
