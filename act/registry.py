"""What plugs in: engines, formats, readers, metrics, threshold rules and pruning criteria.

An entry is a module (or a package) in the folder of its kind; its name is the entry's name. A name with an underscore
first is none. Naming the entries imports none of them, so that the settings can offer what may not even be installed.

Another distribution adds an entry through an entry point of the group `act_pipeline.KIND`, where KIND is the last part
of the package's name: `brier = "my_package.brier"` in its `[project.entry-points."act_pipeline.metrics"]` adds the
metric `brier`. Every process that finds the distribution on its path has the entry, the engines' processes too.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType


@dataclass(frozen=True)
class Registry:
    """The entries of one kind."""

    package: str  # where they are
    folders_only: bool = False  # single modules of the package are no entries

    def names(self) -> list[str]:
        """Return the names of all entries, sorted; imports none."""
        return sorted({*_inside(self.package, self.folders_only), *self.outside()})

    def check(self, name: str) -> str:
        """Return a name that an entry has.

        Raises:
            ValueError: there is no such entry; the message lists those there are.
        """
        return one_of(self.names(), name)

    def load(self, name: str) -> ModuleType:
        """Import an entry; one of the package goes before one from outside.

        Raises:
            ValueError: there is no such entry.
            ImportError: it lacks something.
        """
        if name in _inside(self.package, self.folders_only):
            return importlib.import_module(f"{self.package}.{name}")
        return importlib.import_module(self.outside()[self.check(name)].value)

    def outside(self) -> dict[str, EntryPoint]:
        """Return the entries of other distributions."""
        return _entry_points(f"act_pipeline.{self.package.rpartition('.')[2]}", tuple(sys.path))


def one_of(choices: Sequence[str], name: str) -> str:
    """Return a name that is one of the choices.

    Raises:
        ValueError: it is none; the message lists them as pydantic does.
    """
    if name not in choices:
        *others, last = (f"'{choice}'" for choice in choices)
        raise ValueError(f"Input should be {', '.join(others)}{' or ' if others else ''}{last}")
    return name


ENGINES = Registry("act.engines", folders_only=True)
FORMATS = Registry("act.formats")
READERS = Registry("act.samples.readers")
METRICS = Registry("act.metrics")
THRESHOLDS = Registry("act.quantization.thresholds")
CRITERIA = Registry("act.pruning.criteria")


def plugged_in(names: Collection[str]) -> dict[str, str]:
    """Return the version of each other distribution that has an entry of one of these names.

    Or a format or threshold rule of any name: those are tried without being named.
    """
    found = {}
    for kind in (ENGINES, FORMATS, READERS, METRICS, THRESHOLDS, CRITERIA):
        for name, entry in kind.outside().items():
            if entry.dist is not None and (name in names or kind in (FORMATS, THRESHOLDS)):
                found[entry.dist.name] = entry.dist.version
    return dict(sorted(found.items()))


@cache
def _inside(package: str, folders_only: bool) -> frozenset[str]:
    folder = Path(__file__).parent.joinpath(*package.split(".")[1:])
    modules = pkgutil.iter_modules([str(folder)])
    return frozenset(m.name for m in modules if not m.name.startswith("_") and (m.ispkg or not folders_only))


@cache
def _entry_points(group: str, path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name; `path` is what they depend on."""
    return {entry.name: entry for entry in entry_points(group=group)}
