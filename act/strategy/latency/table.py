"""The table of what was measured: a file of JSON lines that grows by a line a network, and that can be copied.

The first line tells what it was measured on. Each further line is one network at one precision and number of threads,
with the kernels that the engine made of it. A line that was cut off by a kill is left out, and written anew. Nothing in
a table is executed; whatever is not as it must be is refused by line.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from act import machine
from act.errors import InputError
from act.strategy.latency.kernel import Kernel
from act.strategy.latency.model import Measured

FOLDER = Path("latency")
# Of those that an engine has, in this order; int8 with bf16 besides is predicted from both.
PRECISIONS: tuple[Literal["fp32", "bf16", "int8"], ...] = ("fp32", "bf16", "int8")
# 2: kernels tell the precision of what they make, and ONNX Runtime's whether they compute on blocks of channels.
SCHEMA_VERSION = 2
_MICRO = 1e6
_ERRORS = "errors of networks left out"
_CURE = "measure it with `python -m act.strategy.profile`"


@dataclass(frozen=True)
class Header:
    """What a table was measured on: engine, version of its library, CPU and its `act.machine.CAPABILITIES`."""

    engine: str
    version: str
    cpu: str
    capabilities: tuple[str, ...]

    @classmethod
    def here(cls, engine: str, version: str) -> Header:
        """Return this machine's."""
        told = machine.identity()
        return cls(engine, version, told["cpu"], tuple(told["capabilities"]))

    def to_line(self) -> str:
        """Return the first line of a table."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)})


@dataclass(frozen=True)
class Row:
    """One network at one precision; no kernels and no time where `failure` says why the engine could not run it."""

    precision: str
    threads: int
    measured: Measured
    failure: str | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        return self.measured.name, self.precision, self.threads

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Row:
        """Return what a line of a table tells; whatever error the damage of another line leads to."""
        kernels = [(Kernel.of(each), float(each["microseconds"]) / _MICRO) for each in told["kernels"]]
        measured = Measured(str(told["network"]), float(told["microseconds"]) / _MICRO, kernels)
        failure = told.get("failure")
        if failure is None and not 0 < measured.seconds < 1e6:
            raise ValueError(f"a latency of {measured.seconds} s")
        return cls(str(told["precision"]), int(told["threads"]), measured, failure)

    def to_json(self) -> dict[str, Any]:
        """Return a line of a table; plain JSON values."""
        return {
            "network": self.measured.name,
            "precision": self.precision,
            "threads": self.threads,
            **({"failure": self.failure} if self.failure is not None else {}),
            "microseconds": round(self.measured.seconds * _MICRO, 2),
            "kernels": [
                {**kernel.to_json(), "microseconds": round(seconds * _MICRO, 2)}
                for kernel, seconds in self.measured.kernels
            ],
        }


@dataclass
class Table:
    """A table in memory; `noted` has for each number of threads how wrong predictions of networks that were left out
    were, the logarithms of measured to predicted latency."""

    path: Path
    header: Header
    rows: list[Row] = field(default_factory=list)
    noted: dict[int, list[float]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Table:
        """Read a table, packed (`.gz`) or not; `InputError` where it is missing, damaged, or of another version."""
        lines = _lines(path)
        try:
            told = json.loads(next(lines)[1])
            version = told.pop("schema_version")
            if version != SCHEMA_VERSION:
                wrong = f"line 1 tells format {version} (`schema_version`), and {SCHEMA_VERSION} is read"
                raise InputError(f"{path}: {wrong}; {_CURE}")
            header = Header(**{**told, "capabilities": tuple(told["capabilities"])})
        except StopIteration:
            raise InputError(f"{path}: empty; {_CURE}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: line 1 is no table's: {error!r}; {_CURE}") from None
        table = cls(path, header)
        for number, line in lines:
            try:
                told = json.loads(line)
                if _ERRORS in told:
                    table.noted[int(told["threads"])] = [float(each) for each in told[_ERRORS]]
                else:
                    table.rows.append(Row.from_json(told))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                if not line.endswith("\n"):
                    break  # cut off by a kill
                raise InputError(
                    f"{path}: line {number} is damaged: {error!r}; remove the line, and it will be measured again"
                ) from None
        return table

    @classmethod
    def open(cls, path: Path, header: Header) -> Table:
        """Open a table to add to it, a new one where there is none; `InputError` where it was measured elsewhere, or is
        packed."""
        if path.suffix == ".gz":
            raise InputError(f"{path}: nothing is added to a packed table; unpack it, or name a file without .gz")
        if path.exists():
            table = cls.read(path)
            table.refuse_elsewhere(header)
            whole = "".join(line for _, line in _lines(path) if line.endswith("\n"))
        else:
            table = cls(path, header)
            whole = header.to_line() + "\n"
        # What a kill cut off is gone before anything is added.
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
        partial.write_text(whole, encoding="utf-8")
        partial.rename(path)
        return table

    def add(self, row: Row) -> None:
        """Add a row, to the file as well."""
        self.rows.append(row)
        self._append(row.to_json())

    def note(self, threads: int, errors: list[float]) -> None:
        """Note how wrong predictions are, in the file as well."""
        self.noted[threads] = errors
        self._append({"threads": threads, _ERRORS: [round(each, 4) for each in errors]})

    def _append(self, line: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def refuse_elsewhere(self, here: Header) -> None:
        """Refuse a table of another engine, version or CPU than this one by an `InputError` that names what differs."""
        for name, wanted in vars(here).items():
            found = getattr(self.header, name)
            if found != wanted:
                raise InputError(
                    f"{self.path}: measured with {name} {found!r}, here it is {wanted!r}: what it says does not hold "
                    f"here; measure a table with `python -m act.strategy.profile --target {here.engine}/cpu`"
                )

    @property
    def threads(self) -> list[int]:
        """List the numbers of threads that something was measured with, ascending."""
        return sorted({row.threads for row in self.rows if row.failure is None})

    def measured(self, threads: int) -> list[Measured]:
        """Return what was measured with so many threads."""
        return [row.measured for row in self.rows if row.threads == threads and row.failure is None]


def file_name(header: Header) -> str:
    """Name a machine's table of an engine: the same for the same engine, version and CPU."""
    digest = hashlib.sha256(header.to_line().encode()).hexdigest()[:8]
    return f"{header.engine}-{header.version}-{digest}.jsonl"


def find_table(header: Header, folder: Path = FOLDER) -> Table | None:
    """Return the table that was measured on such a machine; None where there is none."""
    for suffix in ("", ".gz"):
        path = folder / (file_name(header) + suffix)
        if path.exists():
            table = Table.read(path)
            table.refuse_elsewhere(header)
            return table
    return None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open("rb") as raw, gzip.open(raw) if path.suffix == ".gz" else raw as file:
            yield from enumerate(io.TextIOWrapper(file, encoding="utf-8"), start=1)
    except FileNotFoundError:
        raise InputError(f"{path}: no such table; {_CURE}") from None
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise InputError(f"{path}: cannot be read: {error}; copy it anew") from None
