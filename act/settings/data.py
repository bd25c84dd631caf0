"""`data`: where the samples come from. Each reader has its own settings, in its module of `act.samples.readers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from act.registry import READERS
from act.settings.base import ReaderName, Settings, Text

# What an evaluation sample's label is: one class, a sequence of classes, or there is none.
Labels = Literal["class", "sequence", "nothing"]


class Data(Settings):
    """The settings of every reader; those of one extend them.

    A reader has no key of its own that is called `reader`, `path` or `labels`.
    """

    reader: ReaderName
    path: Text = Field(description="file or folder with the samples, which DVC follows")

    @property
    def labels(self) -> Labels | None:
        """Tell what the labels of the evaluation samples are; None where the reader does not know."""
        return None


def settings_of_reader(raw: Any) -> type[Data]:
    """Return the settings that the reader wants which some data name.

    Raises:
        ValueError: there is no such reader.
    """
    reader = raw.get("reader") if isinstance(raw, Mapping) else None
    if not isinstance(reader, str):
        return Data
    try:
        kind: type[Data] = READERS.load(reader).Settings
    except ValueError as error:
        raise ValueError(f"`reader`: {error}") from None
    return kind


AnyData = Annotated[SerializeAsAny[Data], BeforeValidator(lambda raw: settings_of_reader(raw).model_validate(raw))]
