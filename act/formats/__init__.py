"""Model files in, a program out. A format is a module in this folder, or an entry point of `act_pipeline.formats`.

It has three functions:

- `recognises(path)`: tell whether a file or folder looks like this format;
- `find(path, model_filename, params_filename)`: return the model's files, or raise `InputError`;
- `load(files)`: return the `InferenceModel`, or raise `InputError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from act.errors import InputError
from act.program.model import InferenceModel
from act.registry import FORMATS
from act.samples.dataset import FeedSpec


@dataclass(frozen=True)
class SourceModel:
    """A model as the user has it, and the files that it consists of, the program first."""

    files: tuple[Path, ...]
    _format: ModuleType

    @classmethod
    def find(cls, path: Path, model_filename: str | None = None, params_filename: str | None = None) -> SourceModel:
        """Find a model by its folder or file; file names are needed where they are not the usual ones.

        Raises:
            InputError: there is no model of a known format.
        """
        # Paddle's takes any folder and says what it lacks: it comes last.
        formats = sorted(FORMATS.load_all().items(), key=lambda entry: entry[0] == "paddle")
        fitting = next((module for _, module in formats if module.recognises(path)), None)
        if fitting is None:
            raise InputError(
                f"{path}: no such folder, or no model of a known format ({', '.join(FORMATS.names())}); name a folder "
                "with an inference model, or its .pdmodel file"
            )
        return cls(tuple(fitting.find(path, model_filename, params_filename)), fitting)

    def load(self) -> InferenceModel:
        """Read the model in inference mode; `InputError` where a file is damaged, or does not fit the others."""
        model: InferenceModel = self._format.load(self.files)
        return model


def check_batch_axes(feeds: Sequence[FeedSpec], program: Path) -> None:
    """Refuse a model that takes only so many samples at a time: every stage runs several, and the target decides."""
    for feed in feeds:
        if not feed.shape or feed.shape[0] != -1:
            raise InputError(
                f"{program}: input `{feed.name}` has shape {list(feed.shape)}; its first axis must be the batch, of "
                "any length (-1): export the model again with `None` there"
            )
