"""Recurrent layers: Paddle's operator where it computes the same, else steps, and both can go on to ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from act.errors import InputError
from act.onnx_graph.conversion import to_onnx
from tests.formats.onnx.support import assert_same, imported, model_of, on_onnxruntime, op_types, values

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_AFTER = {"linear_before_reset": 1}
_STEPS, _BATCH, _FEATURES, _HIDDEN = 4, 3, 5, 6


def _model(
    kind: str, attributes: dict[str, Any], given: str, steps: int | str = "t"
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Make a model of one layer, and its inputs; `given`: its bias, lengths, states and peepholes, by letter."""
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    gates = _GATES[kind]
    names = ["x", "w", "r", *(name if name in given else "" for name in "blhcp")]
    constants = {
        "w": values(directions, gates * _HIDDEN, _FEATURES, seed=1),
        "r": values(directions, gates * _HIDDEN, _HIDDEN, seed=2),
        "b": values(directions, 2 * gates * _HIDDEN, seed=3),
        "p": values(directions, 3 * _HIDDEN, seed=6),
    }
    feeds = {
        "x": values(_STEPS, _BATCH, _FEATURES),
        "l": np.array([2, 4, 1], np.int32),
        "h": values(directions, _BATCH, _HIDDEN, seed=4),
        "c": values(directions, _BATCH, _HIDDEN, seed=5),
    }
    shapes = {
        "x": (steps, "n", _FEATURES),
        "l": ("n",),
        "h": (directions, "n", _HIDDEN),
        "c": (directions, "n", _HIDDEN),
    }
    outputs = ["y", "yh", "yc"][: 3 if kind == "LSTM" else 2]
    node = helper.make_node(kind, names, outputs, hidden_size=_HIDDEN, **attributes)
    while node.input[-1] == "":
        node.input.pop()
    proto = model_of(
        [node],
        {name: shapes[name] for name in feeds if name in node.input},
        outputs,
        {name: value for name, value in constants.items() if name in node.input},
        14,
        {"l": onnx.TensorProto.INT32},
    )
    return proto, {name: value for name, value in feeds.items() if name in node.input}


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("kind", "attributes", "given"),
    [("LSTM", {}, "bhc"), ("LSTM", {}, ""), ("GRU", _AFTER, "bh"), ("GRU", _AFTER, "b")],
)
def test_a_layer_over_any_number_of_steps_is_one_operator(
    kind: str, attributes: dict[str, Any], given: str, direction: str
) -> None:
    proto, feeds = _model(kind, {**attributes, "direction": direction}, given)
    model = assert_same(proto, feeds)
    assert op_types(model).count("rnn") == 1
    onward = on_onnxruntime(to_onnx(model), feeds)
    for have, want in zip(onward, on_onnxruntime(proto, feeds)):
        np.testing.assert_allclose(have, want, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "attributes", "given"),
    [
        ("GRU", {}, "bh"),
        ("GRU", {"direction": "bidirectional"}, "bl"),
        ("LSTM", {"direction": "reverse"}, "bl"),
        ("LSTM", {}, "bhcp"),
        ("LSTM", {"activations": ["Sigmoid", "Relu", "Softsign"]}, "b"),
        ("RNN", {"activations": ["Relu"]}, "b"),
    ],
)
def test_what_paddle_has_not_is_computed_step_by_step(kind: str, attributes: dict[str, Any], given: str) -> None:
    proto, feeds = _model(kind, attributes, given, _STEPS)
    model = assert_same(proto, feeds)
    assert "rnn" not in op_types(model)
    to_onnx(model)


def test_steps_without_number_are_refused() -> None:
    with pytest.raises(InputError, match="fixed number of steps"):
        imported(_model("GRU", {}, "b")[0])


@pytest.mark.parametrize("index", [0, 1, 2])
def test_weights_that_do_not_fit_are_refused(index: int) -> None:
    """Paddle's kernel would write past the end of its memory."""
    proto, _ = _model("LSTM", {}, "b")
    weight = proto.graph.initializer[index]
    shape = [*weight.dims[:-1], weight.dims[-1] - 1]
    weight.CopyFrom(numpy_helper.from_array(values(*shape), weight.name))
    with pytest.raises(InputError, match=rf"LSTM.* its weights have shape \[{shape[0]}.*export the model again"):
        imported(proto)
