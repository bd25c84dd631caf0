"""Model files in, a program out. A format is a module in this folder, or an entry point of `act_pipeline.formats`.

It has three functions:

- `recognises(path)`: tell whether a file or folder looks like this format;
- `find(path, model_filename, params_filename)`: return the model's files, or raise `InputError`;
- `load(files)`: return the `InferenceModel`, or raise `InputError`.

A format that Paddle does not read itself names the engine that runs its files as they are, `RUNTIME`, beside which each
import is checked. Where only an environment apart from ours can read them, it has neither: it names that environment,
`ENVIRONMENT` (`act.environments`), and the module that its Python runs, `WORKER` (`act/formats/_worker.py`), which
converts the files to an ONNX model that is imported in their place, and runs them as they are. Where the files do not
say what their inputs are, it has `NEEDS_INPUTS`, and the worker finds in `INPUTS_FILE` what the job says of them.

A format may have `GIVEN_NAMES`, what its files are called where engines load them, or `GIVEN_FOLDER`, true where they
load the folder with the files and not the first of them, and more functions:

- `copy_to(files, folder)`: write the model into a new folder as engines load it, where that is not a copy of each file,
  and return what they load;
- `runtime_lacks()`: return what is missing for `RUNTIME` to run here, with the cure; None where nothing is. Imports are
  not run beside it then;
- `engines_load(files)`: tell whether engines that load this format load this model, too;
- `computes_in_half(files)`: tell whether the model computes in half precision, where its own runtime rounds more;
- `axis_names(files)`: return the names of each input's axes, where the import takes axes of one name as equally long;
- `first_difference(files, model, batch)`: name the first operator whose outputs differ from the runtime's;
- `split(files)`: return the model in two parts, a `SplitModel`; without it the program that `load` returns is cut.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from act.errors import InputError
from act.registry import FORMATS
from act.samples.dataset import Array, Samples

if TYPE_CHECKING:  # workers of other environments import this too, where there is no Paddle
    from act.environments import Environment
    from act.program.model import InferenceModel
    from act.tail.split import SplitModel, Tail

CONVERTED = "onnx"
"""The format that files of other environments are converted to."""
_COMPARED_TAILS = 4  # samples on which the forms of a tail must agree


@dataclass(frozen=True)
class SourceModel:
    """A model as the user has it, and the files that it consists of, the program first.

    Attributes:
        inputs: shape and dtype of each input, where the files do not say them.
    """

    files: tuple[Path, ...]
    format: str
    _module: ModuleType
    inputs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def find(
        cls,
        path: Path,
        model_filename: str | None = None,
        params_filename: str | None = None,
        inputs: Mapping[str, Any] | None = None,
    ) -> SourceModel:
        """Find a model by its folder or file; file names are needed where they are not the usual ones.

        Args:
            inputs: a `shape` and a `dtype` for each input, for formats that do not say them.

        Raises:
            InputError: there is no model of a known format, or its format says what the inputs are.
        """
        asked = path if model_filename is None else path / model_filename
        name, fitting = next((entry for entry in FORMATS.load_all().items() if entry[1].recognises(asked)), ("", None))
        if fitting is None:
            raise InputError(_why_unknown(asked))
        if inputs and not getattr(fitting, "NEEDS_INPUTS", False):
            raise InputError(f"{asked}: the model says itself what its inputs are; remove `model.inputs`")
        return cls(tuple(fitting.find(path, model_filename, params_filename)), name, fitting, inputs or {})

    def load(self) -> InferenceModel:
        """Read the model in inference mode.

        Raises:
            InputError: a file is damaged, or does not fit the others, or cannot be converted.
        """
        with self._under_its_name():
            model: InferenceModel = self._converted._module.load(self._converted.files)
        return model

    def given(self) -> SourceModel:
        """Return the model that engines load as the user's: the ONNX model made of it where none opens its files."""
        from act.engines.spec import all_specs

        asked: Callable[[Sequence[Path]], bool] = getattr(self._module, "engines_load", lambda files: True)
        opened = any(self.format in spec.opens for spec in all_specs()) and asked(self.files)
        return self if opened else self._converted

    def split(self) -> SplitModel:
        """Read the model as its body, in inference mode, and its tail; `InputError` as `load`."""
        converted = self._converted
        if (asked := getattr(converted._module, "split", None)) is None:
            from act.formats._paddle_tail import split

            return split(self.load())
        with self._under_its_name():
            parts: SplitModel = asked(converted.files)
        return parts

    def copy_to(self, folder: Path) -> Path:
        """Copy the files into a new folder, and return what engines load: the first of them, as the format names it,
        or the folder."""
        folder.mkdir(parents=True)
        copy: Callable[[Sequence[Path], Path], Path] | None = getattr(self._module, "copy_to", None)
        if copy is not None:
            return copy(self.files, folder)
        names: Sequence[str] = getattr(self._module, "GIVEN_NAMES", ())
        beside = self.files[0].parent
        for number, file in enumerate(self.files):
            target = folder / (names[number] if number < len(names) else file.relative_to(beside))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        if getattr(self._module, "GIVEN_FOLDER", False):
            return folder
        return folder / (names[0] if names else self.files[0].name)

    @property
    def runtime(self) -> str | None:
        """Return the engine that runs the files as they are, which an import is checked against; None for Paddle's."""
        return getattr(self._module, "RUNTIME", None)

    @property
    def environment(self) -> Environment | None:
        """Return the environment apart from ours that converts the files and runs them; None where ours reads them."""
        return getattr(self._module, "ENVIRONMENT", None)

    @property
    def environment_title(self) -> str:
        """Return the name for people of what reads the files in that environment."""
        return self.environment.title if self.environment is not None else self.format

    @property
    def worker(self) -> str:
        """Return the module that the environment's Python runs."""
        name: str = self._module.WORKER
        return name

    def runtime_lacks(self) -> str | None:
        """Return what is missing here to run the files as they are, with the cure; None where nothing is."""
        asked: Callable[[], str | None] = getattr(self._module, "runtime_lacks", lambda: None)
        return asked()

    def check(
        self, model: InferenceModel, samples: Samples, folder: Path, file: Path | None = None, by_sample: bool = True
    ) -> float | None:
        """Run an import beside the files' own runtime, as `check_import` has it.

        Args:
            file: what is run instead of the user's, where the import is of that: without its tail, or without rounding.
        """
        from act.formats._comparison import check_import

        return check_import(self, model, samples, folder, file or self.files[0], by_sample)

    def save_tail(self, tail: Tail, body: InferenceModel, samples: Samples, folder: Path) -> Path:
        """Write a tail, and the model without it, as `act.tail.files` has it; its forms are compared on samples."""
        from act.formats._comparison import difference_of_tails
        from act.program.outputs import checked_outputs
        from act.tail.files import save_tail

        feeds = []
        for batch in replace(samples.head(_COMPARED_TAILS), largest_batch=1).batches(1):
            outputs = checked_outputs(body, batch, f"{self.files[0]}: on the first calibration samples")
            feeds.append({**batch, **dict(zip(body.fetch_names, outputs))})
        return save_tail(tail, folder, lambda file, program: difference_of_tails(file, program, feeds, tail))

    def computes_in_half(self) -> bool:
        """Tell whether the model computes in half precision."""
        answer: bool = self._ask("computes_in_half", False)
        return answer

    def check_axes(self, samples: Samples, origin: str) -> None:
        """Refuse samples whose axes are not as long as others to which the model gives the same name."""
        from act.formats._comparison import check_axes

        names: Mapping[str, Sequence[str]] = self._ask("axis_names", {})
        check_axes(names, samples, origin)

    def first_difference(self, model: InferenceModel, batch: Mapping[str, Array]) -> str:
        """Return what computes something else than in the file that was imported; empty where that cannot be told."""
        answer: str = self._ask("first_difference", "", model, batch)
        return answer

    @cached_property
    def _converted(self) -> SourceModel:
        """Return the model that is imported: itself, or the ONNX model that its environment makes of it, once."""
        if self.environment is None:
            return self
        from act.formats._apart import convert
        from act.formats._worker import INPUTS_FILE

        folder = Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        (folder / INPUTS_FILE).write_text(json.dumps(self.inputs), encoding="utf-8")
        convert(self, folder)
        module = FORMATS.load(CONVERTED)
        return SourceModel(tuple(module.find(folder, None, None)), CONVERTED, module)

    @contextmanager
    def _under_its_name(self) -> Iterator[None]:
        """Let an `InputError` name the user's file where it names one that was made of it, which nobody has seen."""
        try:
            yield
        except InputError as error:
            if self._converted is self:
                raise
            message = str(error).replace(str(self._converted.files[0]), f"{self.files[0]}, as ONNX")
            raise InputError(message) from None

    def _ask(self, question: str, default: Any, *arguments: Any) -> Any:
        """Return what the format of the imported file answers; the default where it has no such function."""
        asked: Callable[..., Any] | None = getattr(self._converted._module, question, None)
        return default if asked is None else asked(self._converted.files, *arguments)


def _why_unknown(asked: Path) -> str:
    """Return why no format recognises a path, and what to name instead."""
    from act.formats._refusals import refusal

    if not asked.exists():
        return f"{asked}: no such folder or file; name a model, or a folder with one"
    return refusal(asked) or (
        f"{asked}: no model of a known format ({', '.join(FORMATS.names())}); name the file of a model, or the folder "
        "of one of Paddle, ONNX or TensorFlow (SavedModel)"
    )
