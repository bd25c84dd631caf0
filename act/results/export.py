"""`candidates.json` of the stage `export`, and what engines tell of how they run a model."""

from collections.abc import Mapping

from pydantic import Field

from act.results.artifact import Artifact, Part

BODIES = "bodies"
"""The folder beside those of the candidates in which they are without their tail."""


class Failure(Part):
    """Why there are no figures: a kind of `act.engines.FailureKind` and one line."""

    kind: str
    cause: str


class ExecutedOperators(Part):
    multiplying: dict[str, dict[str, int]] = Field(default_factory=dict)  # kernels by precision and kind
    conversions: dict[str, int] = Field(default_factory=dict)  # (de)quantize operators that were not fused, by kind
    failure: Failure | None = None

    @property
    def lowest(self) -> str | None:
        """Return the lowest precision that anything multiplies in."""
        return next((name for name in ("int8", "fp16", "bf16", *self.multiplying) if name in self.multiplying), None)

    @property
    def share(self) -> str:
        """Tell how many of the layers that multiply do so in the lowest precision; empty where none do."""
        counts = {name: sum(kinds.values()) for name, kinds in self.multiplying.items()}
        return f"{counts[self.lowest]} of {sum(counts.values())} layers in {self.lowest}" if self.lowest else ""

    @property
    def above(self) -> str:
        """Tell kinds and numbers of the other layers, by precision."""
        return "; ".join(f"{_counted(k)} in {name}" for name, k in self.multiplying.items() if name != self.lowest)

    @property
    def not_fused(self) -> str:
        """Tell kinds and numbers of the quantize and dequantize operators that were not fused."""
        return _counted(self.conversions)


class FloatLayer(Part):
    name: str
    type: str
    why: str


class DeviceFile(Part):
    """A file for another device than this machine, or why it could not be written."""

    kind: str  # of device and content, for people
    file: str | None
    bytes: int
    failure: str | None
    operators: ExecutedOperators | None = None  # what the file will execute, where that is known


class ExportedCandidate(Part):
    """A model that was written once for each engine."""

    name: str  # such as `fp32`, which is the reference, `pruned` or `int8-ptq`
    precision: str  # how it is stored, `fp32` or `int8`
    files: dict[str, str]  # by engine the file or folder that it loads, below the stage's folder
    bytes: dict[str, int]  # by engine the size of those files
    weight_bytes: int  # of Paddle's weights
    check: dict[str, float]  # similarity of each file's outputs to the simulated quantized model's
    refused: dict[str, str]  # engines that it could not be written for, with the cause
    elsewhere: dict[str, list[DeviceFile]]  # by engine its files for other devices
    bodies: dict[str, str] = Field(default_factory=dict)  # by engine the same as `files` without the tail, if any
    left_in_float: list[FloatLayer]
    only: list[str] | None = None  # engines that it is for; None where it is for all


class ExportedCandidates(Artifact):
    """All candidates; `deploy` names the one that is laid out for other engines, None where only fp32 is there."""

    candidates: list[ExportedCandidate]
    deploy: str | None
    tail: list[str] | None = None  # types of the operators that were put back behind the layers


def _counted(kinds: Mapping[str, int]) -> str:
    """Return numbers of kinds in words."""
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())
