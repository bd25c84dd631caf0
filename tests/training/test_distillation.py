"""Each loss gives what its paper says, on the variables that were named or found, from one teacher or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.special as sp  # type: ignore[import-untyped]

from act.errors import InputError
from act.program.model import InferenceModel
from act.samples.dataset import Ragged, Samples
from act.settings import Distillation, ModelSource, TrainConfig
from act.training.distillation import distillation_loss, load_teachers, plan_distillation
from act.training.program import build, trainable_weights
from tests.formats.onnx.support import imported, model_of, node
from tests.support.small_training import convolutions, default_loss, feeds

BATCH = {"x": np.random.default_rng(1).normal(size=(6, 1, 8, 8)).astype(np.float32)}
SETTINGS = TrainConfig(learning_rate=1e-2)
Floats = npt.NDArray[Any]


@pytest.fixture(scope="module")
def teacher() -> InferenceModel:
    return convolutions()


@pytest.fixture(scope="module")
def student() -> InferenceModel:
    return convolutions(seed=5)


def logits(model: InferenceModel) -> str:
    return str(next(op for op in model.ops if op.type == "softmax").input("X")[0])


def losses(student: InferenceModel, teachers: Sequence[InferenceModel], settings: Distillation, steps: int = 1) -> Any:
    """The loss before each step."""
    add = distillation_loss(plan_distillation(settings, student, teachers, BATCH), settings.temperature, settings.beta)
    names = trainable_weights(student, None)
    program = build(student, None, add, names, SETTINGS, steps)
    return [program.step(feeds(program, BATCH, *teachers)) for _ in range(steps)]


def relative(a: Floats, b: Floats) -> float:
    return float(((a - b) ** 2).mean() / (b**2).mean())


def cross_entropy(a: Floats, b: Floats) -> float:
    return float(-(sp.softmax(b, -1) * sp.log_softmax(a, -1)).sum(-1).mean())


def kl(p: Floats, q: Floats) -> float:
    return float((p * (np.log(p) - np.log(q))).sum(-1).mean())


def soft_label(a: Floats, b: Floats) -> float:
    return cross_entropy(a / 2, b / 2) * 4


def dkd(a: Floats, b: Floats) -> float:
    """Row by row, from the paper's equations 1 to 7."""
    target, parts = b.argmax(-1), []
    for mine, wanted, place in zip(sp.softmax(a / 2, -1), sp.softmax(b / 2, -1), target):
        binary = [np.array([p[place], 1 - p[place]]) for p in (wanted, mine)]
        among = [np.delete(p, place) / (1 - p[place]) for p in (wanted, mine)]
        parts.append(kl(*binary) + 3 * kl(*among))
    return float(np.mean(parts)) * 4


def skd(a: Floats, b: Floats) -> float:
    scaled = [(x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True) * b.std(-1, keepdims=True) for x in (a, b)]
    return cross_entropy(*scaled)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("l2", relative),
        ("soft_label", soft_label),
        ("dkd", dkd),
        ("skd", skd),
        (None, lambda a, b: relative(a, b) + cross_entropy(a, b)),
    ],
)
def test_losses_of_logits(
    student: InferenceModel, teacher: InferenceModel, name: Any, expected: Callable[[Floats, Floats], float]
) -> None:
    mine, wanted = (model.run(BATCH, [logits(model)])[0].astype(np.float64) for model in (student, teacher))
    found = losses(student, [teacher], Distillation(loss=name, temperature=2.0, beta=3.0), steps=20)
    assert found[0] == pytest.approx(expected(mine, wanted), rel=1e-4)
    least = expected(wanted, wanted)
    assert found[-1] - least < 0.9 * (found[0] - least)


def gram(a: Floats, b: Floats) -> Floats:
    found: Floats = np.einsum("nchw,ndhw->ncd", a, b) / (a.shape[2] * a.shape[3])
    return found


def test_fsp_compares_gram_matrices(student: InferenceModel, teacher: InferenceModel) -> None:
    inner = [str(op.output_arg_names[0]) for op in student.ops if op.type == "conv2d"]
    after = [str(op.output_arg_names[0]) for op in student.ops if op.type == "relu"]
    mine, wanted = (gram(*model.run(BATCH, [inner[1], after[1]])) for model in (student, teacher))
    found = losses(student, [teacher], Distillation(loss="fsp", node=[inner[1], after[1]]), steps=20)
    assert found[0] == pytest.approx(relative(mine, wanted), rel=1e-4)
    assert found[-1] < 0.9 * found[0]


def test_several_losses_are_weighed_and_added(student: InferenceModel, teacher: InferenceModel) -> None:
    node = [[logits(student)], [str(op.output_arg_names[0]) for op in student.ops if op.type == "relu"]]
    together = losses(student, [teacher], Distillation(loss=["soft_label", "l2"], node=node, alpha=[0.5, 2.0]))[0]
    alone = [losses(student, [teacher], Distillation(loss="l2", node=[name])) for name in node[1]]
    soft = losses(student, [teacher], Distillation(loss="soft_label"))[0]
    assert together == pytest.approx(0.5 * soft + 2 * sum(part[0] for part in alone), rel=1e-4)


def test_several_teachers_each_have_their_part(student: InferenceModel, teacher: InferenceModel) -> None:
    other = convolutions(seed=9)
    sources = [ModelSource(path="one"), ModelSource(path="other")]
    both = Distillation(loss="l2", alpha=[1.0, 0.25], teachers=sources)
    single = [losses(student, [model], Distillation(loss="l2"))[0] for model in (teacher, other)]
    assert losses(student, [teacher, other], both)[0] == pytest.approx(single[0] + 0.25 * single[1], rel=1e-5)


def test_a_teacher_that_calls_axes_alike_which_differ_in_a_sample_is_refused(tmp_path: Path) -> None:
    nodes = [node("Relu", "x", "y"), node("Relu", "z", "w")]
    proto = model_of(nodes, {"x": ["N", "L"], "z": ["N", "L"]}, ["y", "w"])
    path = tmp_path / "teacher.onnx"
    path.write_bytes(proto.SerializeToString())
    settings, given = Distillation(teachers=[ModelSource(path=str(path))]), imported(proto)

    def samples(*lengths: int) -> Samples:
        x, z = ([np.zeros(each, np.float32) for each in part] for part in ((3, 4), lengths))
        return Samples({"x": Ragged.of(x), "z": Ragged.of(z)})

    load_teachers(settings, given, given, samples(3, 4), 2)
    with pytest.raises(InputError, match=r"teacher.onnx on the calibration samples: sample 1: axis 1 of `z`.* `L`"):
        load_teachers(settings, given, given, samples(3, 5), 2)


def test_the_default_is_what_training_has_always_compared(student: InferenceModel, teacher: InferenceModel) -> None:
    names = trainable_weights(student, None)
    program = build(student, None, default_loss, names, SETTINGS, 1)
    assert list(program.loss.compared.values()) == [(0, logits(teacher))]
    expected = losses(student, [teacher], Distillation())[0]
    assert program.step(feeds(program, BATCH, teacher)) == expected


def test_variables_are_found(student: InferenceModel, teacher: InferenceModel) -> None:
    (part,) = plan_distillation(Distillation(loss="dkd"), student, [teacher], BATCH)
    assert (part.loss, part.node, part.teacher_node) == ("dkd", [logits(student)], [logits(teacher)])
    assert (part.alpha, part.teacher) == (1.0, 0)


def test_a_teachers_variable_may_have_another_name(student: InferenceModel, teacher: InferenceModel) -> None:
    first, second = (str(op.output_arg_names[0]) for op in student.ops if op.type == "relu")
    (part,) = plan_distillation(Distillation(loss="l2", node=[f"teacher_{first}", first]), student, [teacher], BATCH)
    assert (part.node, part.teacher_node) == ([first], [first])
    with pytest.raises(InputError, match="shape"):
        plan_distillation(Distillation(loss="l2", node=[f"teacher_{first}", second]), student, [teacher], BATCH)


@pytest.mark.parametrize(
    ("settings", "fragments"),
    [
        (Distillation(loss="l2", node=["softmax_O.tmp_0"]), ["softmax_O.tmp_0", "near it: softmax_0.tmp_0"]),
        (Distillation(loss="fsp", node=["softmax_0.tmp_0"]), ["even number"]),
        (Distillation(loss="fsp", node=["softmax_0.tmp_0", "softmax_0.tmp_0"]), ["[N, C, H, W]", "[6, 3]"]),
        (Distillation(loss="fsp"), ["no two feature maps", "`node`"]),
    ],
)
def test_what_cannot_be_compared_is_named(
    student: InferenceModel, teacher: InferenceModel, settings: Distillation, fragments: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        plan_distillation(settings, student, [teacher], BATCH)
    for fragment in fragments:
        assert fragment in str(caught.value)
