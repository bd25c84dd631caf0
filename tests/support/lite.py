"""A Paddle Lite that is not one: an environment whose interpreter is this one, with a package of the same name.

Its predictor doubles what it gets and its `opt` writes the names of two kernels, so that everything between the stages
and Paddle Lite can be tested where there is no CPython 3.10.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from act.environments import LITE

REAL = pytest.mark.skipif(LITE.python() is None, reason=f"needs Paddle Lite's own environment: {LITE.lacks()}")

_LIBRARY = """
import numpy as np

class PrecisionType:
    FP32, INT8 = "FP32", "INT8"

class TargetType:
    X86, Host = "X86", "Host"

class Opt:
    def version(self):
        return "fake"

def Place(target, precision):
    return (target, precision)

class CxxConfig:
    discarded = None
    def set_model_file(self, path):
        self.program = open(path, "rb").read()
    def set_param_file(self, path):
        open(path, "rb").close()
    def set_valid_places(self, places):
        self.places = places
    def add_discarded_pass(self, name):
        self.discarded = name
    def set_threads(self, threads):
        self._threads = threads
    def threads(self):
        return self._threads

class _Tensor:
    def from_numpy(self, values):
        self.values = np.array(values)
    def numpy(self):
        return self.values

class _Predictor:
    def __init__(self):
        self._in, self._out = _Tensor(), _Tensor()
    def get_input_names(self):
        return ["x"]
    def get_output_names(self):
        return ["y"]
    def get_input_by_name(self, name):
        return self._in
    def get_output(self, place):
        return self._out
    def run(self):
        self._out.values = 2 * self._in.values
    def save_optimized_model(self, path):
        open(path + ".nb", "wb").write(b"\\0conv2d/fp32_out/2/2/1\\0fc/def/2/1/1\\0")

def create_paddle_predictor(config):
    assert (config.places[0] == ("X86", "INT8")) == (config.discarded is not None)
    return _Predictor()
"""
_OPT = """
import json, os, sys, time
given = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:])
assert os.path.exists(given["model_file"]) and os.path.exists(given["param_file"])
how = {how!r}
print("opt is at work", flush=True)
if how == "hangs":
    open(given["optimize_out"] + ".nb", "wb").write(b"half of it")
    time.sleep(60)
if how == "aborts":
    print("Check failed: no kernel for it", flush=True)
    os.abort()
if how != "forgets":
    open(given["optimize_out"] + ".nb", "wb").write(
        b"\\0conv2d/int8_out/4/2/1\\0calib/fp32_to_int8/4/2/1\\0" + given["enable_fp16"].encode()
    )
"""


def fake_environment(folder: Path, monkeypatch: pytest.MonkeyPatch, how: str = "works") -> Path:
    """Put a whole environment into `folder`; its `opt` works, hangs, aborts, or forgets to write.

    Returns:
        Its interpreter.
    """
    package, scripts = folder / "lib" / "paddlelite", folder / "bin"
    package.mkdir(parents=True)
    scripts.mkdir()
    (package / "__init__.py").touch()
    (package / "lite.py").write_text(_LIBRARY)
    (scripts / "paddle_lite_opt").write_text(_OPT.format(how=how))
    interpreter = scripts / "python"
    interpreter.write_text(
        f'#!/bin/sh\nPYTHONPATH="{package.parent}:$PYTHONPATH" FAKE_LITE=1 exec "{sys.executable}" "$@"\n'
    )
    interpreter.chmod(0o755)
    monkeypatch.setenv(LITE.variable, str(folder))
    (folder / "installed-from").write_text(LITE.checksum())
    return interpreter
