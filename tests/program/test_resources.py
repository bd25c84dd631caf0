"""The table of operators: its counts are worked out by hand here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from act.program.graph import Graph
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.program.resources import assign_latency, list_operators
from act.results.analyze import Operator
from act.samples.dataset import Array
from tests.support.prepare_networks import batch, build

PICTURE = (1, 4, 8, 8)
ROWS = (1, 6)


def listed(model: InferenceModel, one: Mapping[str, Array]) -> list[Operator]:
    return list_operators(Graph(model, one))


def parameter(*shape: int) -> Any:
    return paddle.create_parameter(list(shape), "float32")


def conv(x: Any) -> Any:
    return paddle.nn.Conv2D(4, 6, 3, stride=2, padding=1, groups=2, bias_attr=False)(x)


def transposed_conv(x: Any) -> Any:
    return paddle.nn.Conv2DTranspose(4, 5, 2, stride=2, bias_attr=False)(x)


def matmul(x: Any) -> Any:
    return paddle.matmul(x, parameter(6, 5))


def matmul_by_transposed(x: Any) -> Any:
    return paddle.matmul(x, parameter(5, 6), transpose_y=True)


def attention(x: Any) -> Any:
    """Two activations: [1, 4, 64] times its own transpose."""
    rows = paddle.reshape(x, [-1, 4, 64])
    return paddle.matmul(rows, rows, transpose_y=True)


def turned_attention(x: Any) -> Any:
    rows = paddle.reshape(x, [-1, 4, 64])
    return paddle.matmul(rows, rows, transpose_x=True)


def grouped_transposed_conv(x: Any) -> Any:
    return paddle.nn.Conv2DTranspose(4, 6, 2, stride=2, groups=2, bias_attr=False)(x)


def depthwise_transposed_conv(x: Any) -> Any:
    return paddle.nn.Conv2DTranspose(4, 4, 2, stride=2, groups=4, bias_attr=False)(x)


def depthwise_conv(x: Any) -> Any:
    return paddle.nn.Conv2D(4, 8, 3, groups=4, bias_attr=False)(x)


def volume_conv(x: Any) -> Any:
    return paddle.nn.Conv3D(2, 6, 3, bias_attr=False)(paddle.reshape(x, [-1, 2, 4, 4, 8]))


def batched_matmul(x: Any) -> Any:
    rows = paddle.reshape(x, [-1, 4, 64])
    return paddle.bmm(rows, paddle.transpose(rows, [0, 2, 1]))


def flattening_product(x: Any) -> Any:
    """Paddle's `mul` sees [1, 4, 8, 8] as 4 rows of 64 values."""
    weight = parameter(64, 5)
    block = paddle.static.default_main_program().global_block()
    product = block.create_var(name="product", dtype="float32", shape=[-1, 4, 5])
    columns = {"x_num_col_dims": 2, "y_num_col_dims": 1}
    block.append_op(type="mul", inputs={"X": [x], "Y": [weight]}, outputs={"Out": [product]}, attrs=columns)
    return product


@pytest.mark.parametrize(
    ("network", "shape", "kind", "parameters", "macs", "output"),
    [
        (conv, PICTURE, "conv2d", 6 * 2 * 3 * 3, (6 * 4 * 4) * (2 * 3 * 3), (1, 6, 4, 4)),
        (transposed_conv, PICTURE, "conv2d_transpose", 4 * 5 * 2 * 2, (4 * 8 * 8) * (5 * 2 * 2), (1, 5, 16, 16)),
        (matmul, ROWS, "matmul_v2", 6 * 5, 5 * 6, (1, 5)),
        (matmul_by_transposed, ROWS, "matmul_v2", 5 * 6, 5 * 6, (1, 5)),
        (attention, PICTURE, "matmul_v2", 0, 4 * 4 * 64, (1, 4, 4)),
        (turned_attention, PICTURE, "matmul_v2", 0, 64 * 64 * 4, (1, 64, 64)),
        (batched_matmul, PICTURE, "bmm", 0, 4 * 4 * 64, (1, 4, 4)),
        (flattening_product, PICTURE, "mul", 64 * 5, 4 * 64 * 5, (1, 4, 5)),
        (depthwise_conv, PICTURE, "depthwise_conv2d", 8 * 3 * 3, (8 * 6 * 6) * (3 * 3), (1, 8, 6, 6)),
        (grouped_transposed_conv, PICTURE, "conv2d_transpose", 4 * 3 * 4, (4 * 8 * 8) * (3 * 2 * 2), (1, 6, 16, 16)),
        (depthwise_transposed_conv, PICTURE, "depthwise_conv2d_transpose", 4 * 4, (4 * 8 * 8) * 4, (1, 4, 16, 16)),
        (volume_conv, PICTURE, "conv3d", 6 * 2 * 27, (6 * 2 * 2 * 6) * (2 * 27), (1, 6, 2, 2, 6)),
    ],
)
def test_counts(
    network: Callable[[Any], Any],
    shape: tuple[int, ...],
    kind: str,
    parameters: int,
    macs: int,
    output: tuple[int, ...],
) -> None:
    (found,) = [o for o in listed(build(network, shape), batch(shape)) if o.type == kind]
    assert (found.parameters, found.macs, tuple(found.shape)) == (parameters, macs, output)


def test_a_shared_weight_counts_for_each_reader_and_neither_it_nor_products_of_activations_are_quantized() -> None:
    def network(x: Any) -> Any:
        layer = paddle.nn.Conv2D(4, 4, 3, padding=1, bias_attr=False)
        rows = paddle.reshape(layer(layer(x)), [-1, 4, 64])
        return paddle.matmul(rows, rows, transpose_y=True)

    operators = listed(build(network, PICTURE), batch(PICTURE))
    assert [(o.type, o.parameters, o.quantizable) for o in operators if o.macs] == [
        ("conv2d", 144, False),
        ("conv2d", 144, False),
        ("matmul_v2", 0, False),
    ]


def test_only_layers_of_one_weight_and_one_activation_are_quantizable() -> None:
    def network(x: Any) -> Any:
        small = depthwise_conv(conv(transposed_conv(x)[:, :4]).reshape([-1, 4, 8, 12]))
        return flattening_product(small.reshape([-1, 4, 8, 15])[:, :, :, :8])

    operators = listed(build(network, PICTURE), batch(PICTURE))
    assert [(o.type, o.quantizable) for o in operators if o.macs] == [
        ("conv2d_transpose", True),
        ("conv2d", True),
        ("depthwise_conv2d", True),
        ("mul", True),
    ]
    assert not [o for o in operators if o.quantizable and not o.macs]
    grouped = listed(build(grouped_transposed_conv, PICTURE), batch(PICTURE))
    assert [o.quantizable for o in grouped if o.macs] == [False]


def test_a_layer_that_shares_its_weight_with_a_sum_is_not_quantizable() -> None:
    def network(x: Any) -> Any:
        weight = parameter(6, 6)
        return paddle.matmul(x, weight) + weight

    operators = listed(build(network, ROWS), batch(ROWS))
    assert [(o.type, o.parameters, o.quantizable) for o in operators if o.parameters] == [
        ("matmul_v2", 36, False),
        ("elementwise_add", 36, False),
    ]


def test_a_branch_that_is_not_taken_costs_nothing() -> None:
    def network(x: Any) -> Any:
        y = conv(x)
        return paddle.static.nn.cond(paddle.mean(y) > 0, lambda: y + 1, lambda: y * 2)

    operators = listed(build(network, PICTURE), batch(PICTURE))
    assert [(o.type, o.macs) for o in operators if o.macs] == [("conv2d", 1728)]
    assert sorted(o.shape for o in operators if o.type == "conditional_block") == [[], [1, 6, 4, 4]]


def operator(name: str, macs: int, size: int) -> Operator:
    return Operator(
        name=name,
        type="conv2d",
        shape=[1, size],
        weights=[[size]],
        parameters=size,
        macs=macs,
        quantizable=True,
        latency_share=None,
    )


def test_latency_is_measured_where_kernels_match_and_derived_where_not() -> None:
    kernels = [
        {"kind": "Convolution", "seconds": 3.0, "shape": [1, 2]},
        {"kind": "Reorder", "seconds": 1.0, "shape": [1, 2]},
        {"kind": "Convolution", "seconds": 4.0, "shape": [1, 5]},
    ]
    both = [operator("a", 100, 2), operator("b", 300, 5)]
    shares, source = assign_latency(both, kernels)
    assert source.startswith("measured")
    assert [o.latency_share for o in shares] == [3 / 8, 4 / 8]
    for useless in (kernels[:2], [{**kernels[0], "shape": [1, 3]}, kernels[2]], []):
        shares, source = assign_latency(both, useless)
        assert source.startswith("derived")
        assert [o.latency_share for o in shares] == [0.25, 0.75]


def test_transposed_convolutions_are_matched_too() -> None:
    kernels = [
        {"kind": "Convolution", "seconds": 1.0, "shape": [1, 2]},
        {"kind": "Deconvolution", "seconds": 3.0, "shape": [1, 5]},
    ]
    both = [operator("a", 300, 2), operator("b", 100, 5)]
    shares, source = assign_latency(both, kernels)
    assert source.startswith("measured")
    assert [o.latency_share for o in shares] == [0.25, 0.75]
