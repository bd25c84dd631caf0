"""The teachers of a training: the fp32 model itself, or other models that do the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from act.errors import InputError
from act.formats import SourceModel
from act.metrics import cosine
from act.program.model import InferenceModel
from act.samples.dataset import Array
from act.settings import Distillation, ModelSource
from act.settings.reference import resolve

_SAME = 0.9999


def teacher_files(settings: Distillation) -> list[Path]:
    """Return the files of the other models.

    Raises:
        InputError: there are none.
    """
    return [file for source in settings.teachers for file in _find(source).files]


def load_teachers(
    settings: Distillation, prepared: InferenceModel, start: InferenceModel, batch: Mapping[str, Array]
) -> list[InferenceModel]:
    """Return the models that the student learns from.

    Args:
        prepared: the user's model in fp32.
        start: what the student is made of. Where it computes what the user's model does, it is the teacher itself: its
            channels may be equalised, so that only its own inner variables can be compared with the student's.
        batch: of samples.

    Raises:
        InputError: another model cannot be read, or has other inputs.
    """
    if not settings.teachers:
        pairs = zip(prepared.run(batch), start.run(batch))
        return [start if all(cosine(theirs, ours) > _SAME for theirs, ours in pairs) else prepared]
    models = [_find(source).load() for source in settings.teachers]
    expected = _inputs(prepared)
    for source, model in zip(settings.teachers, models):
        if (actual := _inputs(model)) != expected:
            raise InputError(
                f"`distillation.teachers`: {source.path} reads {', '.join(actual)}, but the model reads "
                f"{', '.join(expected)}"
            )
    return models


def _find(source: ModelSource) -> SourceModel:
    return SourceModel.find(resolve(Path(source.path), "folder"), source.model_filename, source.params_filename)


def _inputs(model: InferenceModel) -> list[str]:
    return sorted(f"`{spec.name}` ({spec.dtype})" for spec in model.feed_specs())
