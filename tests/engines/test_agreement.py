"""What an engine makes of a quantized model is held against what the model's own runtime does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from act.engines.agreement import check_as_given
from act.engines.process import EngineFailure
from act.samples.dataset import Array, Ragged, Samples

WANTED = np.random.default_rng(0).normal(size=(8, 10)).astype(np.float32)


def gives(outputs: Array) -> Any:
    return SimpleNamespace(outputs=lambda samples, count: [Ragged.of(list(outputs[:count]))])


def test_other_rounding_is_no_other_model(tmp_path: Path) -> None:
    Samples({"y": Ragged.of(list(WANTED))}).save(tmp_path / "expected")
    check_as_given(gives(WANTED + np.float32(0.1)), tmp_path, tmp_path / "expected")
    with pytest.raises(EngineFailure, match=r"computes something else of the given model: similarity 0\.\d\d to what"):
        check_as_given(gives(WANTED[::-1].copy()), tmp_path, tmp_path / "expected")
