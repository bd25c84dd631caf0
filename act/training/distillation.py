"""Distillation: which variables of a student are compared with which of its teachers, and by what loss.

- left out: each output's squared error as a share of the teacher's mean square; for one that is a softmax this is the
  error of its logits, and the cross entropy to the teacher's probabilities is added: alone it says next to nothing
  where the teacher is certain, which for CTC is almost everywhere.
- `l2`: that squared error of any variable.
- `soft_label`: the cross entropy alone, of logits at a temperature.
- `dkd`, `skd`, `fsp`: decoupled, spherical, and of Gram matrices of two feature maps of one size (`losses.py`).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from act.errors import InputError
from act.program.model import InferenceModel
from act.program.outputs import real_outputs
from act.program.paddle_setup import paddle
from act.results.training import ComparedPart
from act.samples.dataset import Array
from act.settings import Distillation, DistillationLoss
from act.training.losses import AddLoss, Loss, cross_entropy, decoupled, gram, spherical, squared_error

DEFAULT = "default"
_TEACHER = "teacher_"
_FEATURES = ("conv2d", "depthwise_conv2d", "conv2d_transpose")


def plan_distillation(
    settings: Distillation, student: InferenceModel, teachers: Sequence[InferenceModel], batch: Mapping[str, Array]
) -> list[ComparedPart]:
    """Return the parts of the loss, with their variables: those that the settings name, or else those of the graph.

    Args:
        student: before it is quantized.
        teachers: in the settings' order; one, the fp32 model, where they name none.
        batch: of samples, to see shapes with.

    Raises:
        InputError: a variable does not exist, is not of real numbers, or has no like in the teacher.
    """
    parts = []
    for loss, nodes, alpha, number in settings.terms():
        teacher = teachers[number]
        pairs = _chosen(loss, student, teacher, batch) if nodes is None else _named(nodes, student, teacher)
        if loss == "fsp":
            if len(pairs) % 2:
                raise InputError("`distillation.node`: `fsp` compares variables in pairs; name an even number of them")
            pairs = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(pairs[::2], pairs[1::2])]
        for mine, others in pairs:
            part = ComparedPart(
                loss=loss or DEFAULT, node=list(mine), teacher_node=list(others), alpha=alpha, teacher=number
            )
            _check(part, student, teacher, batch)
            parts.append(part)
    return parts


def distillation_loss(parts: Sequence[ComparedPart], temperature: float = 1.0, beta: float = 1.0) -> AddLoss:
    """Return what adds the loss, a weighted sum of parts.

    Args:
        temperature: that logits are divided by in `soft_label` and `dkd`.
        beta: of `dkd`: weight of the classes that are not the target.
    """

    def value(part: ComparedPart, mine: Any, theirs: Any, is_softmax: bool) -> Any:
        if part.loss == "soft_label":
            return cross_entropy(mine / temperature, theirs / temperature) * temperature**2
        if part.loss == "dkd":
            return decoupled(mine / temperature, theirs / temperature, beta) * temperature**2
        if part.loss == "skd":
            return spherical(mine, theirs)
        error = squared_error(mine, theirs)
        return error + cross_entropy(mine, theirs) if part.loss == DEFAULT and is_softmax else error

    def add_loss(student: InferenceModel) -> Loss:
        if not parts:
            raise ValueError("no output of the model is float32: there is nothing to learn from")
        block = student.program.global_block()
        softmaxes = {name for name in real_outputs(student) if name not in student.fetch_names}
        losses: list[Any] = []
        feeds: dict[tuple[int, str], Any] = {}
        for part in parts:
            variables = [block.var(name) for name in part.node]
            keys = [(part.teacher, name) for name in part.teacher_node]
            for key, variable in zip(keys, variables):
                if key not in feeds:
                    shape = [-1] * (len(variable.shape) - 1) + list(variable.shape[-1:])
                    feeds[key] = paddle.static.data(f"teacher_{len(feeds)}", shape, "float32")
            targets = [feeds[key] for key in keys]
            if part.loss == "fsp":
                loss = squared_error(gram(*variables), gram(*targets))
            else:
                loss = value(part, variables[0], targets[0], part.node[0] in softmaxes)
            losses.append(loss * part.alpha if part.alpha != 1 else loss)
        numbers, names = [number for number, _ in feeds], [name for _, name in feeds]
        return Loss(paddle.add_n(losses), names, [feed.name for feed in feeds.values()], numbers)

    return add_loss


_Pair = tuple[tuple[str, ...], tuple[str, ...]]


def _chosen(
    loss: DistillationLoss | None, student: InferenceModel, teacher: InferenceModel, batch: Mapping[str, Array]
) -> list[_Pair]:
    """Return the outputs; for `fsp` the first and the last features of each size, one after the other."""
    if loss != "fsp":
        mine, others = real_outputs(student), real_outputs(teacher)
        if not mine or len(mine) != len(others):
            raise InputError(
                f"`distillation`: the model has {len(mine)} outputs of real numbers, its teacher {len(others)}; name "
                "the variables to compare in `node`"
            )
        return [((a,), (b,)) for a, b in zip(mine, others)]
    pairs: list[_Pair] = []
    others_stages = _stages(teacher, batch)
    for size, ends in _stages(student, batch).items():
        theirs = others_stages.get(size, [])
        if [channels for _, channels in theirs] == [channels for _, channels in ends]:
            pairs += [((mine,), (other,)) for (mine, _), (other, _) in zip(ends, theirs)]
    if not pairs:
        raise InputError(
            "`distillation`: no two feature maps of one size are alike in the model and its teacher, which `fsp` "
            "compares; name the variables in `node`, or choose another loss"
        )
    return pairs


def _stages(model: InferenceModel, batch: Mapping[str, Array]) -> dict[tuple[int, int], list[tuple[str, int]]]:
    """Return the name and the channels of the first and of the last features of each size that has several."""
    names = [op.output_arg_names[0] for op in model.ops if op.type in _FEATURES]
    sizes: dict[tuple[int, int], list[tuple[str, int]]] = {}
    for name, value in zip(names, model.run(batch, names) if names else []):
        height, width = value.shape[2:]
        if height * width > 1:
            sizes.setdefault((height, width), []).append((str(name), value.shape[1]))
    return {size: [features[0], features[-1]] for size, features in sizes.items() if len(features) > 1}


def _named(nodes: Sequence[str], student: InferenceModel, teacher: InferenceModel) -> list[_Pair]:
    """Return pairs of variables: one name for both models, or, as in ACT, `teacher_NAME` and then the student's."""
    pairs: list[_Pair] = []
    rest = list(nodes)
    while rest:
        mine = other = rest.pop(0)
        if mine.startswith(_TEACHER) and rest and not _has(student, mine):
            other, mine = mine.removeprefix(_TEACHER), rest.pop(0)
        for model, name, whose in ((student, mine, "the model"), (teacher, other, "its teacher")):
            if not _has(model, name):
                names = [str(output) for op in model.ops for output in op.output_arg_names]
                near = ", ".join(difflib.get_close_matches(name, names, n=3, cutoff=0.0))
                raise InputError(
                    f"`distillation.node`: {whose} has no variable `{name}` once `prepare` has folded what can be "
                    f"folded; near it: {near}"
                )
        pairs.append(((mine,), (other,)))
    return pairs


def _has(model: InferenceModel, name: str) -> bool:
    return model.has(name) and not model.is_weight(name)


def _check(part: ComparedPart, student: InferenceModel, teacher: InferenceModel, batch: Mapping[str, Array]) -> None:
    for model, names in ((student, part.node), (teacher, part.teacher_node)):
        for name in names:
            if model.dtype(name) != "float32":
                raise InputError(f"`distillation.node`: `{name}` is not float32, and says nothing of which way to go")
    mine, others = student.run(batch, part.node), teacher.run(batch, part.teacher_node)
    for name, a, b in zip(part.node, mine, others):
        if a.shape != b.shape:
            raise InputError(
                f"`distillation`: `{name}` has the shape {list(a.shape)}, the teacher's {list(b.shape)}; compare "
                "variables of equal shapes"
            )
    if part.loss == "fsp" and (any(a.ndim != 4 for a in mine) or mine[0].shape[2:] != mine[1].shape[2:]):
        raise InputError(
            f"`distillation.node`: `fsp` compares two feature maps [N, C, H, W] of one size; {', '.join(part.node)} "
            f"have the shapes {', '.join(str(list(a.shape)) for a in mine)}"
        )
    if part.loss in ("soft_label", "dkd", "skd") and (mine[0].ndim < 2 or mine[0].shape[-1] < 2):
        raise InputError(
            f"`distillation`: `{part.loss}` needs classes on the last axis; `{part.node[0]}` has the shape "
            f"{list(mine[0].shape)}"
        )
