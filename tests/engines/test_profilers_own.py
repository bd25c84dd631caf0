"""What ONNX Runtime's profiler takes itself is no kernel's time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from act.engines.onnxruntime import profiler
from act.engines.onnxruntime.runtime import OnnxRuntime


@pytest.mark.parametrize(("own", "left"), [(0.0, True), (3600.0, False)])
def test_it_is_taken_off_every_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: float, left: bool) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 256, 64]) for name in "xy")
    nodes = [helper.make_node("Softmax", ["x"], ["z"]), helper.make_node("Erf", ["z"], ["y"])]
    graph = helper.make_graph(nodes, "two", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "m.onnx")
    monkeypatch.setattr(profiler, "own_seconds", lambda: own)
    engine = OnnxRuntime()
    engine.load(tmp_path / "m.onnx", "fp32", 1)
    kernels = engine.profile({"x": np.ones((1, 256, 64), np.float32)}, 3)
    assert [kernel["kind"] for kernel in kernels] == ["Softmax", "Erf"]
    assert all((kernel["seconds"] > 0) == left for kernel in kernels)


def test_it_is_told_by_kernels_that_do_hardly_anything() -> None:
    own = profiler.own_seconds()
    assert np.isfinite(own) and own >= 0
    assert profiler.own_seconds() == own
