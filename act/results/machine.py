"""The machine that a result was measured on."""

from __future__ import annotations

from act.results.artifact import Part


class Machine(Part):
    """CPU, its int8 and bf16 instructions as Linux names them, memory, system, and versions of packages."""

    cpu: str
    cores: int | None
    capabilities: list[str]
    memory_bytes: int
    system: str
    python: str
    packages: dict[str, str]
