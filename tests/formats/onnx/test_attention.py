"""Attention and rotary embeddings with a batch that stays free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from act.samples.dataset import Array
from tests.formats.onnx.support import imported, model_of, values


def same_as_the_reference(
    node: onnx.NodeProto,
    feeds: Mapping[str, Array],
    shapes: Mapping[str, Sequence[object]],
    constants: Mapping[str, Array] | None = None,
) -> None:
    """Assert that a node's program computes what ONNX's own reference does, which has the newest operators."""
    types = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in feeds.items()}
    proto = model_of([node], shapes, ["y"], constants, 23, types)
    expected = ReferenceEvaluator(proto).run(None, dict(feeds))
    np.testing.assert_allclose(imported(proto).run(feeds)[0], expected[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [5, "S"])
@pytest.mark.parametrize("heads", [4, 2])
def test_attention_of_vectors_in_a_row(length: int | str, heads: int) -> None:
    feeds = {"q": values(2, 5, 32), "k": values(2, 5, 8 * heads, seed=1), "v": values(2, 5, 8 * heads, seed=2)}
    shapes = {name: ["N", length, each.shape[2]] for name, each in feeds.items()}
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], q_num_heads=4, kv_num_heads=heads, is_causal=1)
    same_as_the_reference(node, feeds, shapes)


def test_attention_with_a_mask_of_truths() -> None:
    feeds = {"q": values(2, 3, 4, 8), "k": values(2, 3, 6, 8, seed=1), "v": values(2, 3, 6, 8, seed=2)}
    feeds["m"] = np.tril(np.ones((4, 6), bool), 2)
    shapes = {name: ["N", *each.shape[1:]] for name, each in feeds.items()} | {"m": [4, 6]}
    same_as_the_reference(helper.make_node("Attention", ["q", "k", "v", "m"], ["y"]), feeds, shapes)


@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary_embedding(interleaved: int) -> None:
    feeds = {"x": values(2, 3, 32), "p": np.array([[0, 1, 2], [4, 5, 6]])}
    constants = {"c": values(9, 4), "s": values(9, 4, seed=1)}
    node = helper.make_node("RotaryEmbedding", ["x", "c", "s", "p"], ["y"], num_heads=4, interleaved=interleaved)
    same_as_the_reference(node, feeds, {"x": ["N", "S", 32], "p": ["N", "S"]}, constants)
