"""`machine.json`, `plugins.json` and `prune_timing.json`, and the machine that a result was measured on."""

from act.results.artifact import Artifact, Part


class _Hardware(Part):
    cpu: str
    cores: int | None
    capabilities: list[str]  # int8 and bf16 instructions as Linux names them
    python: str
    packages: dict[str, str]  # versions


class TimedOn(_Hardware, Artifact):
    """What a timing depends on."""


class PruneTiming(Artifact):
    """What the stage `prune` times on; None where it times nothing."""

    timed_on: TimedOn | None


class PlugIns(Artifact):
    """The versions of the other distributions that a job may use engines, readers, metrics and the like of."""

    versions: dict[str, str]


class Machine(_Hardware):
    memory_bytes: int
    system: str
