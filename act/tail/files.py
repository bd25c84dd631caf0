"""A tail on the disk, as `prepare` leaves it, and models that get it back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from act.errors import InputError
from act.results.tail import TAIL_FILE, TailDescription

if TYPE_CHECKING:  # workers that measure trials import this, and need neither ONNX nor Paddle
    from act.tail.split import Tail

log = logging.getLogger(__name__)

FORMS = ("ONNX", "Paddle")
_ONNX_FILE = "tail.onnx"
_GIVEN = "given"


def save_tail(tail: Tail, folder: Path, differ: Callable[[Path, Path], str]) -> Path:
    """Write a tail into a new folder, in each form that it has; return the user's model without it, as engines load it.

    Args:
        differ: tells how the tail's ONNX file and the program in a folder differ; empty where they do not.
    """
    folder.mkdir()
    writers = (_write_onnx, _write_program)
    writers[tail.own_form](tail, folder)
    lacks: dict[str, str] = {}
    try:
        writers[not tail.own_form](tail, folder)
        if cause := differ(folder / _ONNX_FILE, folder):
            raise InputError(cause)
    except InputError as error:
        form = FORMS[not tail.own_form]
        lacks[form] = str(error)
        log.info(f"the tail ({', '.join(tail.operators)}) is not put back in files for {form}: {error}")
    (folder / _GIVEN).mkdir()
    given = tail.save_body(folder / _GIVEN)
    TailDescription(
        operators=tail.operators,
        outputs=[each.name for each in tail.outputs],
        whole=tail.whole,
        lacks=lacks,
        given=given.relative_to(folder).as_posix(),
    ).write(folder / TAIL_FILE)
    return given


def _write_onnx(tail: Tail, folder: Path) -> None:
    import onnx

    onnx.save(tail.to_onnx(), folder / _ONNX_FILE)


def _write_program(tail: Tail, folder: Path) -> None:
    tail.to_program().save(folder)


@dataclass(frozen=True)
class SavedTail:
    """A tail that `save_tail` wrote."""

    folder: Path
    description: TailDescription

    @classmethod
    def read(cls, folder: Path) -> SavedTail:
        """Read it."""
        return cls(folder, TailDescription.read(folder / TAIL_FILE))

    def lacks(self, body: Path) -> str | None:
        """Return why a model cannot get the tail back; None where it can."""
        return self.description.lacks.get(FORMS[body.is_dir()])

    def put_back(self, body: Path, target: Path) -> None:
        """Write a model with the tail behind it.

        Args:
            body: an ONNX file, or a folder with a Paddle program.
            target: the file to write, or an existing folder.

        Raises:
            InputError: the tail has no such form, or the two cannot be put together.
        """
        if (cause := self.lacks(body)) is not None:
            raise InputError(f"no tail ({', '.join(self.description.operators)}): {cause}")
        if body.is_dir():
            from act.program.model import InferenceModel
            from act.program.parts import join

            ahead, behind = InferenceModel.load(body), InferenceModel.load(self.folder)
            join(ahead, behind, self.description.outputs).save(target)
        else:
            import onnx

            from act.onnx_graph.append import append

            whole = append(onnx.load(body), onnx.load(self.folder / _ONNX_FILE), self.description.outputs)
            onnx.save(whole, target)
