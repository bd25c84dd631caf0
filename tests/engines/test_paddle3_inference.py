"""The engine `paddle3_inference`: a row where its environment is missing, and the real one where it is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from act.engines.process import EngineFailure, EngineProcess
from act.environments import PADDLE3
from act.formats import SourceModel
from act.program.model import InferenceModel
from act.samples.dataset import Array, Ragged, Samples
from tests.formats.paddle3.support import Net, imported, tensor, values

WRITTEN = Path(__file__).parents[1] / "formats" / "paddle3" / "written"
REAL = pytest.mark.skipif(PADDLE3.python() is None, reason=f"needs Paddle 3's own environment: {PADDLE3.lacks()}")


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    drawn = Samples({"x": Ragged.of(list(np.load(WRITTEN / "arrays.npz")["x"]))})
    drawn.save(tmp_path / "samples")
    return drawn


def test_without_the_environment_the_row_says_what_is_missing_and_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PADDLE3.variable, str(tmp_path / "nothing"))
    with EngineProcess("paddle3_inference", WRITTEN, "fp32", 1, 60) as engine, pytest.raises(EngineFailure) as failure:
        engine.load()
    assert failure.value.kind == "missing"
    assert "Paddle 3's environment is not there" in failure.value.cause and "`make paddle3`" in failure.value.cause


def test_without_the_environment_an_import_is_taken_and_the_log_says_so(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(PADDLE3.variable, str(tmp_path / "nothing"))
    source = SourceModel.find(WRITTEN)
    assert source.check(source.load(), samples, tmp_path / "samples") is None
    (message,) = [each.getMessage() for each in caplog.records]
    assert "was not run beside Paddle Inference 3" in message and "`make paddle3`" in message


@REAL
def test_paddle_3_runs_its_own_program_and_ours(samples: Samples, tmp_path: Path) -> None:
    source = SourceModel.find(WRITTEN)
    model = source.load()
    deviation = source.check(model, samples, tmp_path / "samples")
    assert deviation is not None and deviation < 1e-5
    (tmp_path / "ours").mkdir()
    model.save(tmp_path / "ours")
    (wanted,) = InferenceModel.load(tmp_path / "ours").run({"x": np.load(WRITTEN / "arrays.npz")["x"]})
    with EngineProcess("paddle3_inference", tmp_path / "ours", "fp32", 1, 60) as engine:
        assert engine.load().version.startswith("3.")
        (found,) = engine.outputs(tmp_path / "samples", batch=2)
    np.testing.assert_allclose(np.stack(list(found)), wanted, rtol=1e-5, atol=1e-6)


@REAL
@pytest.mark.parametrize("has_weights", [True, False])
def test_paddle_3_gives_what_its_own_kernels_do(has_weights: bool, tmp_path: Path) -> None:
    """Of three axes, with an operator that oneDNN does not have, its kernels in Paddle 3.3 give wrong numbers."""
    net, table = Net(), tensor([-1, 4, 8])
    x = total = net.data("x", [-1, 4, 8])
    if has_weights:
        weight = net.parameter("weight", values((8, 8)))
        x = total = net.op("matmul", [x, weight], [table], transpose_x=False, transpose_y=False)
    softplus = {name: {"#": "0.a_f64", "D": value} for name, value in (("beta", 1.0), ("threshold", 20.0))}
    for kind, attributes in (
        ("gelu", {"approximate": False}),
        ("softplus", softplus),
        ("silu", {}),
        ("elu", {"alpha": 1.0}),
    ):
        total = net.op("add", [total, net.op(kind, [x], [table], **attributes)], [table])
    net.fetch(total, table)
    net.save(tmp_path / "model")
    batch: dict[str, Array] = {"x": values((2, 4, 8), 1)}
    Samples({"x": Ragged.of(list(batch["x"]))}).save(tmp_path / "samples")
    (wanted,) = imported(tmp_path / "model").run(batch)
    with EngineProcess("paddle3_inference", tmp_path / "model", "fp32", 1, 60) as engine:
        engine.load()
        (found,) = engine.outputs(tmp_path / "samples", batch=2)
    np.testing.assert_allclose(np.stack(list(found)), wanted, rtol=1e-5, atol=1e-5)
