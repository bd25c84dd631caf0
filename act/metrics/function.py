"""`function`: what a function of the user's makes of the outputs; in a job `metric: {function: package.module:name}`.

It runs in the engine's process, which has a time limit. It is called once, with the samples in batches: an iterable of
pairs, the outputs as a list of arrays [samples, ...], and the labels as an array, or None where there are none; a list
of arrays where they differ in shape. It returns

- a number, higher is better; what it would be on other samples is not known then;
- or a score for each sample, the mean of which is the figure, and which give its interval;
- either of them in a tuple with a dictionary of other figures by name.
"""

from __future__ import annotations

import math
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from act.errors import InputError
from act.metrics import Quality, Scorer, mean
from act.registry import users_function
from act.samples.dataset import Array, Gathering, Ragged, Samples


@dataclass(frozen=True)
class Settings:
    """What may be told.

    Attributes:
        function: `package.module:name`, in the project's folder or an installed package.
        settings: keyword arguments of the function.
        batch: samples of a batch.
    """

    function: str
    settings: dict[str, Any] = field(default_factory=dict)
    batch: int = 32

    def __post_init__(self) -> None:
        module, _, name = self.function.partition(":")
        if not all(part.isidentifier() for part in [*module.split("."), name]):
            raise ValueError(f"`function` is {self.function!r:.80}; it must be `package.module:name`")
        if not 1 <= self.batch <= 1024:
            raise ValueError("`batch` must be from 1 to 1024")


class Metric(Scorer):
    """Keeps the outputs on the disk, and lets the function see them all."""

    title = "figure of the user's function"
    labels = "any"
    of_selections = False
    Settings = Settings

    def __init__(self, samples: Samples, reference: Samples | None, settings: Any) -> None:
        super().__init__(samples, None, settings)
        self._outputs: list[Gathering] = []

    def score(self, outputs: Sequence[Array], truth: Sequence[Array]) -> float:
        """Keep the outputs; what they are worth is known in the end."""
        if not self._outputs:
            self._outputs = [Gathering(Path(tempfile.gettempdir())) for _ in outputs]
        for gathering, output in zip(self._outputs, outputs, strict=True):
            gathering.add(output)
        return 0.0

    def quality(self) -> Quality:
        """Return what the function says of all samples added so far."""
        count = len(self._statistics)
        found = self._call([gathering.ragged() for gathering in self._outputs])
        beside: Mapping[str, Any] = {}
        if isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping):
            found, beside = found
        try:
            scores = [float(found)] * count if np.ndim(found) == 0 else [float(each) for each in found]
            others = {str(name): float(value) for name, value in beside.items()}
        except (TypeError, ValueError):
            raise self._wrong(found) from None
        if len(scores) != count or not all(map(math.isfinite, [*scores, *others.values()])):
            raise self._wrong(found)
        return Quality(mean(scores), scores, others, type(self))

    def _call(self, outputs: Sequence[Ragged]) -> Any:
        try:
            function = users_function(self.settings.function)
        except ValueError as error:
            raise InputError(f"`metric.function` {error}") from None
        try:
            return function(self._batches(outputs), **self.settings.settings)
        except Exception as error:  # whatever the user's code raises
            traceback.print_exc()
            said = " ".join(str(error).split())
            raise InputError(f"{self.settings.function}: failed with {type(error).__name__}: {said}") from None

    def _batches(self, outputs: Sequence[Ragged]) -> Iterator[tuple[list[Any], Any]]:
        count, size = len(self._statistics), self.settings.batch
        for start in range(0, count, size):
            indices = range(start, min(start + size, count))
            labels = self.samples.labels
            yield [_together(each, indices) for each in outputs], None if labels is None else _together(labels, indices)

    def _wrong(self, found: Any) -> InputError:
        cure = "return a number, or one for each sample, alone or in a tuple with a dictionary of other figures"
        return InputError(f"{self.settings.function}: returned {found!r:.80}; {cure}")


def _together(values: Ragged, indices: Sequence[int]) -> Array | list[Array]:
    """Return some arrays as one, along a new first axis, or in a list where they differ in shape."""
    arrays = [values[index] for index in indices]
    return np.stack(arrays) if len({array.shape for array in arrays}) == 1 else arrays
