"""`calibrate.json` and `ranges.json`: what was gathered of the activations."""

from __future__ import annotations

from pydantic import Field

from act.results.artifact import Artifact


class Calibration(Artifact):
    """What the statistics are of."""

    batch_num: list[int] = Field(default_factory=list)  # numbers of batches that the search may choose from
    activations: list[str] = Field(default_factory=list)  # that layers read
    equalised: list[str] = Field(default_factory=list)  # those whose channels were equalised


class Ranges(Artifact):
    """The least and the largest value of every tensor, by threshold rule, without symmetry."""

    rules: dict[str, dict[str, tuple[float, float]]]
