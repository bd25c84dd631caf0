"""The benchmark of Paddle's model zoos names exactly what was missed, and draws what networks take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.paddle_zoo import misses_of
from benchmarks.paddle_zoo_exports import TOKENS, Input, drawn

RIGHT: dict[str, Any] = {
    **{"operators": 9, "layers": 3, "again": 1e-6, "deviation": 2e-6, "deviation_of_paddle_2": 0.0},
    **{"same_layers": True, "boxes": {"chosen": 60, "onnxruntime": 1e-5, "openvino": 1e-5}, "chain": {"seconds": 1.0}},
}
FAR = "where 0.001 is allowed"


@pytest.mark.parametrize(
    ("row", "missed"),
    [
        (RIGHT, []),
        ({"refused": "no such operator"}, ["no such operator"]),
        ({**RIGHT, "deviation": 0.2}, [f"deviation: 0.2, {FAR}"]),
        ({**RIGHT, "again": "cannot be written"}, ["again: cannot be written"]),
        ({**RIGHT, "deviation": float("nan"), "same_layers": False}, [f"deviation: nan, {FAR}", "has other layers"]),
        ({**RIGHT, "boxes": {**RIGHT["boxes"], "openvino": float("inf")}}, [f"boxes on openvino: inf, {FAR}"]),
        ({**RIGHT, "chain": {"failed": "qat", "why": "no gradient"}}, ["the stage qat failed: no gradient"]),
    ],
)
def test_exactly_what_was_missed_is_named(row: dict[str, Any], missed: list[str]) -> None:
    found = misses_of(row)
    assert len(found) == len(missed) and all(each.startswith(start) for each, start in zip(found, missed))


def test_pictures_and_tokens_are_drawn() -> None:
    inputs: list[Input] = [
        ("x", "float32", [None, 3, 64, 32]),
        ("ids", "int64", [None, None]),
        ("scale", "float32", [None, 2]),
    ]
    batch = drawn(inputs, 5, np.random.default_rng(0))
    assert {name: (each.shape, str(each.dtype)) for name, each in batch.items()} == {
        "x": ((5, 3, 64, 32), "float32"), "ids": ((5, TOKENS), "int64"), "scale": ((5, 2), "float32")
    }  # fmt: skip
    assert 0.5 < batch["x"].std() < 1.5
    assert (batch["ids"][:, 0] > 0).all() and (batch["ids"][:, -1] == 0).any()
