"""Pictures of retinas as the U-Net of orobix's `retina-unet` wants them; given to the reader `function`.

Grey by luma, normalised over the set, contrast equalised in tiles (CLAHE: Zuiderveld, 1994), gamma 1.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

LUMA = (0.299, 0.587, 0.114)
TILES, CLIP, GAMMA = 8, 2.0, 1.2
# The network halves its pictures twice.
STEP = 4


def calibration(folder: str) -> Iterator[list[Any]]:
    """Give the pictures that are not judged, float32 [1, 1, height, width] each."""
    return _batches(Path(folder) / "calibration")


def evaluation(folder: str) -> Iterator[list[Any]]:
    """Give the other pictures, each with its mask, int64 [1, height, width]."""
    return _batches(Path(folder) / "evaluation")


def _batches(folder: Path) -> Iterator[list[Any]]:
    paths = sorted((folder / "images").glob("*.png"))
    grey = np.stack([np.asarray(Image.open(path).convert("RGB"), dtype=np.float64) @ LUMA for path in paths])
    grey = (grey - grey.mean()) / grey.std()
    for path, picture in zip(paths, grey):
        spread = (picture - picture.min()) / (picture.max() - picture.min())
        equalised = clahe(np.rint(255 * spread).astype(np.uint8))
        bright = ((np.arange(256) / 255) ** (1 / GAMMA) * 255).astype(np.uint8)[equalised]
        mask = np.asarray(Image.open(folder / "labels" / path.name), dtype=np.int64)
        height, width = (length // STEP * STEP for length in bright.shape)
        yield [(bright[None, None, :height, :width] / 255).astype(np.float32), mask[None, :height, :width]]


def clahe(picture: Pixels) -> Pixels:
    """Equalise the contrast of a picture in tiles, each histogram clipped; as OpenCV does."""
    height, width = picture.shape
    bottom, right = -height % TILES, -width % TILES
    padded = np.pad(picture, ((0, bottom), (0, right)), mode="reflect")
    tall, wide = (length // TILES for length in padded.shape)
    tiles = padded.reshape(TILES, tall, TILES, wide).transpose(0, 2, 1, 3).reshape(TILES, TILES, -1)
    tables = np.apply_along_axis(_table, 2, tiles)

    def between(length: int, side: int) -> tuple[Any, Any, Any]:
        place = (np.arange(length) + 0.0) / side - 0.5
        first = np.floor(place).astype(int)
        return first.clip(0, TILES - 1), (first + 1).clip(0, TILES - 1), place - first

    up, down, rows = between(height, tall)
    left, other, columns = between(width, wide)
    rows, columns = rows[:, None], columns[None]
    found = sum(
        weight * tables[row[:, None], column[None], picture]
        for row, column, weight in (
            (up, left, (1 - rows) * (1 - columns)),
            (up, other, (1 - rows) * columns),
            (down, left, rows * (1 - columns)),
            (down, other, rows * columns),
        )
    )
    return np.rint(found).astype(np.uint8)


def _table(values: Pixels) -> npt.NDArray[np.float64]:
    counts = np.bincount(values, minlength=256)
    most = max(int(CLIP * values.size / 256), 1)
    over = int(np.maximum(counts - most, 0).sum())
    counts = np.minimum(counts, most) + over // 256
    rest = over % 256
    if rest:
        counts[:: max(256 // rest, 1)][:rest] += 1
    return np.rint(np.cumsum(counts) * (255 / values.size))
