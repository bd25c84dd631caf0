"""Products of matrices: what is computed, and that weights are weights of `matmul_v2`."""

from __future__ import annotations

import pytest

from act.program.model import InferenceModel
from tests.formats.onnx.support import assert_nodes_same, node, values


def products(model: InferenceModel) -> list[tuple[int, ...] | None]:
    """Return the shapes of the weights that products have as their second operand."""
    weights = set(model.weight_names())
    found = [op.input("Y")[0] for op in model.ops if op.type == "matmul_v2"]
    return [model.weight(name).shape if name in weights else None for name in found]


@pytest.mark.parametrize(
    ("x", "w"), [((2, 3, 4), (4, 5)), ((2, 4), (4,)), ((2, 6, 3, 4), (6, 4, 5)), ((3, 4), (2, 4, 5))]
)
def test_matmul_with_a_constant(x: tuple[int, ...], w: tuple[int, ...]) -> None:
    lengths = ["N", *x[1:]]
    model = assert_nodes_same([node("MatMul", "x,w")], {"x": values(*x)}, {"w": values(*w)}, 13, {"x": lengths})
    assert products(model) == [w]
    model = assert_nodes_same(
        [node("MatMul", "w,x")], {"x": values(2, 4, 7)}, {"w": values(5, 4)}, 13, {"x": ["N", 4, 7]}
    )
    assert products(model) == [None]


@pytest.mark.parametrize("bias", [(5,), (1, 5), (1,), (), None])
@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_is_a_layer_with_a_weight_and_a_bias(bias: tuple[int, ...] | None, transposed: int) -> None:
    constants = {"w": values(5, 4) if transposed else values(4, 5)}
    constants |= {} if bias is None else {"b": values(*bias)}
    gemm = node("Gemm", "x,w" if bias is None else "x,w,b", alpha=0.5, beta=2.0, transB=transposed)
    model = assert_nodes_same([gemm], {"x": values(3, 4)}, constants, 11, {"x": ["N", 4]})
    assert products(model) == [(4, 5)]
    added = [op.input("Y")[0] for op in model.ops if op.type == "elementwise_add"]
    assert [model.weight(name).shape for name in added] == ([] if bias is None else [(5,)])


def test_gemm_of_tensors() -> None:
    feeds = {"a": values(4, 3), "b": values(5, 4, seed=1), "c": values(3, 1, seed=2)}
    assert_nodes_same([node("Gemm", "a,b,c", transA=1, transB=1, alpha=0.5, beta=3.0)], feeds, {}, 13)


@pytest.mark.parametrize(
    ("equation", "x", "w", "weight"),
    [
        ("bsh,hnd->bsnd", (2, 3, 4), (4, 2, 5), (4, 10)),
        ("bsnd,ndh->bsh", (2, 3, 2, 4), (2, 4, 5), (8, 5)),
        ("bqc,ck->bkq", (2, 3, 4), (4, 5), (4, 5)),
        ("bhwc,hkc->bhwk", (2, 3, 4, 5), (3, 6, 5), (3, 5, 6)),
    ],
)
def test_einsum_with_a_weight(equation: str, x: tuple[int, ...], w: tuple[int, ...], weight: tuple[int, ...]) -> None:
    nodes = [node("Einsum", "x,w", equation=equation)]
    model = assert_nodes_same(nodes, {"x": values(*x)}, {"w": values(*w)}, 13, {"x": ["N", *x[1:]]})
    assert products(model) == [weight]


@pytest.mark.parametrize(
    ("equation", "a", "b"),
    [
        ("bqhd,bkhd->bhqk", (2, 3, 4, 5), (2, 6, 4, 5)),
        ("bhqk,bkhd->bqhd", (2, 4, 3, 6), (2, 6, 4, 5)),
        ("...ij,...jk->...ik", (2, 4, 3, 6), (2, 4, 6, 5)),
        ("bi,bj->bij", (2, 4), (2, 5)),
        ("bid,bjd->bij", (2, 4, 3), (2, 5, 3)),
    ],
)
def test_einsum_of_tensors(equation: str, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    feeds = {"a": values(*a), "b": values(*b, seed=1)}
    shapes = {"a": ["N", *a[1:]], "b": ["N", *b[1:]]}
    assert_nodes_same([node("Einsum", "a,b", equation=equation)], feeds, {}, 13, shapes)
