"""Exported files compute what the simulated model computes, and a file that does not is refused."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from act.engines.check import Checker, require_saved
from act.engines.onnxruntime.writer import OnnxRuntimeWriter
from act.engines.writer import calibration_table
from act.onnx_graph.conversion import to_onnx
from act.program.layers import bias_of, quantizable_layers
from act.program.model import InferenceModel
from act.quantization.quantized_program import quantize
from act.quantization.ranges import Range
from act.quantization.scheme import Scheme, make_scheme
from act.quantization.weights import quantize_weight
from act.samples.dataset import Ragged, Samples
from tests.support.engines import export
from tests.support.models import RECOGNISER, noise, seen

SAMPLES = Samples({"x": Ragged.of(list(noise(2, width=96)))})


@pytest.fixture(scope="module")
def model() -> InferenceModel:
    return InferenceModel.load(RECOGNISER)


@pytest.fixture(scope="module")
def scheme(model: InferenceModel) -> Scheme:
    layers = quantizable_layers(model)
    return make_scheme(model, layers, seen(model, layers, {"x": noise(2, width=96)}, symmetric=True))


@pytest.fixture(scope="module")
def asymmetric(model: InferenceModel) -> Scheme:
    """Zero points, a bias that is not the model's, and weights that are not rounded to the nearest."""
    layers = quantizable_layers(model)
    scheme = make_scheme(model, layers, seen(model, layers, {"x": noise(2, width=96)}, symmetric=False))
    bias = bias_of(model, layers[3])
    assert bias is not None
    integers = {
        layer.weight: quantize_weight(model.weight(layer.weight), scheme.weights[layer.weight], layer.axis) // 2
        for layer in layers[4:6]
    }
    return replace(scheme, biases={bias: model.weight(bias) * np.float32(1.1)}, integers=integers)


@dataclass(frozen=True)
class Written:
    """Candidates, which tests share and leave as they are: fp32 and one of each scheme."""

    folder: Path
    entries: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def written(
    model: InferenceModel, scheme: Scheme, asymmetric: Scheme, tmp_path_factory: pytest.TempPathFactory
) -> Written:
    folder, checker = tmp_path_factory.mktemp("written"), Checker(SAMPLES)
    schemes = {"fp32": None, "scheme": scheme, "asymmetric": asymmetric}
    return Written(folder, {name: export(name, model, each, folder, checker) for name, each in schemes.items()})


@pytest.mark.parametrize("kind", ["scheme", "asymmetric"])
def test_every_form_is_written_and_shrinks_to_about_a_quarter(written: Written, kind: str) -> None:
    fp32, int8 = written.entries["fp32"], written.entries[kind]
    for entry in (fp32, int8):
        for path in entry["files"].values():
            assert (written.folder / path).exists()
    assert int8["weight_bytes"] < 0.3 * fp32["weight_bytes"]
    assert int8["bytes"]["openvino"] < 0.3 * fp32["bytes"]["openvino"]
    assert int8["check"]["onnx_steps"] < 0.5 * int8["check"]["fp32_steps"]
    stored = {i.name: i.data_type for i in onnx.load(written.folder / int8["files"]["openvino"]).graph.initializer}
    assert sum(kind == onnx.TensorProto.INT8 for name, kind in stored.items() if name.endswith(".quantized")) == 47


@pytest.mark.parametrize("kind", ["scheme", "asymmetric"])
def test_the_calibration_table_has_a_line_a_tensor(kind: str, request: pytest.FixtureRequest) -> None:
    spans = request.getfixturevalue(kind).activations
    lines = [line.split(" ") for line in calibration_table(request.getfixturevalue(kind)).splitlines()]
    assert {name: float(scale) for name, scale in lines} == {n: max(-s.low, s.high) for n, s in spans.items()}


def spoil(path: Path, suffix: str, change: float) -> None:
    twin = onnx.load(path)
    for initialiser in twin.graph.initializer:
        if initialiser.name.endswith(suffix) and initialiser.data_type == onnx.TensorProto.FLOAT:
            changed = np.asarray(numpy_helper.to_array(initialiser) * change, dtype=np.float32)
            initialiser.CopyFrom(numpy_helper.from_array(changed, initialiser.name))
    onnx.save(twin, path)


def test_a_file_with_wrong_scales_is_refused(
    model: InferenceModel, scheme: Scheme, written: Written, tmp_path: Path
) -> None:
    spoilt = Path(shutil.copy(written.folder / "scheme" / "quant_model.onnx", tmp_path))
    spoil(spoilt, "_0.scale", 1.2)
    with pytest.raises(RuntimeError, match="does not compute what the simulated model does"):
        Checker(SAMPLES).int8(model, quantize(model, scheme), scheme, spoilt, to_onnx(model))


def test_what_adds_up_through_many_layers_is_looked_at_layer_by_layer(
    model: InferenceModel, asymmetric: Scheme, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = written.entries["asymmetric"]["check"]["onnx_steps"]
    limits = {"LARGEST_DEVIATION": together / 2, "LARGEST_DEVIATION_SHARE": 0, "SAME_OUTPUTS": 2}
    for name, value in limits.items():
        monkeypatch.setattr(f"act.engines.check.{name}", value)
    file = written.folder / "asymmetric" / "quant_model.onnx"
    found = Checker(SAMPLES).int8(model, quantize(model, asymmetric), asymmetric, file, to_onnx(model))
    assert found["onnx_steps"] < together / 2


def test_a_foreign_paddle_file_is_refused(model: InferenceModel, scheme: Scheme, written: Written) -> None:
    require_saved(model, written.folder / "fp32")
    with pytest.raises(RuntimeError, match="does not hold the program"):
        require_saved(quantize(model, scheme), written.folder / "fp32")
    other = model.copy()
    bias = bias_of(model, quantizable_layers(model)[3])
    other.set_weight(str(bias), model.weight(str(bias)) * np.float32(1 + 1e-6))
    with pytest.raises(RuntimeError, match="does not hold the program"):
        require_saved(other, written.folder / "fp32")


def test_an_engines_file_that_loses_too_much_gives_way_to_the_plain_form(
    model: InferenceModel,
    scheme: Scheme,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Spoiling(OnnxRuntimeWriter):
        def quantized(self, *arguments: Any) -> onnx.ModelProto:
            path = tmp_path / "spoiled.onnx"
            onnx.save(super().quantized(*arguments), path)
            spoil(path, ".scale", 1 / 30)  # clipped: with larger steps this model's outputs may stay alike
            return onnx.load(path)

    caplog.set_level("INFO")
    monkeypatch.setattr("act.engines.onnxruntime.writer.OnnxRuntimeWriter", Spoiling)
    entry = export("int8-ptq", model, scheme, tmp_path, Checker(SAMPLES))
    assert entry["files"]["onnxruntime"] == "int8-ptq/quant_model.onnx"
    assert entry["files"]["openvino"] == "int8-ptq/openvino.onnx"
    assert not (tmp_path / "int8-ptq" / "onnxruntime.onnx").exists()
    assert "onnxruntime.onnx loses too much" in caplog.text


@pytest.mark.parametrize(
    "trusted, file", [("openvino", "openvino.onnx"), ("quant_model", "quant_model.onnx"), ("", None)]
)
def test_an_engine_that_computes_something_else_gets_the_plain_form_or_none(
    model: InferenceModel, scheme: Scheme, tmp_path: Path, trusted: str, file: str | None
) -> None:
    def run(engine: str, path: Path, samples: Path) -> list[Ragged]:
        (values,) = model.run(next(Samples.load(samples).batches(8)))
        return [Ragged.of(list(values if path.stem == trusted else np.roll(values, 1, axis=-1)))]

    entry = export("int8-ptq", model, scheme, tmp_path, Checker(SAMPLES, run), ["openvino"])
    assert entry["files"].get("openvino") == (file and f"int8-ptq/{file}")
    assert ("loses" in entry["refused"].get("openvino", "")) == (file is None)
    assert ("openvino" in entry["check"]) == (trusted == "openvino")
    assert "onnxruntime" in entry["files"], "what is no engine of the target is not run"


def test_onnx_runtime_gets_the_ranges_that_keep_its_outputs_nearest(
    model: InferenceModel, scheme: Scheme, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    narrow = {name: Range.around_zero(span.threshold / 50) for name, span in scheme.activations.items()}
    spoilt = replace(scheme, activations=narrow)
    alternatives = {"narrower": {name: Range.around_zero(span.threshold / 4) for name, span in narrow.items()}}
    alternatives["right"] = dict(scheme.activations)
    checker = Checker(SAMPLES)
    for folder, given in (("without", None), ("with", alternatives)):
        (tmp_path / folder).mkdir()
        export("int8-ptq", model, spoilt, tmp_path / folder, checker, ["openvino", "onnxruntime"], given)
    assert "with right, which are taken" in caplog.text
    written = {folder: onnx.load(tmp_path / folder / "int8-ptq" / "onnxruntime.onnx") for folder in ("without", "with")}
    fp32 = to_onnx(model)
    plain = checker.on_onnxruntime(fp32, written["without"])
    assert checker.on_onnxruntime(fp32, written["with"]) > max(plain, 0.9)
