"""Pictures and, in a folder beside them, their masks: pictures of class numbers under the same names.

A mask goes through what its picture goes through, each pixel taken from the nearest. What `letterbox` fills up, and
pixels of the class `ignore`, are not judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import Field
from tqdm import tqdm

from act.errors import InputError
from act.samples.dataset import PADDING, Array, FeedSpec, Gathering, Samples
from act.samples.listing import dealt, inside, pictures, thinned
from act.samples.pictures import FORMATS, Frame, PictureSettings, Preparation, open_map
from act.samples.readers import only_feed
from act.settings.base import Text
from act.settings.data import Labels

# Larger than any class of a mask of 8 bits.
_OUTSIDE = 256


class Settings(PictureSettings):
    """Pictures in one folder and their masks in another, each mask a picture of class numbers of the same name."""

    path: Text = Field(description="folder that holds the folders below")
    calibration_images: Text = "calibration/images"
    evaluation_images: str | None = Field(default="evaluation/images", min_length=1)
    """null: the pictures of `calibration_images` are dealt out to both"""
    masks: Text = Field(default="evaluation/labels", description="folder of the masks of the evaluation pictures")
    ignore: int | None = Field(default=255, ge=0, le=255, description="class of pixels that are not judged")
    divide: int = Field(default=1, ge=1, le=255)
    """what a mask's values are divided by: 255 where a mask of two classes is white on black"""
    calibration: int = Field(default=128, ge=1, le=1_000_000, description="pictures at most")
    evaluation: int = Field(default=512, ge=1, le=1_000_000, description="pictures at most")

    @property
    def labels(self) -> Labels | None:
        return "classes"


def read(settings: Settings, feeds: Sequence[FeedSpec], class_count: int, scratch: Path) -> tuple[Samples, Samples]:
    """Read the calibration samples (no labels) and the evaluation samples with masks, int16 [height, width]."""
    feed, root = only_feed(settings.reader, feeds), Path(settings.path)
    preparation = Preparation.of(settings, feed)
    calibration: Sequence[Path] = _pictures(root, settings.calibration_images, "calibration_images")
    if settings.evaluation_images not in (None, settings.calibration_images):
        assert settings.evaluation_images is not None
        evaluation: Sequence[Path] = _pictures(root, settings.evaluation_images, "evaluation_images")
    else:
        calibration, evaluation = dealt(calibration, settings.path)
    masks = {path.stem: path for path in _pictures(root, settings.masks, "masks")}
    calibration, evaluation = thinned(calibration, settings.calibration), thinned(evaluation, settings.evaluation)
    inputs, labels = (Gathering(scratch), Gathering(scratch)), Gathering(scratch)
    for path in tqdm(calibration, desc="reading pictures", unit="picture", leave=False, delay=2):
        picture, _ = preparation.fitted(preparation.opened(path, str(path)))
        inputs[0].add(preparation.normalised(picture, feed.dtype))
    for path in tqdm(evaluation, desc="reading pictures and masks", unit="picture", leave=False, delay=2):
        if path.stem not in masks:
            raise InputError(f"{path}: has no mask `{path.stem}.png` in {root / settings.masks}; add it there")
        picture, frame = preparation.fitted(preparation.opened(path, str(path)))
        inputs[1].add(preparation.normalised(picture, feed.dtype))
        labels.add(_mask(masks[path.stem], frame, preparation))
    evaluated = Samples({feed.name: inputs[1].ragged()}, labels.ragged())
    return Samples({feed.name: inputs[0].ragged()}), evaluated


def _pictures(root: Path, folder: str, key: str) -> list[Path]:
    place = inside(root, folder, f"`data.{key}` is {folder!r}, which")
    found = sorted(pictures(place)) if place.is_dir() else []
    if not found:
        told = "no pictures in it" if place.is_dir() else "no such folder"
        raise InputError(f"{place}: {told}; set `data.{key}` to a folder with {', '.join(FORMATS)}")
    return found


def _mask(path: Path, frame: Frame, preparation: Preparation) -> Array:
    """Return the class of each pixel of an input, int16 [height, width]."""
    settings = preparation.settings
    assert isinstance(settings, Settings)
    classes = open_map(path, str(path)).astype(np.int32)
    if classes.shape[::-1] != frame.size:
        found = f"{classes.shape[1]} x {classes.shape[0]} pixels for a picture of {frame.size[0]} x {frame.size[1]}"
        raise InputError(f"{path}: {found}; a mask must be as large as its picture")
    known = np.where(classes == settings.ignore, _OUTSIDE, classes // settings.divide)
    # One more than the class, so that what is filled up with 0 is told apart.
    fitted, _ = preparation.fitted(Image.fromarray(known + 1), Image.Resampling.NEAREST)
    values = np.asarray(fitted)
    return np.where((values == 0) | (values == _OUTSIDE + 1), PADDING, values - 1).astype(np.int16)
