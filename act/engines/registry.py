"""The list of inference engines: one line each.

Naming an engine imports nothing: its module is imported where it runs, in the worker process, so that a missing or
crashing engine never hurts a stage.
"""

from __future__ import annotations

import importlib
import sys

from act.engines.base import Engine
from act.engines.paddle_lite import environment as lite_environment

ENGINES = {
    "openvino": "act.engines.openvino.runtime:OpenVino",
    "onnxruntime": "act.engines.onnxruntime.runtime:OnnxRuntime",
    "paddle_inference": "act.engines.paddle_inference.runtime:PaddleInference",
    "paddle_lite": "act.engines.paddle_lite.runtime:PaddleLite",
    # TensorRT itself is not on package indexes; ONNX Runtime drives it where it is installed.
    "tensorrt": "act.engines.onnxruntime.gpu:OnnxRuntimeTensorRt",
}
# Engines of other environments: each with what tells its interpreter, or None while that environment is not there.
_INTERPRETERS = {"paddle_lite": lite_environment.python}
# What only the stand-alone measurement offers (`tasks/benchmark/infer`): no job can have them as its target.
STANDALONE_ENGINES = {
    "paddle_native": "act.engines.paddle_inference.runtime:PaddleNative",
    "paddle_gpu": "act.engines.paddle_inference.gpu:PaddleGpu",
    "paddle_tensorrt": "act.engines.paddle_inference.gpu:PaddleTensorRt",
    "onnxruntime_cuda": "act.engines.onnxruntime.gpu:OnnxRuntimeCuda",
    "onnxruntime_tensorrt": "act.engines.onnxruntime.gpu:OnnxRuntimeTensorRt",
}


def location(engine: str) -> str:
    """Where the class of a named engine is: `module:Class`."""
    return {**STANDALONE_ENGINES, **ENGINES}[engine]


def interpreter(engine: str) -> str:
    """The Python that runs a named engine; ours where its own is not there, under which it says what it lacks."""
    own = _INTERPRETERS[engine]() if engine in _INTERPRETERS else None
    return str(own) if own is not None else sys.executable


def create(location: str) -> Engine:
    """An engine of the class at `module:Class`, in this process.

    Raises:
        ImportError: the engine's package is not installed.
    """
    module, _, name = location.partition(":")
    engine: Engine = getattr(importlib.import_module(module), name)()
    return engine
