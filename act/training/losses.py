"""What a step of training makes smaller: the distance of a student to its teacher.

Training with distillation compares the outputs (`distillation`), reconstruction compares the ends of regions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from act.model import InferenceModel
from act.paddle_setup import paddle
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


def distillation(student: InferenceModel) -> Loss:
    """The distance of the outputs to the fp32 model's.

    Every output of real numbers counts with the squared error, as a share of the teacher's mean square. For one that is
    a softmax this is the error of its logits, and the cross entropy to the teacher's probabilities (soft labels; Hinton
    et al., 2015) is added: alone it says next to nothing where the teacher is certain, which for CTC is almost
    everywhere.

    Raises:
        ValueError: no output is of real numbers.
    """
    block = student.program.global_block()
    makers = {op.output_arg_names[0]: op for op in student.ops}
    losses: list[Any] = []
    teacher_names: list[str] = []
    targets: list[str] = []
    for name in student.fetch_names:
        maker, output = makers[name], block.var(name)
        if output.dtype != paddle.float32:
            continue
        from_softmax = maker.type == "softmax" and maker.attr("axis") in (-1, len(output.shape) - 1)
        compared = block.var(maker.input("X")[0]) if from_softmax else output
        error, target = _squared_error(compared, f"teacher_{len(targets)}")
        if from_softmax:
            wanted = paddle.nn.functional.softmax(target)
            error += paddle.nn.functional.softmax_with_cross_entropy(compared, wanted, soft_label=True).mean()
        losses.append(error)
        teacher_names.append(compared.name)
        targets.append(target.name)
    if not losses:
        raise ValueError("no output of the model is float32: there is nothing to learn from")
    return Loss(paddle.add_n(losses), teacher_names, targets)


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
            error, target = _squared_error(cut_gradient(student, name), f"teacher_{len(targets)}")
            losses.append(error)
            targets.append(target.name)
        return Loss(paddle.add_n(losses), list(ends), targets)

    return add_loss


def _squared_error(compared: Any, name: str) -> tuple[Any, Any]:
    """The error as a share of the target's mean square, and the feed that takes the target."""
    target = paddle.static.data(name, [-1] * len(compared.shape), "float32")
    return ((compared - target) ** 2).mean() / ((target**2).mean() + _SMALLEST_MEAN_SQUARE), target
