"""Inference engines behind one small interface, each run in a process of its own.

A new engine is one file with a subclass of `Engine` and one line in `registry.py`. Stages talk to engines through
`EngineProcess` only.
"""

from act.engines.base import Engine, RuntimePrecision
from act.engines.process import EngineFailure, EngineProcess, FailureKind, LoadInfo, WarmUp
from act.engines.registry import ENGINES

__all__ = [
    "ENGINES",
    "Engine",
    "EngineFailure",
    "EngineProcess",
    "FailureKind",
    "LoadInfo",
    "RuntimePrecision",
    "WarmUp",
]
