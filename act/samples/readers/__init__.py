"""Readers of samples: one file each, listed here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from act.errors import InputError
from act.samples.dataset import FeedSpec, Samples
from act.samples.readers import arrays, function, image_folder, text_lines
from act.settings import Arrays, Data, Function, ImageFolder


def read(data: Data, feeds: Sequence[FeedSpec], class_count: int, scratch: Path) -> tuple[Samples, Samples]:
    """The calibration samples and the evaluation samples for a model with these inputs.

    Args:
        class_count: how many classes the model's first output tells apart; -1 when it does not say.
        scratch: folder for what is too large for the memory; nothing in it has a name.

    Raises:
        InputError: the data cannot be read, or the reader cannot feed this model.
    """
    if isinstance(data, Arrays):
        return arrays.read(data, [feed.name for feed in feeds])
    if isinstance(data, Function):
        return function.read(data, feeds, scratch)
    if len(feeds) != 1:
        raise InputError(
            f"reader `{data.reader}` feeds one picture, but the model has {len(feeds)} inputs; use `arrays` or "
            "`function`"
        )
    if isinstance(data, ImageFolder):
        return image_folder.read(data, feeds[0], scratch)
    return text_lines.read(data, feeds[0].name, class_count, scratch)
