"""Models that are quantized already: the float models that they round, or one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

from act.errors import InputError
from act.formats import SourceModel
from act.onnx_graph.conversion import to_onnx
from act.program.layers import quantizable_layers
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.quantization.onnx_model import quantize_onnx
from act.quantization.quantized_program import quantize
from act.quantization.scheme import Scheme, make_scheme, with_values
from act.quantization.weights import dequantize_weight, quantize_weight
from act.samples.dataset import Array
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
    assert parts.rounded == len(scheme.activations) and parts.tail is None
    assert not [op.type for op in parts.body.ops if "quantize" in op.type]
    assert len(quantizable_layers(parts.body)) == len(scheme.layers)
    assert {op.type for op in parts.body.ops} == {op.type for op in model.ops} or as_onnx
    np.testing.assert_allclose(parts.body.run(BATCH)[0], with_rounded_weights(model, scheme).run(BATCH)[0], rtol=1e-5)
    assert (parts.save_float is not None) == as_onnx


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
    assert parts.rounded == 2
    assert parts.body.is_weight("weight") and parts.body.consumers("weight")
    assert [op.type for op in parts.body.ops if "quantize" in op.type] == []


MOVED = """
    q = QuantizeLinear (x, scale, zero)
    t = Transpose <perm = [0, 2, 3, 1]> (q)
    y = DequantizeLinear (t, scale, zero)
"""


def rounding(nodes: str, output: str) -> onnx.ModelProto:
    return parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 13]> m (float[N, 3, 8, 8] x) => ({output} y)
        <float scale = {{0.1}}, uint8 zero = {{128}}> {{ {nodes} }}"""
    )


def run(model: InferenceModel, batch: dict[str, Array]) -> Array:
    return np.asarray(model.run(batch)[0])


def test_integers_may_be_moved_and_nothing_else(tmp_path: Path) -> None:
    onnx.save(rounding(MOVED, "float[N, 8, 8, 3]"), tmp_path / "model.onnx")
    parts = SourceModel.find(tmp_path).split()
    np.testing.assert_array_equal(run(parts.body, BATCH), BATCH["x"].transpose(0, 2, 3, 1))
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
