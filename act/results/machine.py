"""What the stage `machine` notes, `prune_machine.json`, and the machine that a result was measured on."""

from act.results.artifact import Artifact, Part


class _Hardware(Part):
    cpu: str
    cores: int | None
    capabilities: list[str]  # int8 and bf16 instructions as Linux names them
    python: str
    packages: dict[str, str]  # versions


class TimedOn(_Hardware, Artifact):
    """What a timing depends on."""


class PruneMachine(Artifact):
    """The machine, where what the stage `prune` takes out depends on it; else None."""

    machine: TimedOn | None


class PlugIns(Artifact):
    """The versions of the other distributions that a job may use engines, readers, metrics and the like of."""

    versions: dict[str, str]


class ModelFiles(Artifact):
    """What the user's model or teachers hold, whatever DVC has noted of their files' sizes and times."""

    sha256: dict[str, str]  # by file, below the folder that the job names or that of the file that it names


class DataFiles(Artifact):
    """What the job's data hold, by a digest of files that may be sampled."""

    files: int
    bytes: int
    sha256: str


class Machine(_Hardware):
    memory_bytes: int
    system: str
