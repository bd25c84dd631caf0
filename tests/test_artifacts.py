"""Folders that appear when they are complete, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from act.artifacts import replace_folder


def test_a_folder_that_is_refused_leaves_nothing_behind(tmp_path: Path) -> None:
    final = tmp_path / "artifacts" / "job" / "analyze"
    with pytest.raises(ValueError), replace_folder(final) as folder:
        (folder / "half").write_text("written", encoding="utf-8")
        raise ValueError
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    final = tmp_path / "job" / "analyze"
    for text in ("first", "second"):
        with replace_folder(final) as folder:
            (folder / "told").write_text(text, encoding="utf-8")
    (tmp_path / "job" / "prepare").mkdir()
    with pytest.raises(ValueError), replace_folder(final) as folder:
        raise ValueError
    with pytest.raises(ValueError), replace_folder(tmp_path / "job" / "select"):
        raise ValueError
    assert sorted(path.name for path in final.parent.iterdir()) == ["analyze", "prepare"]
    assert (final / "told").read_text(encoding="utf-8") == "second"
