"""A function of the user's that returns a loader, named `package.module:function`.

The module is imported from the project's folder or from an installed package, and from nowhere else.
"""

import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field

from act.errors import InputError
from act.registry import users_function
from act.samples.dataset import FeedSpec, Samples
from act.samples.loaders import Loader, deal_out, take
from act.settings.base import Text
from act.settings.data import Data

_NAME = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"


class Settings(Data):
    """A Python function of the user's that returns a loader: an iterable of batches, such as a `paddle.io.DataLoader`.

    A batch is a dictionary of arrays by input, with or without `label`, or a list of arrays in the order of the
    model's inputs, with or without the labels at its end. The first axis of each array counts the samples.
    """

    path: Text = Field(description="file or folder that DVC follows: where the function is, or what it reads")
    function: str = Field(pattern=_NAME)
    """`package.module:function`, in the project's folder or an installed package"""
    evaluation_function: str | None = Field(default=None, pattern=_NAME)
    """likewise for the evaluation samples; when left out, one loader's samples are dealt out to both"""
    settings: dict[str, bool | int | float | str | None] = Field(default={}, max_length=64)
    """keyword arguments of the functions"""
    calibration: int = Field(default=128, ge=1, le=1_000_000, description="samples at most")
    evaluation: int = Field(default=512, ge=1, le=1_000_000, description="samples at most")


def read(settings: Settings, feeds: Sequence[FeedSpec], class_count: int, scratch: Path) -> tuple[Samples, Samples]:
    """Take the calibration and the evaluation samples from the loader; a reader's `read`."""
    counts = (settings.calibration, settings.evaluation)
    with _users_code(settings.function):
        loader = _call("function", settings.function, settings)
        if settings.evaluation_function is None:
            return deal_out(loader, feeds, counts, scratch, settings.function)
        calibration = take(loader, feeds, counts[0], scratch, settings.function, labelled=False)
    with _users_code(settings.evaluation_function):
        loader = _call("evaluation_function", settings.evaluation_function, settings)
        return Samples(calibration.feeds), take(loader, feeds, counts[1], scratch, settings.evaluation_function)


def _call(key: str, name: str, settings: Settings) -> Loader:
    try:
        function = users_function(name)
    except ValueError as error:
        raise InputError(f"`data.{key}` {error}") from None
    loader: Loader = function(**settings.settings)
    return loader


@contextmanager
def _users_code(name: str) -> Iterator[None]:
    """Let the user's code find Paddle as where nobody has set anything, and turn what it raises into one line.

    The call stack is printed before: only that shows where it failed.
    """
    paddle = sys.modules.get("paddle")
    if paddle is not None:
        paddle.disable_static()
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename is None:
            raise  # the disk of our own files is full
        traceback.print_exc()
        said = " ".join(str(error).split())
        raise InputError(f"{name}: failed with {type(error).__name__}: {said}; mend it, or `data.settings`") from None
    finally:
        if paddle is not None:
            paddle.enable_static()
