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


def create(location: str) -> Engine:
    """An engine of the class at `module:Class`, in this process.

    Raises:
        ImportError: the engine's package is not installed.
    """
    module, _, name = location.partition(":")
    engine: Engine = getattr(importlib.import_module(module), name)()
    return engine
