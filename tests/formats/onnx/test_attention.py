"""Attention and rotary embeddings with a batch that stays free."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from act.formats.onnx.importer import import_model
from act.formats.onnx.reading import checked
from act.samples.dataset import Array
from tests.formats.onnx.comparison import Shape, values


def same_as_the_reference(
    node: onnx.NodeProto,
    feeds: dict[str, Array],
    shapes: Mapping[str, Shape],
    constants: dict[str, Array] | None = None,
) -> None:
    """Assert that a node's program computes what ONNX's own reference does, which has the newest operators."""
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(each.dtype), shapes[name])
        for name, each in feeds.items()
    ]
    outputs = [helper.make_tensor_value_info("y", 1, None)]
    weights = [helper.make_tensor(n, 1, v.shape, v.reshape(-1)) for n, v in (constants or {}).items()]
    graph = helper.make_graph([node], "test", inputs, outputs, weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])
    expected = ReferenceEvaluator(proto).run(None, feeds)
    model = import_model(checked(proto, Path("model.onnx")))
    np.testing.assert_allclose(model.run(feeds)[0], expected[0], rtol=1e-4, atol=1e-5)


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
    shapes: dict[str, Shape] = {name: ["N", *each.shape[1:]] for name, each in feeds.items()}
    shapes["m"] = [4, 6]
    same_as_the_reference(helper.make_node("Attention", ["q", "k", "v", "m"], ["y"]), feeds, shapes)


@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary_embedding(interleaved: int) -> None:
    feeds = {"x": values(2, 3, 32), "p": np.array([[0, 1, 2], [4, 5, 6]])}
    constants = {"c": values(9, 4), "s": values(9, 4, seed=1)}
    node = helper.make_node("RotaryEmbedding", ["x", "c", "s", "p"], ["y"], num_heads=4, interleaved=interleaved)
    same_as_the_reference(node, feeds, {"x": ["N", "S", 32], "p": ["N", "S"]}, constants)
