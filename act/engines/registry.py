"""The list of inference engines: one line each.

Naming an engine imports nothing: its module is imported where it runs, in the worker process, so that a missing or
crashing engine never hurts a stage.
"""

from __future__ import annotations

import importlib

from act.engines.base import Engine

ENGINES = {
    "openvino": "act.engines.openvino_cpu:OpenVino",
    "onnxruntime": "act.engines.onnxruntime_cpu:OnnxRuntime",
    "paddle_inference": "act.engines.paddle_inference_cpu:PaddleInference",
}
# What only the stand-alone measurement offers (`tasks/benchmark/infer`): no job can have them as its target.
STANDALONE_ENGINES = {
    "paddle_native": "act.engines.paddle_inference_cpu:PaddleNative",
    "paddle_gpu": "act.engines.paddle_inference_gpu:PaddleGpu",
    "paddle_tensorrt": "act.engines.paddle_inference_gpu:PaddleTensorRt",
    "onnxruntime_cuda": "act.engines.onnxruntime_gpu:OnnxRuntimeCuda",
    "onnxruntime_tensorrt": "act.engines.onnxruntime_gpu:OnnxRuntimeTensorRt",
}


def location(engine: str) -> str:
    """Where the class of a named engine is: `module:Class`."""
    return {**STANDALONE_ENGINES, **ENGINES}[engine]


def create(location: str) -> Engine:
    """An engine of the class at `module:Class`, in this process.

    Raises:
        ImportError: the engine's package is not installed.
    """
    module, _, name = location.partition(":")
    engine: Engine = getattr(importlib.import_module(module), name)()
    return engine
