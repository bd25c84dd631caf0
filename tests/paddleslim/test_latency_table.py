"""ACT's tables: read, and refused where they are anything else."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from act.errors import InputError
from act.paddleslim.latency_table import read_act_table
from act.strategy.latency.model import LatencyModel, Measured

CONVOLUTION = (
    "conv2d in=(1, 3, 224, 224) weight=(32, 3, 3, 3) out=(1, 32, 112, 112) pad=1 stride=2 group=1 dilation=1 "
    "quant=False bit_length=None"
)
INT8 = CONVOLUTION.replace("quant=False bit_length=None", "quant=True bit_length=8")
TABLE = {
    CONVOLUTION: 2.5,
    INT8: 1.25,
    "matmul_v2 X=(1, 1280) Y=(1280, 1000) out=(1, 1000) quant=False bit_length=None": 1.0,
    "pool2d in=(1, 8, 14, 14) out=(1, 8, 7, 7) stride=2 kernel=2x2 pad=0 flag_global=0 type=max)": 0.1,
    "concat in=(1, 8, 7, 7)(1, 8, 7, 7) axis=1 out=(1, 16, 7, 7)": 0.05,
    "cast": 0.001,
}


def write(path: Path, value: Any) -> Path:
    path.write_bytes(pickle.dumps(value))
    return path


def test_operators_become_kernels(tmp_path: Path) -> None:
    found = read_act_table(write(tmp_path / "SD710.pkl", TABLE))
    assert len(found) == 5
    (convolution, seconds), (int8, _), (product, _), (pool, _), (concat, _) = found
    assert seconds == pytest.approx(2.5e-3) and convolution.macs == 32 * 112 * 112 * 27
    assert convolution.strides == (2, 2) and convolution.window == (3, 3) and convolution.computes_in == "f32"
    assert int8.computes_in == "int8" and int8.macs == convolution.macs
    assert product.macs == 1280 * 1000 and product.weights == ((1280, 1000),)
    assert pool.window == (2, 2) and [each.shape for each in concat.inputs] == [(1, 8, 7, 7)] * 2
    # A latency model learns from it as from any other.
    model = LatencyModel([Measured("SD710", sum(seconds for _, seconds in found), found)], errors=())
    assert model.predict([convolution]).seconds == pytest.approx(2.5e-3, rel=0.01)


class Hostile:
    def __reduce__(self) -> Any:
        return os.system, ("touch made_by_a_pickle",)


@pytest.mark.parametrize(
    "value", [{"a": Hostile()}, {"conv2d": Path("x")}, {"conv2d": "long"}, [1, 2], {1: 2.0}, {"conv2d": float("nan")}]
)
def test_what_is_no_table_is_refused_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no latency table"):
        read_act_table(write(tmp_path / "table.pkl", value))
    assert not (tmp_path / "made_by_a_pickle").exists()


def test_a_damaged_or_missing_file_is_told(tmp_path: Path) -> None:
    whole = write(tmp_path / "table.pkl", TABLE)
    whole.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(InputError, match="no latency table"):
        read_act_table(whole)
    with pytest.raises(InputError, match="no such file"):
        read_act_table(tmp_path / "none.pkl")
