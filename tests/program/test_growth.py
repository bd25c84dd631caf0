"""The work on a program grows with the number of its operators, not with its square."""

from __future__ import annotations

import cProfile
import pstats
from pathlib import Path
from typing import Any

import numpy as np

from act.program import foldable, structure
from act.program.graph import Graph
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.program.passes.normalise import normalise, set_inference_mode
from act.program.resources import activation_memory, list_operators
from tests.support.analyze_networks import saved

WIDTH, TOKENS = 16, 8


def encoder(layers: int) -> Any:
    """A transformer encoder such as BERT, with narrow layers."""
    layer = paddle.nn.TransformerEncoderLayer(WIDTH, 2, 4 * WIDTH, activation="gelu")
    return paddle.nn.Sequential(paddle.nn.TransformerEncoder(layer, layers), paddle.nn.Linear(WIDTH, 2))


def calls(layers: int, folder: Path) -> tuple[int, int]:
    """The operators of an encoder, and the function calls that reading, normalising and analysing it takes."""
    folder.mkdir()
    saved(lambda: encoder(layers), [None, TOKENS, WIDTH], folder)
    batch = {"x": np.zeros((1, TOKENS, WIDTH), dtype=np.float32)}
    with cProfile.Profile() as profile:
        original = InferenceModel.load(folder)
        set_inference_mode(original)
        model, _ = normalise(original)
        graph = Graph(model, batch)
        found = structure.describe(graph, list_operators(graph))
        activation_memory(graph)
        foldable.find(graph)
    assert found.kind == "transformer" and len(found.attentions) == layers
    return len(graph.nodes), int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


def test_twice_the_layers_take_at_most_twice_the_calls(tmp_path: Path) -> None:
    calls(1, tmp_path / "warm")  # what runs once in a process
    (small, few), (large, many) = calls(6, tmp_path / "six"), calls(12, tmp_path / "twelve")
    assert many / few < 1.1 * large / small
