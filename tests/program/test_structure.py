"""What is found in networks whose structure is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from act.program import structure
from act.program.graph import Graph
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.program.passes.normalise import normalise
from act.program.resources import list_operators
from act.samples.dataset import Array
from tests.support.analyze_networks import F, conv, of, pyramid, sample, saved, two_joins
from tests.support.models import DETECTOR, RECOGNISER
from tests.support.odd_models import ODD
from tests.support.prune_networks import encoder, vision


def described(model: InferenceModel, batch: Mapping[str, Array]) -> dict[str, Any]:
    graph = Graph(model, batch)
    return structure.describe(graph, list_operators(graph)).model_dump()


def blocks(found: Mapping[str, Any]) -> list[tuple[int, list[str]]]:
    return [(group["count"], group["layers"]) for group in found["blocks"]]


def test_a_block_with_an_identity_and_one_with_a_projection() -> None:
    found = described(of(two_joins, 3, 8, 8), sample(3, 8, 8))
    assert found["kind"] == "cnn" and len(found["residual_joins"]) == 2
    assert blocks(found) == [(2, ["convolution 3x3", "convolution 3x3", "residual join"])]
    (head,) = found["heads"]
    assert head["types"][-3:] == ["mul", "elementwise_add", "scale"] and "conv2d" not in head["types"]
    assert head["parameters"] == 16 * 5 + 5 and head["gives"] == "a vector a sample"
    whole = found["backbone"]["parameters"] + head["parameters"]
    assert whole == 27 * 8 + 2 * 72 * 8 + (8 + 72) * 16 + 144 * 16 + 85
    assert [(stage["size"], stage["layers"], stage["channels"]) for stage in found["backbone"]["stages"]] == [
        ([8, 8], 3, 8),
        ([4, 4], 3, 16),
    ]


@pytest.mark.parametrize(
    ("name", "joins", "expected"),
    [
        ("resnet50", 16, [(16, ["convolution 1x1", "convolution 3x3", "convolution 1x1", "residual join"])]),
        ("mobilenet_v1", 0, [(13, ["depthwise convolution 3x3", "convolution 1x1"])]),
        ("squeezenet1_0", 0, [(8, ["convolution 1x1", "convolution 1x1", "convolution 3x3", "concatenation"])]),
        (
            "shufflenet_v2_x1_0",
            0,
            [
                (count, ["convolution 1x1", "depthwise convolution 3x3", "convolution 1x1", "concatenation"])
                for count in (4, 8, 4)
            ],
        ),
        pytest.param(
            "densenet121",
            0,
            [(count, ["convolution 1x1", "convolution 3x3", "concatenation"]) for count in (6, 12, 24, 16)],
            marks=pytest.mark.stage,
        ),
    ],
)
def test_networks_of_the_literature(name: str, joins: int, expected: list[Any], tmp_path: Path) -> None:
    found = described(vision(name, tmp_path, 32 if name != "squeezenet1_0" else 64), sample(3, 64, 64))
    assert found["kind"] == "cnn"
    assert len(found["residual_joins"]) == joins
    assert blocks(found) == expected


def test_an_encoder_has_a_block_of_attention_and_feed_forward_for_each_layer(tmp_path: Path) -> None:
    found = described(encoder(tmp_path), sample(6, 8))
    assert found["kind"] == "transformer" and len(found["attentions"]) == 2 and len(found["residual_joins"]) == 4
    ((count, layers),) = blocks(found)
    assert count == 2 and layers.count("attention") == 1 and layers.count("matrix product") == 6
    assert {"slice", "tanh"} <= set(found["heads"][0]["types"]) and "softmax" not in found["heads"][0]["types"]


class _Vision(paddle.nn.Layer):
    """An encoder on patches that a convolution cuts, or on a picture that it slides over."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.cut = paddle.nn.Conv2D(3, 16, 4, stride=stride)
        self.encoder = paddle.nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0)
        self.head = paddle.nn.Linear(16, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.encoder(self.cut(x).flatten(2).transpose([0, 2, 1])).mean(axis=1))


@pytest.mark.parametrize(("stride", "kind"), [(4, "transformer"), (2, "mixed")])
def test_convolutions_that_cut_patches_do_not_make_a_transformer_mixed(stride: int, kind: str, tmp_path: Path) -> None:
    found = described(saved(lambda: _Vision(stride), [None, 3, 16, 16], tmp_path), sample(3, 16, 16))
    assert found["kind"] == kind and len(found["attentions"]) == 1


def test_the_text_models_of_pp_ocr() -> None:
    recogniser = described(normalise(InferenceModel.load(RECOGNISER))[0], sample(3, 48, 160))
    assert recogniser["kind"] == "mixed" and len(recogniser["attentions"]) == 2
    assert blocks(recogniser)[0] == (6, ["depthwise convolution 3x3", "convolution 1x1"])
    assert recogniser["blocks"][-1]["residual"] and "attention" in recogniser["blocks"][-1]["layers"]
    assert recogniser["heads"][0]["types"][-3:] == ["matmul_v2", "elementwise_add", "softmax"]
    detector = described(normalise(InferenceModel.load(DETECTOR))[0], sample(3, 64, 64))
    assert detector["kind"] == "cnn" and len(detector["pyramid_joins"]) == 3
    assert detector["heads"][0]["types"].count("conv2d_transpose") == 2 and detector["heads"][0]["gives"] == "maps"


def test_what_is_added_across_scales_is_no_residual_join() -> None:
    found = described(of(pyramid, 3, 8, 8), sample(3, 8, 8))
    assert len(found["pyramid_joins"]) == 1 and found["residual_joins"] == []


def test_a_gate_and_an_activation_function_differ_by_a_layer() -> None:
    def network(x: Any) -> Any:
        x = conv(x, 8)
        x = x * F.sigmoid(x)
        return x * F.sigmoid(conv(x.mean(axis=[2, 3], keepdim=True), 8, 1))

    found = described(of(network, 3, 8, 8), sample(3, 8, 8))
    assert len(found["gates"]) == 1


def test_each_output_has_the_head_that_only_it_needs() -> None:
    model = ODD["two_outputs"].model()
    found = described(model, sample(3, 8, 8))
    classes, places = found["heads"]
    assert "softmax" in classes["types"] and "arg_max" in places["types"]
    assert "conv2d" not in [*classes["types"], *places["types"]]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("tokens", "dense"), ("picture_and_ids", "cnn"), ("nothing", "other"), ("reader", "cnn"), ("tied", "dense")],
)
def test_models_of_several_inputs_integers_and_axes_of_any_length(name: str, kind: str) -> None:
    model = ODD[name].model()
    batch = next(ODD[name].samples(model, 1, seed=0).batches(1))
    found = described(model, batch)
    assert (found["kind"], found["residual_joins"], found["blocks"]) == (kind, [], [])
    assert len(found["heads"]) == len(model.fetch_names)
