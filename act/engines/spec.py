"""What everything else asks about an engine: its folder's `SPEC`, read without importing the engine's library."""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from act import registry


@dataclass(frozen=True)
class Spec:
    """One inference engine on one device."""

    name: str  # as in the settings, which is its folder's
    title: str  # for people
    runtime: str  # `module:Class` of its `Engine`
    reads: Literal["onnx", "paddle"]  # a single `.onnx` file, or a folder with a Paddle program
    opens: tuple[str, ...] = ()  # formats of the user's own files (`act.formats`) that it loads as they are
    writer: str | None = None  # `module:Class` of its `Writer`; None where only the stand-alone measurement runs it
    int8_operators: tuple[str, ...] = ()  # Paddle's operator types that it has int8 kernels for, given QDQ operators
    zero_points: bool = True  # whether its int8 kernels know asymmetric activations
    # Its place among the engines of a target that names none, and whose files every candidate gets; None for an engine
    # that runs where it is asked for only.
    default: int | None = None
    not_first: str | None = None  # why candidates cannot be searched on it
    tells_times: bool = False  # of each of its kernels, so that latency tables can be measured
    # Gives the Python of its own environment, None while that is not there; None where ours runs it.
    interpreter: Callable[[], Path | None] | None = None
    packages: tuple[str, ...] = ()  # the distributions whose versions are its own
    # Gives Python lines that load a model, from its path, precision and number of threads.
    snippet: Callable[[str, str, int], str] | None = None
    infer: Mapping[str, bool] | None = None  # the switches of the stand-alone measurement that choose it

    @property
    def order(self) -> tuple[float, str]:
        """Return what sorts engines: by `default`, then the rest by name."""
        return (math.inf if self.default is None else self.default, self.name)

    @property
    def reads_onnx(self) -> bool:
        """Tell whether it reads a single `.onnx` file, and not a folder."""
        return self.reads == "onnx"

    def python(self) -> str:
        """Return the Python that runs it: ours while its own is not there, under which it says what it lacks."""
        own = self.interpreter() if self.interpreter is not None else None
        return str(own) if own is not None else sys.executable


def spec_of(name: str) -> Spec:
    """Return the spec of an engine; `ValueError` where there is none of that name, or it cannot be imported."""
    return registry.ENGINES.load(name).SPEC


def all_specs() -> list[Spec]:
    """Return the specs of all engines in their usual order."""
    return sorted((module.SPEC for module in registry.ENGINES.load_all().values()), key=lambda spec: spec.order)


def title_of(name: str) -> str:
    """Return the name of an engine for people; as it is where the engine is gone."""
    return spec_of(name).title if name in registry.ENGINES.names() else name
