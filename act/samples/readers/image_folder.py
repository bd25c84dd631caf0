"""Pictures in a folder, in ImageNet's layout, prepared as classifiers are evaluated: resized, cut, normalised.

Pictures are opened one by one and kept on the disk, so that their number takes no memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field
from tqdm import tqdm

from act.errors import InputError
from act.samples.dataset import FeedSpec, Gathering, Ragged, Samples
from act.samples.listing import Entry, dealt, entries, thinned
from act.samples.pictures import PictureSettings, Preparation
from act.samples.readers import only_feed
from act.settings.base import Text


class Settings(PictureSettings):
    """Pictures in a folder, in ImageNet's layout: a list names them, each with or without its class number.

    In a list, a path and its class stand on a line, with a space, a tab or a comma between them.
    """

    path: Text = Field(description="folder that holds the pictures and the lists, at whatever depth")
    calibration_list: str | None = Field(default=None, min_length=1)
    """text file inside the folder, a line `relative/path.jpg CLASS` a picture, the class optional; all pictures of the
    folder, sorted, when left out"""
    evaluation_list: str | None = Field(default=None, min_length=1)
    """likewise; when left out, the pictures of `calibration_list` are dealt out to both"""
    calibration: int = Field(default=128, ge=1, le=1_000_000, description="pictures at most, evenly from the list")
    evaluation: int = Field(default=512, ge=1, le=1_000_000, description="pictures at most, evenly from the list")


def read(settings: Settings, feeds: Sequence[FeedSpec], class_count: int, scratch: Path) -> tuple[Samples, Samples]:
    """Read the calibration samples (no labels) and the evaluation samples (labelled where the list has classes)."""
    feed = only_feed(settings.reader, feeds)
    preparation = Preparation.of(settings, feed)
    calibration: Sequence[Entry] = entries(settings.path, settings.calibration_list, settings.reader)
    if settings.evaluation_list not in (None, settings.calibration_list):
        evaluation: Sequence[Entry] = entries(settings.path, settings.evaluation_list, settings.reader)
    else:
        calibration, evaluation = dealt(calibration, settings.path)
    calibration, evaluation = thinned(calibration, settings.calibration), thinned(evaluation, settings.evaluation)
    unlabelled = [entry for entry in evaluation if entry.label is None]
    if unlabelled and len(unlabelled) != len(evaluation):
        raise InputError(f"{unlabelled[0].where}: has no class number, though others have one; give all or none")
    labels = None if unlabelled else Ragged.of([np.array([entry.label], dtype=np.int64) for entry in evaluation])
    gatherings = Gathering(scratch), Gathering(scratch)
    for gathering, named in zip(gatherings, (calibration, evaluation)):
        for entry in tqdm(named, desc="reading pictures", unit="picture", leave=False, delay=2):
            where = entry.where if entry.where == str(entry.path) else f"{entry.where}: {entry.path}"
            picture, _ = preparation.fitted(preparation.opened(entry.path, where))
            gathering.add(preparation.normalised(picture, feed.dtype))
    return Samples({feed.name: gatherings[0].ragged()}), Samples({feed.name: gatherings[1].ragged()}, labels)
