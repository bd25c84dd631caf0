"""Paddle Lite on this machine's CPU, in a process under the interpreter of its own environment.

Paddle Lite is made for ARM. Its x86 runtime shows that a model loads and what fp32 computes. It says nothing of the
speed on a phone, and little of int8: its kernels saturate, and are wrong for some products with quantized weights
(README.md, "Paddle Lite").
"""

import importlib
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from act.engines.base import Engine, ExecutedKernel, RuntimePrecision
from act.environments import LITE
from act.samples.dataset import Array

# With this pass, hard-swish fused into an x86 int8 convolution gives other values (2.13rc0).
_WRONG_IN_INT8 = "lite_conv_activation_fuse_pass"

# A `.nb` file holds for each instruction the name of its kernel, as `operator/alias/target/precision/layout`, with
# numbers for the last three (Paddle Lite 2.13, `lite/api/paddle_place.h`).
_KERNEL = re.compile(rb"([a-z][a-z0-9_]*)/[A-Za-z0-9_]+/\d+/(\d+)/\d+")
_PRECISIONS = {b"1": "fp32", b"2": "int8", b"5": "fp16"}


class PaddleLite(Engine):
    """Paddle Lite's full predictor: it reads the Paddle model and optimises it as it loads, as `opt` does."""

    offered = ("fp32", "int8")
    multiplying = (
        *("conv2d", "depthwise_conv2d", "conv2d_transpose", "depthwise_conv2d_transpose"),
        *("fc", "mul", "matmul", "matmul_v2"),
    )
    # `calib` converts between precisions in each run, `calib_once` weights as the model is loaded.
    conversions = ("calib", "calib_once")

    def __init__(self) -> None:
        try:
            self._library: Any = importlib.import_module("paddlelite.lite")
        except ImportError as error:
            raise ImportError(LITE.lacks() or str(error)) from None

    def version(self) -> str:
        return str(self._library.Opt().version())

    def load(self, path: Path, precision: RuntimePrecision, threads: int) -> None:
        lite = self._library
        kinds = [(lite.TargetType.X86, lite.PrecisionType.FP32), (lite.TargetType.Host, lite.PrecisionType.FP32)]
        config = lite.CxxConfig()
        config.set_model_file(str(path / "model.pdmodel"))
        config.set_param_file(str(path / "model.pdiparams"))
        if precision == "int8":
            kinds.insert(0, (lite.TargetType.X86, lite.PrecisionType.INT8))
            config.add_discarded_pass(_WRONG_IN_INT8)
        config.set_valid_places([lite.Place(*kind) for kind in kinds])
        config.set_threads(threads)
        self._predictor = lite.create_paddle_predictor(config)
        self._described = {"kernels": precision, "threads": int(config.threads())}

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        for name in self._predictor.get_input_names():
            self._predictor.get_input_by_name(name).from_numpy(feeds[name])
        self._predictor.run()
        # What `numpy` gives lies in the tensor, which the next run overwrites.
        count = len(self._predictor.get_output_names())
        return [np.array(self._predictor.get_output(place).numpy()) for place in range(count)]

    # No `streams`: two predictors in two threads take turns, because the library keeps Python's lock while it runs.

    def operators(self) -> dict[str, dict[str, Any]]:
        """Read the optimised model as Paddle Lite writes it down."""
        with tempfile.TemporaryDirectory() as folder:
            self._predictor.save_optimized_model(f"{folder}/optimised")
            return read_kernels(Path(folder, "optimised.nb"))

    def describe(self) -> dict[str, Any]:
        return self._described


def read_kernels(file: Path) -> dict[str, dict[str, Any]]:
    """Return what a `.nb` file will execute, as `Engine.operators` gives it."""
    found = _KERNEL.findall(file.read_bytes())
    told = [(name.decode(), _PRECISIONS.get(number, f"precision {number.decode()}")) for name, number in found]
    return PaddleLite.count(ExecutedKernel(kind, precision, []) for kind, precision in told)
