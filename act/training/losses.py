"""What a step of training makes smaller: the distance of a student to its teacher.

Reconstruction compares the ends of regions; `act/training/distillation.py` has the losses of distillation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.training.graph import cut_gradient

_SMALLEST_MEAN_SQUARE = 1e-12


@dataclass(frozen=True)
class Loss:
    """What a step makes smaller.

    Attributes:
        variable: the loss, in the student's program.
        teacher_names: variables of the teacher whose values a step compares with, in order.
        targets: the feeds that take those values.
        teacher_numbers: which teacher has each of them, where there are several.
    """

    variable: Any
    teacher_names: list[str]
    targets: list[str]
    teacher_numbers: list[int] = field(default_factory=list)


# Adds the loss to the student's program.
AddLoss = Callable[[InferenceModel], Loss]


def reconstruction(ends: Sequence[str]) -> AddLoss:
    """The loss of regions that are trained side by side, each on what the quantized regions before it give.

    The end of every region is compared with the fp32 model's, as a share of its mean square, and no gradient passes
    from one region into the one before it.

    Args:
        ends: float32 variables, the last of each region.
    """

    def add_loss(student: InferenceModel) -> Loss:
        losses: list[Any] = []
        targets: list[str] = []
        for name in ends:
            compared = cut_gradient(student, name)
            target = paddle.static.data(f"teacher_{len(targets)}", [-1] * len(compared.shape), "float32")
            losses.append(squared_error(compared, target))
            targets.append(target.name)
        return Loss(paddle.add_n(losses), list(ends), targets)

    return add_loss


def squared_error(compared: Any, target: Any) -> Any:
    """The mean squared error as a share of the target's mean square."""
    return ((compared - target) ** 2).mean() / ((target**2).mean() + _SMALLEST_MEAN_SQUARE)
