"""Of large folders a part is read, which is the same part every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from act.samples import digest


def test_large_files_are_sampled_and_of_very_many_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = np.random.default_rng(0).integers(256, size=2**18, dtype=np.uint8)
    (tmp_path / "large").write_bytes(large.tobytes())
    for number in range(9):
        (tmp_path / f"small{number}").write_bytes(bytes([number]) * 100)
    files = digest.files_of([tmp_path, tmp_path / "large"])
    assert len(files) == 10
    whole = digest.sampled_digest(files)
    (tmp_path / "small8").write_bytes(b"?" * 100)
    assert digest.sampled_digest(files) != whole
    large[-1] ^= 1
    before = digest.sampled_digest(files)
    (tmp_path / "large").write_bytes(large.tobytes())
    assert digest.sampled_digest(files) != before, "the end is read"
    monkeypatch.setattr(digest, "MOST_BYTES", 2**14)
    few = digest.sampled_digest(files)
    (tmp_path / "small7").write_bytes(b"!" * 100)
    assert digest.sampled_digest(files) == few
    (tmp_path / "small7").write_bytes(b"!")
    assert digest.sampled_digest(files) != few, "sizes always count"
