"""Inference engines behind one small interface, each run in a process of its own.

An engine is one folder, whose `__init__.py` holds its `SPEC` (`act/engines/spec.py`): the runtime that the process runs
(`act/engines/base.py`), and the writer of its models (`act/engines/writer.py`). Nothing outside the folder names it.
Whatever runs a model does so through `EngineProcess` (`act/engines/process.py`).
"""
