"""What plugs in: engines, formats, readers, metrics, threshold rules and pruning criteria.

An entry is a module (or a package) in the folder of its kind; its name is the entry's name. A name with an underscore
first is none. Naming the entries imports none of them, so that the settings can offer what may not even be installed.

Another distribution adds an entry through an entry point of the group `act_pipeline.KIND`, where KIND is the last part
of the package's name: `brier = "my_package.brier"` in its `[project.entry-points."act_pipeline.metrics"]` adds the
metric `brier`. Every process that finds the distribution on its path has the entry, the engines' processes too.
"""

import importlib
import importlib.util
import logging
import pkgutil
import sys
import sysconfig
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Registry:
    """The entries of one kind."""

    package: str  # where they are
    folders_only: bool = False  # single modules of the package are no entries

    def names(self) -> list[str]:
        """Return the names of all entries, sorted; imports none."""
        return sorted({*self._inside, *self.outside()})

    def check(self, name: str) -> str:
        """Return the name of an entry; `ValueError` as `load` has it. Only entries from outside are imported."""
        one_of(self.names(), name)
        if name not in self._inside:
            self.load(name)
        return name

    def load(self, name: str) -> ModuleType:
        """Import an entry; one of the package goes before one from outside.

        Raises:
            ValueError: there is no such entry, or one from outside cannot be imported; the message says why.
        """
        if name in self._inside:
            return importlib.import_module(f"{self.package}.{name}")
        entry = self.outside()[one_of(self.names(), name)]
        try:
            return importlib.import_module(entry.value)
        except Exception as error:  # whatever the code of others raises
            raise ValueError(f"`{name}` cannot be imported: {type(error).__name__}: {error}") from error

    def load_all(self) -> dict[str, ModuleType]:
        """Import all entries; one that cannot be imported is left out with a warning, and refused where it is named."""
        entries = {}
        for name in self.names():
            try:
                entries[name] = self.load(name)
            except ValueError as error:
                log.warning("%s: %s; it is left out", self.package, error)
        return entries

    @cached_property
    def _inside(self) -> frozenset[str]:
        folder = Path(__file__).parent.joinpath(*self.package.split(".")[1:])
        modules = pkgutil.iter_modules([str(folder)])
        return frozenset(m.name for m in modules if m.name[0] != "_" and (m.ispkg or not self.folders_only))

    def outside(self) -> dict[str, EntryPoint]:
        """Return the entries of other distributions."""
        return _entry_points(f"act_pipeline.{self.package.rpartition('.')[2]}", tuple(sys.path))


def one_of(choices: Sequence[str], name: str) -> str:
    """Return a name that is one of the choices; `ValueError`, which lists them as pydantic does, where it is none."""
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


def users_function(name: str, project: Path | None = None) -> Callable[..., Any]:
    """Import a function of the user's, `package.module:function`, from the project's folder or an installed package.

    Args:
        project: the folder; this one when left out.

    Raises:
        ValueError: there is none, or it would come from elsewhere, of which nothing runs; the message says why.
    """
    module_name, _, function_name = name.partition(":")
    _refuse_strangers(module_name, (project or Path.cwd()).resolve())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(f"is {name!r}, but there is no module `{error.name}`; correct the name") from None
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ValueError(f"is {name!r}, but {module.__file__} has no function `{function_name}`")
    found: Callable[..., Any] = function
    return found


def _refuse_strangers(module_name: str, project: Path) -> None:
    """Refuse a module that is neither the user's nor installed, before any of it runs."""
    top = module_name.partition(".")[0]
    if str(project) not in (str(Path(entry or ".").resolve()) for entry in sys.path):
        sys.path.insert(0, str(project))
    allowed = [project, *(Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib"))]
    spec = importlib.util.find_spec(top)
    named = f"names the module `{module_name}`"
    if spec is None:
        raise ValueError(f"{named}, but there is no `{top}` in {project} and none is installed")
    places = [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or [])
    if not places or not all(any(Path(p).resolve().is_relative_to(root) for root in allowed) for p in places):
        where = f"in {places[0]}" if places else "a part of Python"
        cure = f"only modules of the project's folder {project} and of installed packages are used"
        raise ValueError(f"{named}, which is {where}; {cure}")


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
def _entry_points(group: str, path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name; `path` is what they depend on."""
    return {entry.name: entry for entry in entry_points(group=group)}
