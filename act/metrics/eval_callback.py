"""`eval_callback`: what a callback of ACT's says of a model, which it runs itself, on data of its own.

It gets what it gets from ACT, an executor, a program, the names of the inputs and the output variables; but here they
stand for the engine that has the model: `executor.run(program, feed, fetch_list)` gives what that engine computes.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from act.errors import InputError
from act.metrics import Quality, Runner, Scorer
from act.registry import users_function
from act.samples.dataset import Array


@dataclass(frozen=True)
class Settings:
    """What is told.

    Attributes:
        function: `package.module:name` of the callback.
        project: folder that its module is imported from.
        inputs: names of the model's inputs.
        outputs: names of the model's outputs.
    """

    function: str
    project: str
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


class Variable(NamedTuple):
    """Stands for an output of the program."""

    name: str


class Executor:
    """Stands for Paddle's executor: runs the model of the engine, whatever program it is given."""

    def __init__(self, run: Runner, outputs: Sequence[str]) -> None:
        self._run, self._outputs = run, list(outputs)

    def run(
        self, program: Any = None, feed: Any = None, fetch_list: Sequence[Any] | None = None, **options: Any
    ) -> list[Array]:
        """Return the outputs asked for, by name or variable, on a batch."""
        batch = feed[0] if isinstance(feed, Sequence) and len(feed) == 1 else feed
        if not isinstance(batch, Mapping):
            raise TypeError("the executor wants one dictionary of arrays by input")
        found = self._run({name: np.ascontiguousarray(values) for name, values in batch.items()})
        names = self._outputs if fetch_list is None else [getattr(each, "name", each) for each in fetch_list]
        return [found[self._outputs.index(name)] for name in names]


class Metric(Scorer):
    """Lets the callback run the model."""

    title = "figure of the callback"
    labels = "any"
    of_selections = False
    Settings = Settings

    def of_model(self, run: Runner) -> Quality:
        """Return what the callback gives, for as many samples as there are."""
        told = self.settings
        try:
            function = users_function(told.function, Path(told.project))
        except ValueError as error:
            raise InputError(f"`eval_callback` {error}") from None
        outputs = [Variable(name) for name in told.outputs]
        try:
            value = float(function(Executor(run, told.outputs), None, list(told.inputs), outputs))
        except Exception as error:  # whatever the user's code raises
            traceback.print_exc()
            raise InputError(f"{told.function}: {type(error).__name__}: {' '.join(str(error).split())}") from None
        if not math.isfinite(value):
            raise InputError(f"{told.function}: returned {value}; it must return a number, higher is better")
        return Quality(value, [value] * len(self.samples), {}, type(self))

    def score(self, outputs: Sequence[Array], truth: Sequence[Array]) -> NoReturn:
        """Refuse to: the callback has data of its own."""
        raise NotImplementedError
