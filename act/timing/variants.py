"""What is measured: each file of each candidate, on each engine, in each precision that the target allows.

A candidate is a model that the export stage wrote, once for each engine; a variant is one way to run it. Half
precision needs no file of its own, because engines convert fp32 files as they load them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from act.engines.base import RuntimePrecision
from act.errors import InputError
from act.results.export import ExportedCandidates
from act.settings import EngineName, Target

REFERENCE = "fp32"


@dataclass(frozen=True)
class Candidate:
    """One model that the export stage wrote.

    Attributes:
        name: such as `fp32`, which is the reference, `pruned` or `int8-ptq`.
        precision: how it is stored, `fp32` or `int8`.
        files: for each engine the file or folder that it loads; `bytes`: the size of those files.
        refused: for engines that it could not be written for, the cause.
    """

    name: str
    precision: str
    files: dict[str, Path]
    bytes: dict[str, int]
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def is_reference(self) -> bool:
        """Tell whether it is the model that all others are compared with."""
        return self.name == REFERENCE


@dataclass(frozen=True)
class Variant:
    """One way to run one candidate."""

    engine: EngineName
    candidate: Candidate
    precision: RuntimePrecision

    @property
    def label(self) -> str:
        """Return a name, unique within an engine, such as `bf16`, `pruned+bf16` or `int8-ptq+bf16`."""
        if self.candidate.is_reference:
            return self.precision
        if self.candidate.precision == "fp32":
            return self.candidate.name + ("" if self.precision == "fp32" else f"+{self.precision}")
        return self.candidate.name + self.precision.removeprefix("int8")

    @property
    def is_reference(self) -> bool:
        """Tell whether speed and quality are compared with it."""
        return self.candidate.is_reference and self.precision == "fp32"


def read_candidates(exported: ExportedCandidates, folder: Path) -> list[Candidate]:
    """Return the candidates that the export stage wrote into a folder.

    Raises:
        InputError: there is no fp32 candidate to compare with.
    """
    candidates = []
    for entry in exported.candidates:
        files = {engine: folder / path for engine, path in entry.files.items()}
        candidates.append(Candidate(entry.name, entry.precision, files, entry.bytes, entry.refused))
    if sum(candidate.is_reference and candidate.precision == "fp32" for candidate in candidates) != 1:
        raise InputError(
            f"{folder}/candidates.json: must name one fp32 candidate, `{REFERENCE}`; run the stage `export` again"
        )
    return candidates


def variants(
    engine: EngineName, candidates: Iterable[Candidate], target: Target, offered: Collection[str] | None
) -> list[Variant]:
    """Return all ways to run the candidates on one engine, fp32 first.

    Half precision is bfloat16, or float16 on engines that have that one. What the settings ask for is listed even where
    the engine lacks it, so that the table says so; the mixture of int8 and bf16 is nobody's demand and listed only
    where the engine has it.

    Args:
        offered: the precisions that the engine has on this machine; None when that could not be found out.
    """
    found, offered, halves = [], offered or (), "bf16" in target.precisions
    for candidate in sorted(candidates, key=lambda each: (not each.is_reference, each.precision != "fp32")):
        if candidate.precision == "fp32":
            found.append(Variant(engine, candidate, "fp32"))
            if halves:
                found.append(Variant(engine, candidate, "fp16" if "fp16" in offered else "bf16"))
        elif "int8" in target.precisions:
            found.append(Variant(engine, candidate, "int8"))
            if halves and "int8+bf16" in offered:
                found.append(Variant(engine, candidate, "int8+bf16"))
    return found
