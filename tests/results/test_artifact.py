"""A result is written whole and read by its type alone; what does not fit is told with file, key and cure."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from act.errors import InputError
from act.results.benchmark import FailedVariant, Measurements, RanVariant
from act.results.ptq_search import LayerSensitivity, Plan
from tests.support.measured import entry, failed, measurements


def test_what_is_written_is_read_and_leaves_nothing_else(tmp_path: Path) -> None:
    plan = Plan(keep=["a"], train=True, start="a")
    plan.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == plan
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "no such file; run the stage"),
        ("{", "cannot be read as JSON"),
        ("[]", "not of schema version 1"),
        ('{"schema_version": 2}', "not of schema version 1; remove it and run its stage again"),
        ('{"schema_version": 1, "keep": [], "train": true, "start": null, "strat": 1}', "`strat`: Extra"),
        ('{"schema_version": 1, "keep": ["a", 1], "train": true, "start": null}', "`keep.1`: "),
    ],
)
def test_what_does_not_fit_is_told_with_file_key_and_cure(tmp_path: Path, text: str | None, told: str) -> None:
    path = tmp_path / "plan.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=told.replace("[", r"\[")) as raised:
        Plan.read(path)
    assert str(raised.value).startswith(f"{path}: ")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_json_has_no_word_for_fails_where_it_is_made(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        LayerSensitivity(layer="a", op_type="conv2d", error=value)


def test_variants_are_read_as_what_they_are(tmp_path: Path) -> None:
    ran, crashed = entry("openvino", "fp32", 10, 0.8), failed("openvino", "bf16", "crash", "ended by SIGSEGV")
    rows: list[RanVariant | FailedVariant] = [ran, crashed]
    measurements(rows).write(tmp_path / "measurements.json")
    assert Measurements.read(tmp_path / "measurements.json").variants == rows
