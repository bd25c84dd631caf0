"""The quantized Paddle program and its ONNX twin, on the real models."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from act.engines.openvino.runtime import OpenVino
from act.errors import InputError
from act.metrics import cosine
from act.onnx_graph.conversion import to_onnx
from act.program.layers import OPERATORS, Layer, bias_of, quantizable_layers
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.program.passes.normalise import normalise
from act.quantization.onnx_model import quantize_onnx
from act.quantization.quantized_program import quantize
from act.quantization.ranges import Range
from act.quantization.scheme import AS_GIVEN, Scheme, left_in_float, make_scheme, without_others
from act.quantization.weights import quantize_weight
from act.results.quantization import SchemeFile
from act.samples.dataset import Array
from tests.support.cpu import EXACT_SUMS
from tests.support.models import RECOGNISER, noise, seen
from tests.support.prepare_networks import batch as pictures
from tests.support.prepare_networks import build


@pytest.fixture(scope="module")
def model() -> InferenceModel:
    return InferenceModel.load(RECOGNISER)


@pytest.fixture(scope="module")
def fp32(model: InferenceModel) -> onnx.ModelProto:
    return to_onnx(model)


@pytest.fixture(scope="module")
def layers(model: InferenceModel) -> list[Layer]:
    return quantizable_layers(model)


@pytest.fixture(scope="module")
def scheme(model: InferenceModel, layers: list[Layer]) -> Scheme:
    return make_scheme(model, layers, seen(model, layers, {"x": noise(2)}, symmetric=True))


@pytest.fixture(scope="module")
def asymmetric(model: InferenceModel, layers: list[Layer]) -> Scheme:
    return make_scheme(model, layers, seen(model, layers, {"x": noise(2)}, symmetric=False))


def test_layers_have_one_weight_and_one_activation(model: InferenceModel, layers: list[Layer]) -> None:
    assert Counter(layer.op_type for layer in layers) == {"conv2d": 24, "depthwise_conv2d": 14, "matmul_v2": 9}
    for layer in layers:
        assert model.is_weight(layer.weight) and not model.is_weight(layer.activation)
        assert layer.axis == (1 if layer.op_type == "matmul_v2" else 0)


def test_only_the_asked_types_are_found(model: InferenceModel) -> None:
    assert {layer.op_type for layer in quantizable_layers(model, ["matmul_v2"])} == {"matmul_v2"}
    assert quantizable_layers(model, ["no_such_op"]) == []


def test_a_quantized_weight_is_within_half_a_step() -> None:
    weight = np.random.default_rng(0).normal(size=(5, 7, 3, 3)).astype(np.float32)
    thresholds = np.abs(weight).max(axis=(1, 2, 3))
    steps = thresholds.reshape(-1, 1, 1, 1) / 127
    integers = quantize_weight(weight, thresholds, 0)
    assert integers.dtype == np.int8
    assert np.abs(integers * steps - weight).max() <= steps.max() / 2 + 1e-6
    assert np.abs(integers).reshape(5, -1).max(axis=1).tolist() == [127] * 5


def test_the_weights_are_stored_as_int8(model: InferenceModel, scheme: Scheme, tmp_path: Path) -> None:
    before = {name: model.weight(name) for name in model.weight_names()}
    quantize(model, scheme).save(tmp_path)
    loaded = InferenceModel.load(tmp_path)
    assert all(loaded.weight(name).dtype == np.int8 for name in scheme.weights)
    size = (tmp_path / "model.pdiparams").stat().st_size
    assert size < 0.3 * (RECOGNISER / "inference.pdiparams").stat().st_size
    for name, value in before.items():
        np.testing.assert_array_equal(model.weight(name), value, err_msg="the given model was changed")


def test_every_quantized_tensor_keeps_to_its_scale(model: InferenceModel, scheme: Scheme) -> None:
    quantized = quantize(model, scheme)
    names = list(scheme.activations)[:8]
    fetched = quantized.run({"x": noise(1)}, [f"{name}.quantized" for name in names])
    for name, integers in zip(names, fetched):
        assert integers.min() >= -128 and integers.max() <= 127, name
        np.testing.assert_array_equal(integers, np.round(integers), err_msg=name)


def run_onnx(twin: onnx.ModelProto, batch: dict[str, Array]) -> Array:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    outputs: list[Array] = onnxruntime.InferenceSession(twin.SerializeToString(), options).run(None, batch)
    return outputs[0]


@pytest.mark.parametrize("kind", ["scheme", "asymmetric"])
@pytest.mark.parametrize("position", [0, 1, 10, 30, -1])
def test_onnx_computes_what_paddle_simulates(
    model: InferenceModel,
    fp32: onnx.ModelProto,
    layers: list[Layer],
    kind: str,
    position: int,
    request: pytest.FixtureRequest,
) -> None:
    alone = make_scheme(model, [layers[position]], request.getfixturevalue(kind).activations)
    twin, batch = quantize_onnx(fp32, model, alone), {"x": noise(2)}
    np.testing.assert_allclose(run_onnx(twin, batch), quantize(model, alone).run(batch)[0], atol=2e-3)


@pytest.mark.parametrize(
    ("span", "scale", "zero_point"),
    [
        (Range(-2.0, 2.0), 2 / 127, 0),
        (Range(0.0, 2.55), 0.01, -128),
        (Range(-2.55, 0.0), 0.01, 127),
        (Range(-0.55, 2.0), 0.01, -73),
        (Range(0.0, 0.0), 1e-8 / 127, 0),
    ],
)
def test_a_range_gives_its_scale_and_zero_point(span: Range, scale: float, zero_point: int) -> None:
    assert span.scale == pytest.approx(scale, rel=1e-6)
    assert span.zero_point == zero_point
    ends = np.array([span.low, 0.0, span.high], dtype=np.float32)
    restored = (span.quantize(ends) - zero_point) * span.scale
    assert restored[1] == 0, "zero is exact"
    assert np.abs(restored - ends).max() <= span.scale * 0.51


@pytest.mark.parametrize(("low", "high"), [(0.1, 1.0), (-1.0, -0.1), (float("nan"), 1.0), (0.0, float("inf"))])
def test_a_range_without_zero_or_end_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="finite and hold zero"):
        Range(low, high)


def test_an_asymmetric_range_halves_the_steps_of_a_non_negative_tensor(
    model: InferenceModel, scheme: Scheme, asymmetric: Scheme
) -> None:
    batch = {"x": noise(2)}
    name = next(name for name, span in asymmetric.activations.items() if span.low == 0)
    plain = model.run(batch, [name])[0]
    errors = [
        np.abs(quantize(model, candidate).run(batch, [name])[0] - plain).mean() for candidate in (scheme, asymmetric)
    ]
    steps = [candidate.activations[name].scale for candidate in (scheme, asymmetric)]
    assert steps[1] == pytest.approx(steps[0] * 127 / 255, rel=1e-5)
    assert errors[1] < errors[0]


def test_a_bias_is_replaced_in_both_programs(
    model: InferenceModel, fp32: onnx.ModelProto, layers: list[Layer], scheme: Scheme
) -> None:
    bias = bias_of(model, layers[-1])
    assert bias is not None
    moved = replace(scheme, layers=(), activations={}, weights={}, biases={bias: model.weight(bias) + np.float32(1)})
    batch, product = {"x": noise(2)}, layers[-1].name
    before = model.weight(bias)
    logits = next(op.output_arg_names[0] for op in model.ops if product in op.input_arg_names)
    shifted = quantize(model, moved).run(batch, [logits])[0] - model.run(batch, [logits])[0]
    np.testing.assert_allclose(shifted, 1, atol=1e-3)
    np.testing.assert_array_equal(model.weight(bias), before, err_msg="the given model was changed")
    twin = quantize_onnx(fp32, model, moved)
    stored = next(numpy_helper.to_array(i) for i in twin.graph.initializer if i.name == bias)
    np.testing.assert_array_equal(stored.reshape(-1), before.reshape(-1) + np.float32(1))


def test_chosen_integers_are_those_of_both_programs(
    model: InferenceModel, fp32: onnx.ModelProto, layers: list[Layer], scheme: Scheme, tmp_path: Path
) -> None:
    weight = layers[0].weight
    chosen = quantize_weight(model.weight(weight), scheme.weights[weight], layers[0].axis) // 2
    moved = replace(scheme, integers={weight: chosen})
    quantize(model, moved).save(tmp_path)
    np.testing.assert_array_equal(InferenceModel.load(tmp_path).weight(weight), chosen)
    twin = quantize_onnx(fp32, model, moved)
    stored = next(numpy_helper.to_array(i) for i in twin.graph.initializer if i.name == f"{weight}.quantized")
    np.testing.assert_array_equal(stored, chosen)
    file = tmp_path / "scheme.json"
    moved.write(file)
    np.testing.assert_array_equal(Scheme.read(file).integers[weight], chosen)
    whole = file.read_text()
    packed = SchemeFile.read(file).integers[weight].base64
    for damage in ("?", packed[:-8]):
        file.write_text(whole.replace(packed, damage))
        with pytest.raises(InputError, match=f"integers of the weight {weight}"):
            Scheme.read(file)
    with pytest.raises(InputError, match=weight):
        quantize(model, replace(scheme, integers={weight: chosen[:1]}))


def test_a_foreign_bias_is_refused(model: InferenceModel) -> None:
    with pytest.raises(InputError, match="no_such_bias"):
        quantize(model, Scheme((), {}, {}, {"no_such_bias": np.zeros(3, dtype=np.float32)}))


def test_every_pair_is_in_the_onnx_file(model: InferenceModel, fp32: onnx.ModelProto, scheme: Scheme) -> None:
    twin, batch = quantize_onnx(fp32, model, scheme), {"x": noise(2)}
    counts = Counter(node.op_type for node in twin.graph.node)
    assert counts["QuantizeLinear"] == len(scheme.activations)
    assert counts["DequantizeLinear"] == len(scheme.activations) + len(scheme.weights)
    # Rounding differs in the last bit of a few values, which 47 layers carry on.
    assert cosine(run_onnx(twin, batch), quantize(model, scheme).run(batch)[0]) > 0.95


def test_fp32_onnx_computes_the_same(model: InferenceModel, fp32: onnx.ModelProto) -> None:
    session = onnxruntime.InferenceSession(fp32.SerializeToString())
    batch = {"x": noise(2)}
    np.testing.assert_allclose(session.run(None, batch)[0], model.run(batch)[0], atol=1e-4)


def test_layers_left_out_stay_in_floating_point(
    model: InferenceModel, layers: list[Layer], scheme: Scheme, tmp_path: Path
) -> None:
    partial = make_scheme(model, layers[:10], scheme.activations)
    quantized = quantize(model, partial)
    assert quantized.weight(layers[0].weight).dtype == np.int8
    assert quantized.weight(layers[20].weight).dtype == np.float32


def test_a_scheme_survives_its_file(scheme: Scheme, tmp_path: Path) -> None:
    scheme.write(tmp_path / "scheme.json")
    again = Scheme.read(tmp_path / "scheme.json")
    assert again.layers == scheme.layers and again.activations == scheme.activations
    for name, values in scheme.weights.items():
        np.testing.assert_array_equal(again.weights[name], values)


def test_a_foreign_scheme_is_refused(model: InferenceModel) -> None:
    with pytest.raises(InputError, match="no_such_layer"):
        quantize(model, Scheme(("no_such_layer",), {}, {}))


def test_a_model_that_onnx_has_no_operators_for_is_the_users_matter() -> None:
    with pytest.raises(InputError, match="Paddle2ONNX cannot convert the model: .*lgamma"):
        to_onnx(build(paddle.lgamma, (1, 4)))
    with pytest.raises(InputError, match="Paddle2ONNX cannot convert the model: .*deformable_conv, requires opset"):
        to_onnx(build(deformed, (1, 4, 6, 6)))


def deformed(x: Any) -> Any:
    offsets, mask = (paddle.nn.Conv2D(4, channels, 3, padding=1)(x) for channels in (18, 9))
    weight = paddle.create_parameter([4, 4, 3, 3], "float32")
    return paddle.vision.ops.deform_conv2d(x, offsets, weight, padding=1, mask=mask)


def upsampled(x: Any) -> Any:
    grown = paddle.nn.Conv2DTranspose(4, 6, 2, stride=2)(paddle.nn.functional.relu(paddle.nn.Conv2D(3, 4, 3)(x)))
    return paddle.nn.functional.sigmoid(grown)


@EXACT_SUMS
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_transposed_convolution_is_quantized_along_its_output_channels(symmetric: bool, tmp_path: Path) -> None:
    model, feed = normalise(build(upsampled, (1, 3, 8, 8)))[0], pictures((1, 3, 8, 8))
    layers = quantizable_layers(model)
    assert [(la.op_type, la.axis) for la in layers] == [("conv2d", 0), ("conv2d_transpose", 1)]
    scheme = make_scheme(model, layers, seen(model, layers, feed, symmetric))
    assert scheme.weights[layers[1].weight].shape == (6,)
    quantized = quantize_onnx(to_onnx(model), model, scheme)
    onnx.save(quantized, tmp_path / "model.onnx")
    engine = OpenVino()
    engine.load(tmp_path / "model.onnx", "int8", 1)
    wanted = quantize(model, scheme).run(feed)[0]
    assert np.abs(wanted - model.run(feed)[0]).max() > 1e-4
    np.testing.assert_allclose(run_onnx(quantized, feed), wanted, atol=1e-5)
    assert cosine(engine.run(feed)[0], wanted) > 1 - 1e-4


def test_a_scheme_without_other_types_is_that_of_the_rest() -> None:
    model, feed = normalise(build(upsampled, (1, 3, 8, 8)))[0], pictures((1, 3, 8, 8))
    layers = quantizable_layers(model)
    ranges = seen(model, layers, feed, True)
    biases = {bias: model.weight(bias) for layer in layers if (bias := bias_of(model, layer)) is not None}
    whole = replace(make_scheme(model, layers, ranges), biases=biases)
    assert without_others(model, whole, OPERATORS) is whole
    rest = without_others(model, whole, ("conv2d",))
    first = make_scheme(model, layers[:1], ranges)
    assert rest.layers == first.layers and rest.activations == first.activations
    assert list(rest.weights) == list(first.weights) and list(rest.biases) == [bias_of(model, layers[0])]


def test_what_a_scheme_leaves_in_float_has_its_reason() -> None:
    nn = paddle.nn

    def network(x: Any) -> Any:
        twice = nn.Conv2D(6, 6, 1, bias_attr=False)
        y = twice(twice(nn.Conv2DTranspose(6, 6, 2, groups=2)(upsampled(x))))
        rows = paddle.reshape(y, [-1, 6, 13 * 13])
        return paddle.matmul(rows, rows, transpose_y=True)

    model, feed = build(network, (1, 3, 8, 8)), pictures((1, 3, 8, 8))
    first = quantizable_layers(model)[:1]
    found = left_in_float(model, make_scheme(model, first, seen(model, first, feed, True)))
    assert [(entry["type"], entry["why"].split()[0]) for entry in found] == [
        ("conv2d_transpose", "kept"),
        ("conv2d_transpose", "its"),
        ("conv2d", "shares"),
        ("conv2d", "shares"),
        ("matmul_v2", "multiplies"),
    ]
    assert first[0].name not in [entry["name"] for entry in found]
    nothing = make_scheme(model, [], {})
    reasons = [entry["why"] for entry in left_in_float(model, nothing, AS_GIVEN, {first[0].name: "is wrong"})]
    assert reasons[:2] == ["is wrong", AS_GIVEN]


@EXACT_SUMS
@pytest.mark.parametrize("bias", [True, False])
def test_openvino_and_onnx_runtime_agree_on_a_pool_after_an_int8_convolution(bias: bool, tmp_path: Path) -> None:
    """Squeeze-and-excitation: OpenVINO alone would apply the scales of a convolution without a bias twice."""
    nn = paddle.nn

    def network(x: Any) -> Any:
        y = nn.Conv2D(24, 16, 1, bias_attr=None if bias else False)(x)
        gate = nn.functional.hardsigmoid(nn.Conv2D(16, 16, 1)(nn.functional.adaptive_avg_pool2d(y, 1)))
        return y + y * gate

    model = build(network, (1, 24, 8, 8))
    for name in model.weight_names():
        model.set_weight(name, model.weight(name) - 1)
    feed = pictures((1, 24, 8, 8))
    first = quantizable_layers(model)[:1]
    quantized = quantize_onnx(to_onnx(model), model, make_scheme(model, first, seen(model, first, feed, True)))
    path = tmp_path / "model.onnx"
    onnx.save(quantized, path)
    engine = OpenVino()
    engine.load(path, "int8", 1)
    np.testing.assert_allclose(engine.run(feed)[0], run_onnx(quantized, feed), rtol=1e-3, atol=1e-3)
