"""The losses of distillation and of reconstruction, as functions of variables of the program under construction.

Classes are on the last axis of logits. PaddleSlim's `fsp` calls a function that Paddle 2.6 lacks, and its `dkd` gives
`kl_div` probabilities in the place of their logarithms.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.samples.dataset import Array

_SMALLEST_MEAN_SQUARE = 1e-12
_SMALLEST_VARIANCE = 1e-7
_FAR_BELOW = 1e5


@dataclass(frozen=True)
class Loss:
    """The loss that a step minimises.

    Attributes:
        variable: the loss, in the student's program.
        compared: for each feed of a target the number of the teacher, and its variable that the feed takes.
    """

    variable: Any
    compared: Mapping[str, tuple[int, str]]

    def targets(self, teachers: Sequence[InferenceModel], batch: Mapping[str, Array]) -> dict[str, Array]:
        """Return the teachers' values for a batch, by feed, each teacher run once."""
        targets: dict[str, Array] = {}
        for number, teacher in enumerate(teachers):
            names = {feed: name for feed, (other, name) in self.compared.items() if other == number}
            if names:
                targets |= zip(names, teacher.run(batch, list(names.values())))
        return targets


# Adds the loss to the student's program.
AddLoss = Callable[[InferenceModel], Loss]


def squared_error(student: Any, teacher: Any) -> Any:
    """Return the mean squared error as a share of the teacher's mean square."""
    # Not `**`: Paddle's power takes ten times as long.
    return paddle.square(student - teacher).mean() / (paddle.square(teacher).mean() + _SMALLEST_MEAN_SQUARE)


def cross_entropy(student: Any, teacher: Any) -> Any:
    """Return the mean cross entropy of logits to the teacher's probabilities (soft labels; Hinton et al., 2015).

    Spherical where both are `on_sphere`: Guo et al., "Reducing the teacher-student gap via spherical knowledge
    distillation", 2020.
    """
    probabilities = paddle.nn.functional.softmax(teacher)
    return paddle.nn.functional.softmax_with_cross_entropy(student, probabilities, soft_label=True).mean()


def on_sphere(logits: Any, teacher: Any) -> Any:
    """Return logits without their mean, of the teacher's standard deviation."""
    centred = logits - logits.mean(axis=-1, keepdim=True)
    length = paddle.sqrt((centred**2).mean(axis=-1, keepdim=True) + _SMALLEST_VARIANCE)
    spread = teacher - teacher.mean(axis=-1, keepdim=True)
    return centred / length * paddle.sqrt((spread**2).mean(axis=-1, keepdim=True))


def decoupled(student: Any, teacher: Any, beta: float) -> Any:
    """Return the divergence "target or not", and `beta` times that among the other classes.

    The target is the teacher's likeliest class, for there are no labels (Zhao et al., "Decoupled knowledge
    distillation", 2022, equation 7, with a weight of 1 for the target class).
    """
    classes = student.shape[-1] if student.shape[-1] > 0 else paddle.shape(student)[-1]
    is_target = paddle.nn.functional.one_hot(paddle.argmax(teacher, axis=-1), classes)
    (mine, mine_among), (theirs, theirs_among) = (_split(logits, is_target) for logits in (student, teacher))
    target = (paddle.exp(theirs) * (theirs - mine)).sum(axis=-1).mean()
    others = (paddle.exp(theirs_among) * (theirs_among - mine_among)).sum(axis=-1).mean()
    return target + others * beta


def _split(logits: Any, is_target: Any) -> tuple[Any, Any]:
    """Return the log-probabilities "target" and "not", [..., 2], and of the other classes among themselves."""
    without = logits - is_target * _FAR_BELOW
    whole = paddle.logsumexp(logits, axis=-1, keepdim=True)
    among = paddle.logsumexp(without, axis=-1, keepdim=True)
    target = (logits * is_target).sum(axis=-1, keepdim=True)
    # The target's own place, whose probability among the others is 0, is the same in both models.
    others = (without - among) * (1 - is_target) - is_target * _FAR_BELOW
    return paddle.concat([target - whole, among - whole], axis=-1), others


def gram(first: Any, second: Any) -> Any:
    """Return the mean products of [N, C1, H, W] and [N, C2, H, W] over all places: [N, C1, C2].

    Its squared error is the "flow of solution procedure" (Yim et al., "A gift from knowledge distillation", 2017).
    """
    rows = [paddle.flatten(features, start_axis=2) for features in (first, second)]
    places = paddle.cast(paddle.shape(rows[0])[2], "float32")
    return paddle.matmul(rows[0], rows[1], transpose_y=True) / places
