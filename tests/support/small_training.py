"""A small network to train in a second, and what tests of training share."""

from __future__ import annotations

import numpy as np

from act.program.model import InferenceModel
from act.program.paddle_setup import CPU, paddle
from act.results.training import ComparedPart
from act.samples.dataset import Array
from act.training.distillation import DEFAULT, distillation_loss
from act.training.losses import Loss
from act.training.program import TrainingProgram


def convolutions(seed: int = 0) -> InferenceModel:
    """Build two convolutions and a classifier of three classes, softmax included; input x [N, 1, 8, 8]."""
    program, begin, scope = paddle.static.Program(), paddle.static.Program(), paddle.static.Scope()
    with (
        paddle.static.scope_guard(scope),
        paddle.static.program_guard(program, begin),
        paddle.utils.unique_name.guard(),
    ):
        paddle.enable_static()
        x = paddle.static.data("x", [-1, 1, 8, 8], "float32")
        hidden = paddle.nn.functional.relu(paddle.static.nn.conv2d(x, 4, 3, padding=1))
        hidden = paddle.nn.functional.relu(paddle.static.nn.conv2d(hidden, 8, 3, stride=2, padding=1))
        logits = paddle.static.nn.fc(paddle.flatten(hidden, 1), 3)
        output = paddle.nn.functional.softmax(logits)
        paddle.static.Executor(CPU).run(begin)
    model = InferenceModel(program, scope, ["x"], [output.name])
    rng = np.random.default_rng(seed)
    for name in model.weight_names():
        shape = model.weight(name).shape
        model.set_weight(name, rng.normal(scale=1 / np.sqrt(np.prod(shape[1:]) or 1), size=shape).astype(np.float32))
    return model


def default_loss(student: InferenceModel) -> Loss:
    """Return the default loss of the only output, for a teacher that has the student's variables."""
    (name,) = student.fetch_names
    producer = next(op for op in student.ops if name in op.output_arg_names)
    if producer.type == "softmax":
        name = str(producer.input("X")[0])
    part = ComparedPart(loss=DEFAULT, node=[name], teacher_node=[name], alpha=1.0, teacher=0)
    return distillation_loss([part])(student)


def feeds(program: TrainingProgram, batch: dict[str, Array], *teachers: InferenceModel) -> dict[str, Array]:
    """Return what a step on a batch takes."""
    return {**batch, **program.loss.targets(teachers, batch)}


def fetch(
    program: TrainingProgram, batch: dict[str, Array], teacher: InferenceModel, names: list[str] | None = None
) -> list[Array]:
    """Return variables of a step, by default the outputs of the forward pass; the program makes the step."""
    given, names = feeds(program, batch, teacher), names or list(program.student.fetch_names)
    with paddle.static.scope_guard(program.student.scope):
        found: list[Array] = paddle.static.Executor(CPU).run(program.program, feed=given, fetch_list=names)
    return found
