"""Readers of samples. A reader is a module of this package with the class `Settings` and the function `read`."""

from collections.abc import Sequence
from pathlib import Path

from act.errors import InputError
from act.registry import READERS
from act.samples.dataset import FeedSpec, Samples
from act.settings.data import Data


def read(data: Data, feeds: Sequence[FeedSpec], class_count: int, scratch: Path) -> tuple[Samples, Samples]:
    """Return the calibration samples (no labels) and the evaluation samples for a model with these inputs.

    Args:
        class_count: how many classes the model's first output tells apart; -1 when it does not say.
        scratch: folder for what is too large for the memory; nothing in it has a name.
    """
    samples: tuple[Samples, Samples] = READERS.load(data.reader).read(data, feeds, class_count, scratch)
    return samples


def only_feed(reader: str, feeds: Sequence[FeedSpec]) -> FeedSpec:
    """Return the one input of a model; `InputError` where it has several."""
    if len(feeds) != 1:
        found = f"the model has {len(feeds)} inputs"
        raise InputError(f"reader `{reader}` feeds one picture, but {found}; use `arrays` or `function`")
    return feeds[0]
