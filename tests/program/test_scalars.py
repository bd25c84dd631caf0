"""Scalars between layers fold away, and the model computes what it did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from act.program.model import InferenceModel
from act.program.passes.normalise import normalise
from act.program.passes.scalars import fold_scalars
from tests.support.models import DETECTOR


def scalars(model: InferenceModel) -> int:
    return sum(
        op.type in ("elementwise_mul", "elementwise_add") and any(_is_number(model, op, slot) for slot in ("X", "Y"))
        for op in model.ops
    )


def _is_number(model: InferenceModel, op: Any, slot: str) -> bool:
    name = op.input(slot)[0]
    return bool(model.is_weight(name) and model.weight(name).size == 1)


@pytest.fixture(scope="module")
def detector() -> InferenceModel:
    return InferenceModel.load(DETECTOR)


def test_learnable_scales_and_shifts_fold_into_the_layers(detector: InferenceModel) -> None:
    folded, changes = normalise(detector)
    assert scalars(detector) > 100
    # What depthwise convolutions read keeps its own, for calibration to make one for each channel.
    assert scalars(folded) < scalars(detector) / 2
    assert changes.folded_scalars == scalars(detector) - scalars(folded)


def test_the_outputs_stay(detector: InferenceModel) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 64, 96)).astype(np.float32)
    (before,), (after,) = detector.run({"x": x}), normalise(detector)[0].run({"x": x})
    assert after == pytest.approx(before, abs=2e-4)


def test_a_second_time_there_is_nothing_to_fold(detector: InferenceModel) -> None:
    assert fold_scalars(normalise(detector)[0]) == 0
