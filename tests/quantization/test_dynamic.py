"""Int8 without ranges: what engines make of it stays near fp32, and runs in int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from act.engines.check import Checker
from act.engines.onnxruntime.runtime import OnnxRuntime
from act.engines.openvino.runtime import OpenVino
from act.engines.process import Int8Engines
from act.engines.writer import export_dynamic, export_weights
from act.onnx_graph.conversion import to_onnx
from act.program.layers import quantizable_layers
from act.program.paddle_setup import paddle
from act.quantization.dynamic import quantize_dynamically
from act.samples.dataset import Array, Ragged, Samples
from tests.support.models import normalised_classifier
from tests.support.prepare_networks import batch, build
from tests.support.transformers import TOKENS, transformer

nn = paddle.nn
ENGINES = ("onnxruntime", "openvino")


def test_each_engine_gets_a_file_that_it_runs_near_fp32(tmp_path: Path) -> None:
    model, feeds = transformer(), batch(TOKENS)
    with Int8Engines() as engines:
        checker = Checker(Samples({"x": Ragged.of(list(feeds["x"]))}), engines.outputs)
        found = export_dynamic("dynamic", model, tmp_path / "dynamic", checker, [*ENGINES, "paddle_inference"])
    assert found is not None and found.only == [*ENGINES] == [*found.files]
    assert min(found.check.values()) > 0.95
    (wanted,) = model.run(feeds)
    for runtime, name in ((OnnxRuntime(), "onnxruntime"), (OpenVino(), "openvino")):
        runtime.load(tmp_path / found.files[name], "int8", 1)
        (outputs,) = runtime.run(feeds)
        assert np.abs(outputs - wanted).mean() < 0.05 * np.abs(wanted).mean(), name
    session = OnnxRuntime()
    session.load(tmp_path / found.files["onnxruntime"], "int8", 1)
    kernels = session.operators()["multiplying"]["int8"]
    assert sum(kernels.values()) == 6 and {*kernels} <= {"DynamicQuantizeMatMul", "MatMulIntegerToFloat"}


def test_what_is_no_transformer_or_has_no_engine_for_it_gets_none(tmp_path: Path) -> None:
    checker = Checker(Samples({"x": Ragged.of([np.zeros((3, 48, 192), np.float32)])}))
    assert export_dynamic("dynamic", normalised_classifier(), tmp_path / "dynamic", checker, ENGINES) is None
    assert export_dynamic("dynamic", transformer(), tmp_path / "dynamic", checker, ["paddle_inference"]) is None
    assert not (tmp_path / "dynamic").exists()


@pytest.mark.parametrize("wrong", [["openvino"], [*ENGINES]])
def test_an_engine_that_computes_something_else_gets_no_file(tmp_path: Path, wrong: list[str]) -> None:
    model, feeds = transformer(), batch(TOKENS)

    def run(engine: str, path: Path, samples: Path) -> list[Ragged]:
        (outputs,) = model.run(next(Samples.load(samples).batches(8)))
        return [Ragged.of(list(-outputs if engine in wrong else outputs))]

    checker = Checker(Samples({"x": Ragged.of(list(feeds["x"]))}), run)
    found = export_dynamic("dynamic", model, tmp_path / "dynamic", checker, ENGINES)
    if len(wrong) == 2:
        assert found is None and not (tmp_path / "dynamic").exists()
        return
    assert found is not None and [*found.files] == ["onnxruntime"] and found.only == [*ENGINES]
    assert found.refused["openvino"].startswith("as OpenVINO runs it, it loses too much")
    assert not (tmp_path / "dynamic" / "openvino.onnx").exists()


@pytest.mark.parametrize("narrow", [False, True])
def test_weights_keep_to_their_bits_and_their_values(narrow: bool) -> None:
    model = transformer()
    fp32, layers = to_onnx(model), quantizable_layers(model)
    written = quantize_dynamically(fp32, model, layers, narrow)
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in written.graph.initializer}
    for layer in layers:
        integers, steps = stored[f"{layer.weight}.quantized"], stored[f"{layer.weight}.scale"]
        assert integers.dtype == np.int8 and np.abs(integers.astype(int)).max() == (63 if narrow else 127)
        np.testing.assert_allclose(integers * steps, model.weight(layer.weight), atol=0.51 * steps.max())
        assert layer.weight not in stored


def test_weights_alone_are_stored_in_int8_for_either_engine(tmp_path: Path) -> None:
    """Those of layers, and the rows that are looked up."""

    def network(x: Any, ids: Any) -> Any:
        return nn.Linear(32, 16)(x + nn.Embedding(50, 32)(ids))

    model = build(network, (1, 4, 32), others={"ids": (-1, 4)})
    rng = np.random.default_rng(0)
    feeds: dict[str, Array] = {"x": rng.normal(size=(2, 4, 32)).astype(np.float32), "ids": rng.integers(0, 50, (2, 4))}
    checker = Checker(Samples({name: Ragged.of(list(values)) for name, values in feeds.items()}))
    found = export_weights("weights", model, tmp_path / "weights", checker, ENGINES)
    assert found is not None and found.precision == "fp32" and found.only == [*ENGINES]
    for runtime, name in ((OnnxRuntime(), "onnxruntime"), (OpenVino(), "openvino")):
        file = tmp_path / found.files[name]
        stored = {each.name: each for each in onnx.load(file).graph.initializer}
        assert max(np.prod(each.dims) for each in stored.values() if each.data_type == onnx.TensorProto.FLOAT) < 100
        runtime.load(file, "fp32", 1)
        np.testing.assert_allclose(runtime.run(feeds)[0], model.run(feeds)[0], rtol=0.02, atol=0.02)
