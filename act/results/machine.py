"""`machine.json`, `plugins.json` and `prune_timing.json`, and the machine that a result was measured on."""

from __future__ import annotations

from act.results.artifact import Artifact, Part


class TimedOn(Artifact):
    """What a timing depends on: CPU, its int8 and bf16 instructions as Linux names them, and versions."""

    cpu: str
    cores: int | None
    capabilities: list[str]
    python: str
    packages: dict[str, str]


class PruneTiming(Artifact):
    """What the stage `prune` times on; None where it times nothing."""

    timed_on: TimedOn | None


class PlugIns(Artifact):
    """The versions of the other distributions that a job may use engines, readers, metrics and the like of."""

    versions: dict[str, str]


class Machine(Part):
    """CPU, its int8 and bf16 instructions as Linux names them, memory, system, and versions of packages."""

    cpu: str
    cores: int | None
    capabilities: list[str]
    memory_bytes: int
    system: str
    python: str
    packages: dict[str, str]
