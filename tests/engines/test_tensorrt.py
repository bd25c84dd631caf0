"""The files for TensorRT, as far as they can be checked without it: what stands in them, and what they compute."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from act.engines.check import Checker
from act.engines.tensorrt import writer as tensorrt_gpu
from act.engines.writer import further_tensors
from act.onnx_graph.conversion import to_onnx
from act.program.layers import bias_of, quantizable_layers
from act.program.model import InferenceModel
from act.quantization.activations import reader
from act.quantization.ranges import Range
from act.quantization.scheme import Scheme, make_scheme
from act.samples.dataset import Ragged, Samples
from tests.support.engines import export
from tests.support.models import noise, normalised_classifier

SAMPLES = Samples({"x": Ragged.of(list(noise(2)))})


@pytest.fixture(scope="module")
def model() -> InferenceModel:
    return normalised_classifier()


@pytest.fixture(scope="module")
def scheme(model: InferenceModel) -> Scheme:
    """All layers, the ranges of everything else, and a bias that is not the model's."""
    layers, fp32 = quantizable_layers(model), to_onnx(model)
    values = reader(fp32, layers, further_tensors(fp32))({"x": noise(2)})
    ranges = {name: Range.around_zero(float(np.abs(each).max()) or 1.0) for name, each in values.items()}
    bias = next(name for layer in layers if (name := bias_of(model, layer)) is not None)
    made = make_scheme(model, layers, ranges)
    return replace(made, further=ranges, biases={bias: model.weight(bias) + np.float32(0.01)})


@pytest.fixture(scope="module")
def written(
    model: InferenceModel, scheme: Scheme, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("export")
    return folder, export("int8-ptq", model, scheme, folder, Checker(SAMPLES), ["tensorrt"])


def test_pairs_are_symmetric_weights_float_and_biases_too(written: tuple[Path, dict[str, Any]], scheme: Scheme) -> None:
    folder, entry = written
    graph = onnx.load(folder / entry["files"]["tensorrt"]).graph
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    quantizers = {node.output[0]: node for node in graph.node if node.op_type == "QuantizeLinear"}
    dequantizers = [node for node in graph.node if node.op_type == "DequantizeLinear"]
    assert all(node.input[0] in quantizers for node in dequantizers), "no constant of integers"
    assert all(not constants[node.input[2]].any() for node in dequantizers)
    assert all(constants[node.input[2]].dtype == np.int8 for node in dequantizers)
    assert all(constants[name].dtype == np.float32 for name in scheme.weights)
    assert entry["check"]["tensorrt"] > 0.95 and entry["bytes"]["tensorrt"] > 0


def test_what_is_added_to_a_layer_is_rounded(written: tuple[Path, dict[str, Any]]) -> None:
    folder, entry = written
    graph = onnx.load(folder / entry["files"]["tensorrt"]).graph
    makers = {name: node for node in graph.node for name in node.output}
    constants = {each.name for each in graph.initializer}
    residuals = [
        node
        for node in graph.node
        if node.op_type == "Add"
        and not constants & set(node.input)
        and "Conv" in [makers[n].op_type for n in node.input]
    ]
    assert residuals
    for node in residuals:
        assert sorted(makers[name].op_type for name in node.input) == ["Conv", "DequantizeLinear"]


def test_the_cache_has_the_scale_of_every_tensor(written: tuple[Path, dict[str, Any]], scheme: Scheme) -> None:
    folder, _ = written
    lines = (folder / "int8-ptq/tensorrt/calibration.cache").read_text().splitlines()
    assert lines[0] == "TRT-8601-EntropyCalibration2"
    found = {
        name: struct.unpack(">f", bytes.fromhex(digits))[0] for name, digits in (line.split(": ") for line in lines[1:])
    }
    assert found["x"] == pytest.approx(scheme.activations["x"].threshold / 127)
    graph = onnx.load(folder / "int8-ptq/tensorrt/implicit.onnx").graph
    tensors = {name for node in graph.node for name in [*node.input, *node.output]}
    assert set(found) <= tensors | set(scheme.activations)
    assert not [node for node in graph.node if "Quantize" in node.op_type]
    assert struct.pack(">f", 1.5).hex() in tensorrt_gpu.calibration_cache({"a": Range.around_zero(1.5 * 127)})


def test_the_implicit_model_has_the_schemes_biases(
    written: tuple[Path, dict[str, Any]], model: InferenceModel, scheme: Scheme
) -> None:
    folder, _ = written
    stored = {
        i.name: numpy_helper.to_array(i)
        for i in onnx.load(folder / "int8-ptq/tensorrt/implicit.onnx").graph.initializer
    }
    ((name, values),) = scheme.biases.items()
    assert stored[name].reshape(-1) == pytest.approx(values.reshape(-1))


def test_fp32_is_its_onnx_file_and_zero_points_are_refused(
    model: InferenceModel, scheme: Scheme, tmp_path: Path
) -> None:
    checker = Checker(SAMPLES)
    entry = export("fp32", model, None, tmp_path, checker, ["tensorrt"])
    assert entry["files"]["tensorrt"] == "fp32/model.onnx"
    shifted = replace(scheme, activations={**scheme.activations, "x": Range(-1.0, 0.5)})
    entry = export("int8-ptq", model, shifted, tmp_path, checker, ["tensorrt"])
    assert "no zero point" in entry["refused"]["tensorrt"] and "tensorrt" not in entry["elsewhere"]
    with pytest.raises(ValueError, match="zero point"):
        tensorrt_gpu.explicit(to_onnx(model), model, shifted)
