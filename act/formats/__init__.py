"""Model files in, a program out. A format is a module in this folder, or an entry point of `act_pipeline.formats`.

It has three functions:

- `recognises(path)`: tell whether a file or folder looks like this format;
- `find(path, model_filename, params_filename)`: return the model's files, or raise `InputError`;
- `load(files)`: return the `InferenceModel`, or raise `InputError`.

A format that Paddle does not read itself names the engine that runs its files as they are, `RUNTIME`, beside which each
import is checked. It may have `GIVEN_NAMES`, what its files are called where engines load them, and more functions:

- `computes_in_half(files)`: tell whether the model computes in half precision, where its own runtime rounds more;
- `axis_names(files)`: return the names of each input's axes, where the import takes axes of one name as equally long;
- `first_difference(files, model, batch)`: name the first operator whose outputs differ from the runtime's.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from act.errors import InputError
from act.program.model import InferenceModel
from act.registry import FORMATS
from act.samples.dataset import Array, Samples


@dataclass(frozen=True)
class SourceModel:
    """A model as the user has it, and the files that it consists of, the program first."""

    files: tuple[Path, ...]
    format: str
    _module: ModuleType

    @classmethod
    def find(cls, path: Path, model_filename: str | None = None, params_filename: str | None = None) -> SourceModel:
        """Find a model by its folder or file; file names are needed where they are not the usual ones.

        Raises:
            InputError: there is no model of a known format.
        """
        # Paddle's takes any folder and says what it lacks: it comes last.
        formats = sorted(FORMATS.load_all().items(), key=lambda entry: entry[0] == "paddle")
        name, fitting = next((entry for entry in formats if entry[1].recognises(path)), ("", None))
        if fitting is None:
            raise InputError(
                f"{path}: no such folder, or no model of a known format ({', '.join(FORMATS.names())}); name an ONNX "
                "model, a .pdmodel file, or a folder with one of them"
            )
        return cls(tuple(fitting.find(path, model_filename, params_filename)), name, fitting)

    def load(self) -> InferenceModel:
        """Read the model in inference mode; `InputError` where a file is damaged, or does not fit the others."""
        model: InferenceModel = self._module.load(self.files)
        return model

    def copy_to(self, folder: Path) -> Path:
        """Copy the files into a new folder, and return what engines load: the first of them, as the format names it."""
        names: Sequence[str] = getattr(self._module, "GIVEN_NAMES", ())
        beside = self.files[0].parent
        for number, file in enumerate(self.files):
            target = folder / (names[number] if number < len(names) else file.relative_to(beside))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        return folder / (names[0] if names else self.files[0].name)

    @property
    def runtime(self) -> str | None:
        """Return the engine that runs the files as they are, which an import is checked against; None for Paddle's."""
        return getattr(self._module, "RUNTIME", None)

    def check(self, model: InferenceModel, samples: Samples, folder: Path) -> float | None:
        """Run an import beside the files' own runtime, as `check_import` has it."""
        from act.formats._comparison import check_import

        return check_import(self, model, samples, folder)

    def computes_in_half(self) -> bool:
        """Tell whether the model computes in half precision."""
        asked: Callable[[Sequence[Path]], bool] = getattr(self._module, "computes_in_half", lambda files: False)
        return asked(self.files)

    def check_axes(self, samples: Samples, origin: str) -> None:
        """Refuse samples whose axes are not as long as others to which the model gives the same name."""
        from act.formats._comparison import check_axes

        names: Callable[[Sequence[Path]], Mapping[str, Sequence[str]]]
        names = getattr(self._module, "axis_names", lambda files: {})
        check_axes(names(self.files), samples, origin)

    def first_difference(self, model: InferenceModel, batch: Mapping[str, Array]) -> str:
        """Return what computes something else than in the model's own runtime; empty where that cannot be told."""
        asked: Callable[..., str] = getattr(self._module, "first_difference", lambda *arguments: "")
        return asked(self.files, model, batch)
