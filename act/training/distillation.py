"""Distillation: the teachers of a training, which of their variables are compared with the student's, and by what loss.

- left out: each output's squared error as a share of the teacher's mean square; for one that is a softmax this is the
  error of its logits, and the cross entropy to the teacher's probabilities is added: alone it says next to nothing
  where the teacher is certain, which for CTC is almost everywhere.
- `l2`: that squared error of any variable.
- `soft_label`: the cross entropy alone, of logits at a temperature.
- `dkd`, `skd`, `fsp`: decoupled, spherical, and of Gram matrices of two feature maps of one size (`losses.py`).
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from act.comparison import similarity
from act.errors import InputError
from act.formats import SourceModel
from act.program.model import InferenceModel
from act.program.outputs import real_outputs
from act.program.paddle_setup import paddle
from act.results.training import ComparedPart
from act.samples.dataset import Array, Samples
from act.settings import Distillation, DistillationLoss, ModelSource
from act.settings.files import resolve
from act.training.losses import AddLoss, Loss, cross_entropy, decoupled, gram, on_sphere, squared_error

DEFAULT = "default"
_SAME = 0.9999
_TEACHER = "teacher_"
_FEATURES = ("conv2d", "depthwise_conv2d", "conv2d_transpose")


def teacher_files(settings: Distillation) -> list[Path]:
    """Return the files of the other models that teach; `InputError` where there are none."""
    return [file for source in settings.teachers for file in _find(source).files]


def load_teachers(
    settings: Distillation, prepared: InferenceModel, start: InferenceModel, samples: Samples, batch_size: int
) -> list[InferenceModel]:
    """Return the models that the student learns from: those that the settings name, or else the fp32 model itself.

    Args:
        prepared: the user's model in fp32.
        start: what the student is made of. Where it computes what the user's model does, it is the teacher itself: its
            channels may be equalised, so that only its own inner variables can be compared with the student's.
        samples: what training feeds; a batch of them shows whether the two compute the same.

    Another model that cannot be read, has other inputs, or one name for axes that differ in a sample, is an
    `InputError`.
    """
    if not settings.teachers:
        batch = next(samples.batches(batch_size))
        return [start if similarity(start.run(batch), prepared.run(batch)) > _SAME else prepared]
    sources = [_find(source) for source in settings.teachers]
    models = [source.split().body for source in sources]
    expected, *others = (
        sorted(f"`{spec.name}` ({spec.dtype})" for spec in model.feed_specs()) for model in (prepared, *models)
    )
    for named, source, actual in zip(settings.teachers, sources, others):
        if actual != expected:
            raise InputError(
                f"`distillation.teachers`: {named.path} reads {', '.join(actual)}, but the model reads "
                f"{', '.join(expected)}"
            )
        source.check_axes(samples, f"`distillation.teachers`: {named.path} on the calibration samples")
    return models


def _find(source: ModelSource) -> SourceModel:
    path = resolve(Path(source.path), "folder")
    return SourceModel.find(path, source.model_filename, source.params_filename, source.declared_inputs)


def plan_distillation(
    settings: Distillation, student: InferenceModel, teachers: Sequence[InferenceModel], batch: Mapping[str, Array]
) -> list[ComparedPart]:
    """Return the parts of the loss, with their variables: those that the settings name, or else those of the graph.

    Args:
        student: before it is quantized.
        teachers: of `load_teachers`.
        batch: of samples, to see shapes with.

    Raises:
        InputError: a variable does not exist, is not of real numbers, or has no like in the teacher.
    """
    parts = []
    for loss, nodes, alpha, number in settings.terms():
        teacher, size = teachers[number], 2 if loss == "fsp" else 1
        pairs = _chosen(loss, student, teacher, batch) if nodes is None else _named(nodes, student, teacher)
        if len(pairs) % size:
            raise InputError("`distillation.node`: `fsp` compares variables in pairs; name an even number of them")
        for start in range(0, len(pairs), size):
            mine, theirs = (list(names) for names in zip(*pairs[start : start + size]))
            part = ComparedPart(loss=loss or DEFAULT, node=mine, teacher_node=theirs, alpha=alpha, teacher=number)
            _check(part, student, teacher, batch)
            parts.append(part)
    return parts


def _chosen(
    loss: DistillationLoss | None, student: InferenceModel, teacher: InferenceModel, batch: Mapping[str, Array]
) -> list[tuple[str, str]]:
    """Return the outputs; for `fsp` the first and the last features of each size, one after the other."""
    if loss != "fsp":
        mine, others = real_outputs(student), real_outputs(teacher)
        if not mine or len(mine) != len(others):
            raise InputError(
                f"`distillation`: the model has {len(mine)} outputs of real numbers, its teacher {len(others)}; name "
                "the variables to compare in `node`"
            )
        return list(zip(mine, others))
    pairs: list[tuple[str, str]] = []
    others_ends = _ends(teacher, batch)
    for size, ends in _ends(student, batch).items():
        theirs = others_ends.get(size, [])
        if [channels for _, channels in theirs] == [channels for _, channels in ends]:
            pairs += [(name, other) for (name, _), (other, _) in zip(ends, theirs)]
    if not pairs:
        raise InputError(
            "`distillation`: no two feature maps of one size are alike in the model and its teacher, which `fsp` "
            "compares; name the variables in `node`, or choose another loss"
        )
    return pairs


def _ends(model: InferenceModel, batch: Mapping[str, Array]) -> dict[tuple[int, int], list[tuple[str, int]]]:
    """Return the name and the channels of the first and of the last features of each size that has several."""
    names = [str(op.output_arg_names[0]) for op in model.ops if op.type in _FEATURES]
    sizes: dict[tuple[int, int], list[tuple[str, int]]] = {}
    for name, value in zip(names, model.run(batch, names) if names else []):
        height, width = value.shape[2:]
        if height * width > 1:
            sizes.setdefault((height, width), []).append((name, value.shape[1]))
    return {size: [features[0], features[-1]] for size, features in sizes.items() if len(features) > 1}


def _named(nodes: Sequence[str], student: InferenceModel, teacher: InferenceModel) -> list[tuple[str, str]]:
    """Return pairs of variables: one name for both models, or, as in ACT, `teacher_NAME` and then the student's."""
    pairs: list[tuple[str, str]] = []
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
        pairs.append((mine, other))
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


def distillation_loss(parts: Sequence[ComparedPart], temperature: float = 1.0, beta: float = 1.0) -> AddLoss:
    """Return what adds the loss, a weighted sum of one or more parts; temperature and beta as in the settings."""

    def value(part: ComparedPart, mine: Sequence[Any], theirs: Sequence[Any], is_softmax: bool) -> Any:
        if part.loss == "fsp":
            return squared_error(gram(*mine), gram(*theirs))
        student, teacher = mine[0], theirs[0]
        if part.loss == "soft_label":
            return cross_entropy(student / temperature, teacher / temperature) * temperature**2
        if part.loss == "dkd":
            return decoupled(student / temperature, teacher / temperature, beta) * temperature**2
        if part.loss == "skd":
            return cross_entropy(on_sphere(student, teacher), on_sphere(teacher, teacher))
        error = squared_error(student, teacher)
        return error + cross_entropy(student, teacher) if part.loss == DEFAULT and is_softmax else error

    def add_loss(student: InferenceModel) -> Loss:
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
            loss = value(part, variables, [feeds[key] for key in keys], part.node[0] in softmaxes)
            losses.append(loss * part.alpha if part.alpha != 1 else loss)
        return Loss(paddle.add_n(losses), {feed.name: key for key, feed in feeds.items()})

    return add_loss
