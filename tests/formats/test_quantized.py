"""Models that are quantized already: the float models that they round, or one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

from act.comparison import similarity
from act.errors import InputError
from act.formats import SourceModel
from act.onnx_graph.conversion import to_onnx
from act.program.layers import quantizable_layers
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.quantization.given import given_scheme
from act.quantization.onnx_model import quantize_onnx
from act.quantization.quantized_program import quantize
from act.quantization.ranges import Range
from act.quantization.scheme import Scheme, make_scheme, with_values
from act.quantization.weights import along, dequantize_weight, quantize_weight
from act.samples.dataset import Array, Ragged, Samples
from tests.support.analyze_networks import of, two_joins
from tests.support.models import seen
from tests.support.odd_models import Odd

BATCH = {"x": np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)}


def quantized(symmetric: bool = True) -> tuple[InferenceModel, Scheme]:
    model = of(two_joins, 3, 8, 8)
    layers = quantizable_layers(model)
    return model, make_scheme(model, layers, seen(model, layers, BATCH, symmetric=symmetric))


def with_rounded_weights(model: InferenceModel, scheme: Scheme) -> InferenceModel:
    result = with_values(model, scheme)
    for layer in quantizable_layers(model):
        integers = quantize_weight(model.weight(layer.weight), scheme.weights[layer.weight], layer.axis)
        result.set_weight(layer.weight, dequantize_weight(integers, scheme.weights[layer.weight], layer.axis))
    return result


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("as_onnx", [False, True])
def test_our_own_int8_model_is_its_float_model_again(symmetric: bool, as_onnx: bool, tmp_path: Path) -> None:
    model, scheme = quantized(symmetric)
    if as_onnx:
        onnx.save(quantize_onnx(to_onnx(model), model, scheme), tmp_path / "model.onnx")
    else:
        quantize(model, scheme).save(tmp_path)
    parts = SourceModel.find(tmp_path).split()
    assert parts.rounding is not None and parts.tail is None
    assert len(parts.rounding.activations) == len(scheme.activations)
    assert not [op.type for op in parts.body.ops if "quantize" in op.type]
    assert len(quantizable_layers(parts.body)) == len(scheme.layers)
    assert {op.type for op in parts.body.ops} == {op.type for op in model.ops} or as_onnx
    np.testing.assert_allclose(parts.body.run(BATCH)[0], with_rounded_weights(model, scheme).run(BATCH)[0], rtol=1e-4)
    assert (parts.save_float is not None) == as_onnx
    if parts.save_float is not None:
        (tmp_path / "float").mkdir()
        kinds = {node.op_type for node in onnx.load(parts.save_float(tmp_path / "float")).graph.node}
        assert "DequantizeLinear" not in kinds, "ONNX Runtime rounds what is multiplied by integers"
    layers = quantizable_layers(parts.body)
    spans = {name: Range(*span) for name, span in parts.rounding.activations.items() if span is not None}
    found = replace(make_scheme(parts.body, layers, spans), further=spans)
    again = given_scheme(parts.body, layers, parts.rounding, found)
    assert again is not None and len(again.layers) == len(layers)
    for old, new in zip(scheme.activations.values(), again.activations.values()):
        assert (new.scale, new.zero_point) == (pytest.approx(old.scale, rel=1e-6), old.zero_point)
    rounded = with_rounded_weights(parts.body, again)
    for layer in layers:
        np.testing.assert_allclose(rounded.weight(layer.weight), parts.body.weight(layer.weight), rtol=1e-6)
    assert parts.outputs_as_given is not None
    (outputs,) = parts.outputs_as_given(Samples({"x": Ragged.of(list(BATCH["x"]))}), tmp_path).feeds.values()
    assert similarity([np.stack(list(outputs))], quantize(model, scheme).run(BATCH)) > 0.9999


def test_what_simulates_rounding_goes(tmp_path: Path) -> None:
    def network(x: Any) -> Any:
        y = paddle.static.nn.conv2d(x, 8, 3)
        block = paddle.static.default_main_program().current_block()
        scale = paddle.static.create_parameter([1], "float32", name="scale")
        out = block.create_var(name="rounded", dtype="float32", shape=y.shape)
        block.append_op(
            type="fake_quantize_dequantize_moving_average_abs_max",
            inputs={"X": y, "InScale": scale},
            outputs={"Out": out, "OutScale": scale},
            attrs={"bit_length": 8, "is_test": True, "moving_rate": 0.9},
        )
        weight = paddle.static.create_parameter([4, 8, 3, 3], "float32", name="weight")
        zero = paddle.full([1], 0, "int32")
        names = {"X": weight}
        for kind in ("quantize_linear", "dequantize_linear"):
            made = block.create_var(name=kind, dtype="float32", shape=[4, 8, 3, 3])
            inputs = {**names, "Scale": scale, "ZeroPoint": zero}
            block.append_op(type=kind, inputs=inputs, outputs={"Y": made}, attrs={"bit_length": 8, "quant_axis": -1})
            names = {"X": made}
        return paddle.nn.functional.conv2d(out, made)

    model = Odd({"x": ((-1, 3, 8, 8), "float32")}, network, lambda rng: {}).model()
    model.save(tmp_path)
    parts = SourceModel.find(tmp_path).split()
    assert parts.rounding is not None and list(parts.rounding.activations) == ["conv2d_0.tmp_1"]
    assert parts.body.is_weight("weight") and parts.body.consumers("weight")
    assert [op.type for op in parts.body.ops if "quantize" in op.type] == []


@pytest.mark.parametrize("per_channel", [True, False])
def test_what_multiplies_integers_multiplies_floats(per_channel: bool, tmp_path: Path) -> None:
    """Integers that floats hold, as PaddleSlim writes them without `onnx_format`."""
    rng = np.random.default_rng(0)
    scales = rng.uniform(0.1, 2, 4 if per_channel else 1).astype(np.float32)
    values = {"range": np.array([4.0], np.float32), "scales": scales}
    values["weight"] = rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.float32)

    def network(x: Any) -> Any:
        block = paddle.static.default_main_program().current_block()
        span, factors, weight = (
            paddle.static.create_parameter(list(each.shape), "float32", name=name) for name, each in values.items()
        )
        integers, out = (block.create_var(name=name, dtype="float32", shape=x.shape) for name in ("integers", "out"))
        block.append_op(
            type="fake_quantize_moving_average_abs_max",
            inputs={"X": x, "InScale": span},
            outputs={"Out": integers, "OutScale": span},
            attrs={"bit_length": 8, "is_test": True},
        )
        sums = paddle.nn.functional.conv2d(integers, weight)
        if per_channel:
            inputs, attributes = {"X": sums, "Scales": [factors, span]}, {"quant_bits": [8, 8], "quant_axis": 0}
            block.append_op(
                type="fake_channel_wise_dequantize_max_abs", inputs=inputs, outputs={"Out": out}, attrs=attributes
            )
        else:
            attributes = {"max_range": float(127 * 127 / scales[0])}
            block.append_op(
                type="fake_dequantize_max_abs",
                inputs={"X": sums, "Scale": span},
                outputs={"Out": out},
                attrs=attributes,
            )
        return out

    model = Odd({"x": ((-1, 3, 8, 8), "float32")}, network, lambda rng: {}).model()
    for name, value in values.items():
        model.set_weight(name, value)
    model.save(tmp_path)
    parts = SourceModel.find(tmp_path).split()
    assert parts.rounding is not None and parts.rounding.activations == {"x": (-4.0, 4.0)}
    (layer,) = quantizable_layers(parts.body)
    expected = values["weight"] * along(scales, 0, 4) / 127
    np.testing.assert_allclose(parts.body.weight(layer.weight), expected, rtol=1e-6)
    assert similarity(parts.body.run(BATCH), model.run(BATCH)) > 0.999


class Calibration:
    """Hands the batch to ONNX Runtime's quantizer, once."""

    def __init__(self) -> None:
        self._batches = [BATCH]

    def get_next(self) -> dict[str, Array] | None:
        return self._batches.pop() if self._batches else None


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("float") / "model.onnx"
    onnx.save(to_onnx(of(two_joins, 3, 8, 8)), file)
    return file


@pytest.mark.parametrize("form", ["QDQ", "QOperator", "dynamic"])
def test_what_onnxruntimes_quantizer_writes_is_taken_over(form: str, converted: Path, tmp_path: Path) -> None:
    from onnxruntime import quantization as theirs

    file = tmp_path / "model.onnx"
    if form == "dynamic":
        theirs.quantize_dynamic(converted, file, per_channel=True)
    else:
        kinds = {"activation_type": theirs.QuantType.QUInt8, "weight_type": theirs.QuantType.QInt8}
        form_of = theirs.QuantFormat[form]
        theirs.quantize_static(converted, file, Calibration(), quant_format=form_of, per_channel=True, **kinds)
    parts = SourceModel.find(file).split()
    layers = quantizable_layers(parts.body)
    assert parts.rounding is not None and parts.outputs_as_given is not None
    ranges = seen(parts.body, layers, BATCH, symmetric=False)
    known = {name: Range(*span) for name, span in parts.rounding.activations.items() if span is not None}
    assert (form == "dynamic") != bool(known)
    found = replace(make_scheme(parts.body, layers, ranges), further=ranges)
    scheme = given_scheme(parts.body, layers, parts.rounding, found)
    assert scheme is not None and len(scheme.layers) == len(layers)
    (outputs,) = parts.outputs_as_given(Samples({"x": Ragged.of(list(BATCH["x"]))}), tmp_path).feeds.values()
    ours = quantize(parts.body, scheme).run(BATCH)
    assert similarity([np.stack(list(outputs))], ours) > 0.999


MOVED = """
    q = QuantizeLinear (x, scale, zero)
    t = Transpose <perm = [0, 2, 3, 1]> (q)
    y = DequantizeLinear (t, scale, zero)
"""


def rounding(nodes: str, output: str, opset: int = 13) -> onnx.ModelProto:
    return parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : {opset}]> m (float[N, 3, 8, 8] x) => ({output} y)
        <float scale = {{0.1}}, float twice = {{0.2}}, float sixth = {{{6 / 255}}}, float whole = {{{1 / 255}}},
        float[4] factors = {{1, 1, 2, 2}},
        uint8 zero = {{128}}, uint8 middle = {{125}}, uint8 least = {{0}}> {{ {nodes} }}"""
    )


def run(model: InferenceModel, batch: dict[str, Array]) -> Array:
    return np.asarray(model.run(batch)[0])


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        # Quantizers take a `Relu` or `Clip` away where the range begins at zero.
        (
            "c = Neg (x) q = QuantizeLinear (c, scale, least) y = DequantizeLinear (q, scale, least)",
            lambda x: np.clip(-x, 0, 25.5),
        ),
        # A gate: what is rounded as -3 to 3 is read as 0 to 1.
        (
            "q = QuantizeLinear (x, sixth, middle) y = DequantizeLinear (q, whole, least)",
            lambda x: np.clip(x / 6 + 125 / 255, 0, 1),
        ),
        ("q = QuantizeLinear (x, scale, zero) y = DequantizeLinear (q, scale, middle)", lambda x: x + 0.3),
        (
            "q = QuantizeLinear (x, scale, zero) y = DequantizeLinear (q, twice, zero)",
            lambda x: np.clip(2 * x, -25.6, 25.4),
        ),
    ],
)
@pytest.mark.parametrize("opset", [10, 13])
def test_what_rounding_does_besides_stays(
    nodes: str, expected: Callable[[Array], Array], opset: int, tmp_path: Path
) -> None:
    model = rounding(nodes, "float[N, 3, 8, 8]", opset)
    onnx.save(model, tmp_path / "model.onnx")
    parts = SourceModel.find(tmp_path).split()
    x = BATCH["x"] * 5
    np.testing.assert_allclose(run(parts.body, {"x": x}), expected(x), atol=1e-4)


def test_integers_may_be_moved_and_nothing_else(tmp_path: Path) -> None:
    onnx.save(rounding(MOVED, "float[N, 8, 8, 3]"), tmp_path / "model.onnx")
    parts = SourceModel.find(tmp_path).split()
    np.testing.assert_array_equal(run(parts.body, BATCH), BATCH["x"].transpose(0, 2, 3, 1))
    larger = "q = QuantizeLinear (x, scale, zero) r = Resize (q, , factors) y = DequantizeLinear (r, scale, zero)"
    onnx.save(rounding(larger, "float[N, 3, 16, 16]"), tmp_path / "model.onnx")
    assert run(SourceModel.find(tmp_path).split().body, BATCH).shape == (4, 3, 16, 16)
    for nodes, output in (
        ("y = QuantizeLinear (x, scale, zero)", "uint8[N, 3, 8, 8]"),
        ("q = QuantizeLinear (x, scale, zero) y = Cast <to = 1> (q)", "float[N, 3, 8, 8]"),
        (
            "q = QuantizeLinear (x, scale, zero) y = QLinearConv (q, scale, zero, w, scale, zero, scale, zero)",
            "uint8[N]",
        ),
    ):
        onnx.save(rounding(nodes, output), tmp_path / "model.onnx")
        with pytest.raises(
            InputError, match=r"is quantized already, and computes with integers .*; give the fp32 model"
        ):
            SourceModel.find(tmp_path).split()
