"""The engine `paddle_lite`: a worker of another interpreter, a row where that is missing, the real one where it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from act.engines.paddle_lite.writer import for_lite, write_nb
from act.engines.process import EngineFailure, EngineProcess
from act.environments import LITE
from act.metrics import cosine
from act.program.layers import quantizable_layers
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.quantization.quantized_program import quantize
from act.quantization.scheme import make_scheme
from act.samples.dataset import Ragged, Samples
from tests.support.lite import REAL, fake_environment
from tests.support.models import CLASSIFIER, noise, normalised_classifier, seen
from tests.support.prepare_networks import build


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples") / "noise"
    Samples({"x": Ragged.of(list(noise(4)))}).save(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    for_lite(InferenceModel.load(CLASSIFIER)).save(folder)
    return folder


def test_without_the_environment_the_row_says_what_is_missing_and_the_cure(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LITE.variable, str(tmp_path / "nothing"))
    with EngineProcess("paddle_lite", classifier, "fp32", 1, 60) as engine, pytest.raises(EngineFailure) as failure:
        engine.load()
    assert failure.value.kind == "missing"
    assert "Paddle Lite" in failure.value.cause and "`make lite`" in failure.value.cause


def test_the_worker_runs_under_the_environments_interpreter(
    classifier: Path, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_environment(tmp_path / "environment", monkeypatch)
    with EngineProcess("paddle_lite", classifier, "int8", 3, 60) as engine:
        info = engine.load()
        assert (info.version, info.precisions) == ("fake", ["fp32", "int8"])
        assert info.description == {"kernels": "int8", "threads": 3}
        (outputs,) = engine.outputs(samples, batch=3)
        np.testing.assert_array_equal(np.stack(list(outputs)), 2 * noise(4))
        assert engine.operators() == {
            "multiplying": {"int8": {"conv2d": 1}, "fp32": {"fc": 1}},
            "conversions": {},
        }
        with pytest.raises(EngineFailure, match="cannot run several streams"):
            engine.throughput(samples, 1, 2, 0.01)
    with EngineProcess("paddle_lite", classifier, "bf16", 1, 60) as engine, pytest.raises(EngineFailure) as failure:
        engine.load()
    assert failure.value.kind == "unsupported"


@REAL
def test_the_real_one_computes_what_paddle_does(classifier: Path, samples: Path) -> None:
    (reference,) = InferenceModel.load(CLASSIFIER).run({"x": noise(4)})
    with EngineProcess("paddle_lite", classifier, "fp32", 1, 60) as engine:
        info = engine.load()
        assert info.version.startswith("v2.13") and info.description["threads"] == 1
        (alone,) = engine.outputs(samples)
        (together,) = engine.outputs(samples, batch=3)  # the batch axis is dynamic; 4 is no multiple of 3
        assert len(engine.time(samples, 1, 3)) == 3
        assert sum(engine.operators()["multiplying"]["fp32"].values()) == 53
    np.testing.assert_allclose(np.stack(list(alone)), reference, atol=1e-5)
    np.testing.assert_allclose(np.stack(list(together)), reference, atol=1e-5)


@REAL
def test_the_real_ones_int8_is_ours_where_its_x86_kernels_do_not_saturate(tmp_path: Path) -> None:
    """Weights of 7 bits keep the sums of two products within 16 bits, and so show that it reads our form rightly."""
    shape = (4, 8, 16, 16)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    Samples({"x": Ragged.of(list(x))}).save(tmp_path / "samples")
    model = build(two_convolutions, shape)
    layers = quantizable_layers(model, ("conv2d", "depthwise_conv2d"))
    scheme = make_scheme(model, layers, seen(model, layers, {"x": x}, symmetric=True))
    halved = replace(scheme, weights={name: 2 * values for name, values in scheme.weights.items()})
    quantized = quantize(model, halved)
    (tmp_path / "model").mkdir()
    for_lite(quantized).save(tmp_path / "model")
    with EngineProcess("paddle_lite", tmp_path / "model", "int8", 1, 60) as engine:
        engine.load()
        (outputs,) = engine.outputs(tmp_path / "samples")
        operators = engine.operators()
    assert operators["multiplying"] == {"int8": {"conv2d": 2}}
    (wanted,) = quantized.run({"x": x})
    (plain,) = model.run({"x": x})
    found = np.stack(list(outputs))
    # A value between two integers may still fall to the other one.
    assert np.abs(found - wanted).mean() < 0.02 * np.abs(plain - wanted).mean()


@REAL
def test_a_product_after_flatten_runs_only_in_the_form_for_lite(tmp_path: Path) -> None:
    shape = (2, 3, 8, 8)
    model = as_saved(build(flattened, shape))
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    Samples({"x": Ragged.of(list(x))}).save(tmp_path / "samples")
    for name, form in (("plain", model), ("for_lite", for_lite(model))):
        (tmp_path / name).mkdir()
        form.save(tmp_path / name)
    with EngineProcess("paddle_lite", tmp_path / "plain", "fp32", 1, 60) as engine:
        with pytest.raises(EngineFailure) as failure:
            engine.load()
        assert failure.value.kind == "crash" and "SIGSEGV" in failure.value.cause
    with EngineProcess("paddle_lite", tmp_path / "for_lite", "fp32", 1, 60) as engine:
        engine.load()
        (outputs,) = engine.outputs(tmp_path / "samples")
    assert cosine(np.stack(list(outputs)), model.run({"x": x})[0]) > 0.999999


def two_convolutions(x: Any) -> Any:
    layers = paddle.static.nn
    return layers.conv2d(paddle.nn.functional.hardswish(layers.conv2d(x, 16, 1)), 8, 3, padding=1)


def flattened(x: Any) -> Any:
    weight = paddle.static.create_parameter([192, 5], "float32")
    return paddle.matmul(paddle.flatten(paddle.nn.functional.relu(x), 1), weight)


def as_saved(model: InferenceModel) -> InferenceModel:
    """As Paddle's `save_inference_model` leaves it: without the outputs that only training reads."""
    for op in model.ops:
        if op.type == "flatten_contiguous_range":
            op.desc.remove_output("XShape")
    return model


def test_the_form_for_lite_computes_the_same_and_leaves_the_model_alone() -> None:
    shape = (2, 3, 8, 8)
    model = as_saved(build(flattened, shape))
    before = model.program.desc.serialize_to_string()
    form = for_lite(model)
    assert any(op.type == "flatten_contiguous_range" and op.output("XShape") for op in form.ops)
    assert model.program.desc.serialize_to_string() == before
    x = {"x": np.random.default_rng(0).normal(size=shape).astype(np.float32)}
    np.testing.assert_array_equal(form.run(x)[0], model.run(x)[0])
    again = for_lite(normalised_classifier())
    assert len(again.ops) == len(normalised_classifier().ops)


def biased(x: Any) -> Any:
    """Two convolutions with biases that have axes of length one about them, as dynamic graphs are saved."""
    for channels in (8, 6):
        x = paddle.static.nn.conv2d(x, channels, 3, bias_attr=False)
        x = paddle.nn.functional.relu(x + paddle.static.create_parameter([1, channels, 1, 1], "float32"))
    return x


@pytest.fixture(scope="module")
def forms() -> dict[str, InferenceModel]:
    model = build(biased, (2, 4, 8, 8))
    layers, x = quantizable_layers(model, ("conv2d",)), {"x": np.ones((2, 4, 8, 8), dtype=np.float32)}
    return {"fp32": model, "int8": quantize(model, make_scheme(model, layers, seen(model, layers, x, symmetric=True)))}


def test_the_form_for_lite_has_flat_biases_and_zero_points_of_its_own(forms: dict[str, InferenceModel]) -> None:
    form = for_lite(forms["int8"])
    biases = [form.weight(op.input("Y")[0]).shape for op in form.ops if op.type == "elementwise_add"]
    zeros = [op.input("ZeroPoint")[0] for op in form.ops if op.type in ("quantize_linear", "dequantize_linear")]
    assert biases == [(8,), (6,)] and len(set(zeros)) == len(zeros) == 6
    assert not any(op.has_attr("op_role") for op in form.ops)
    x = {"x": np.random.default_rng(0).normal(size=(2, 4, 8, 8)).astype(np.float32)}
    np.testing.assert_array_equal(form.run(x)[0], forms["int8"].run(x)[0])


@REAL
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_opt_takes_such_biases_and_zero_points(
    precision: Literal["fp32", "int8"], forms: dict[str, InferenceModel], tmp_path: Path
) -> None:
    for_lite(forms[precision]).save(tmp_path)
    write_nb(tmp_path, tmp_path / "arm.nb", precision)
    assert (tmp_path / "arm.nb").stat().st_size > 0
