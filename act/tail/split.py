"""A model in two parts, as a format reads it: the body, which all stages work on, and the tail, which stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from act.program.model import InferenceModel
from act.results.quantization import GivenQuantization
from act.samples.dataset import FeedSpec, Samples

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Tail:
    """What stands behind the body, and reads its outputs and maybe the model's inputs.

    Attributes:
        operators: its types of operators, in order.
        outputs: of the whole model, in the user's order.
        whole: numbers of those whose first axis is not the batch.
        own_form: the place in `act.tail.files.FORMS` of the form that it has in the user's model.
        to_onnx: returns it as an ONNX model; `InputError` where it has no such form.
        to_program: returns it as a Paddle program; `InputError` likewise.
        save_body: writes the user's model without its tail into a folder; returns what engines load.
    """

    operators: list[str]
    outputs: list[FeedSpec]
    whole: list[int]
    own_form: int
    to_onnx: Callable[[], onnx.ModelProto]
    to_program: Callable[[], InferenceModel]
    save_body: Callable[[Path], Path]

    @property
    def by_sample(self) -> list[FeedSpec]:
        """Return the outputs as metrics see them: behind the batch axis all that belongs to one sample."""
        return [
            replace(each, shape=(-1, *each.shape)) if number in self.whole else each
            for number, each in enumerate(self.outputs)
        ]


@dataclass(frozen=True)
class SplitModel:
    """A model as it was read: its body as a program, and its tail, if there is one.

    Attributes:
        rounding: what the user's model rounds, by names of the body; None where that is not quantized.
        outputs_as_given: returns the body's outputs of samples, as the user's model computes them with its rounding,
            given a folder for what does not fit in memory; None where that is not quantized.
        save_float: writes the user's model without rounding into a folder, and returns what its runtime loads; None
            where it is not quantized, or nothing else runs such a model.
        whole: both in one program, where the tail was cut off that: it is what is run beside the user's files.
    """

    body: InferenceModel
    tail: Tail | None
    rounding: GivenQuantization | None = None
    outputs_as_given: Callable[[Samples, Path], Samples] | None = None
    save_float: Callable[[Path], Path] | None = None
    whole: InferenceModel | None = None
