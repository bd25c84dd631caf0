"""The teachers of a training: the fp32 model itself, or other models that do the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from act.errors import InputError
from act.formats import SourceModel
from act.metrics import cosine
from act.program.model import InferenceModel
from act.samples.dataset import Array, FeedSpec
from act.settings import Distillation, ModelSource
from act.settings.reference import resolve

_SAME = 0.9999


def teacher_files(settings: Distillation) -> list[Path]:
    """Return the files of the other models.

    Raises:
        InputError: there are none.
    """
    models = [
        SourceModel.find(resolve(Path(source.path), "folder"), source.model_filename, source.params_filename)
        for source in settings.teachers
    ]
    return [file for model in models for file in model.files]


def load_teachers(
    settings: Distillation, prepared: InferenceModel, start: InferenceModel, batch: Mapping[str, Array]
) -> list[InferenceModel]:
    """Return the models that the student learns from.

    Args:
        settings: which they are.
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
    return [_load(source, prepared.feed_specs()) for source in settings.teachers]


def _load(source: ModelSource, feeds: list[FeedSpec]) -> InferenceModel:
    path = resolve(Path(source.path), "folder")
    model = SourceModel.find(path, source.model_filename, source.params_filename).load()
    expected, actual = ({spec.name: spec.dtype for spec in specs} for specs in (feeds, model.feed_specs()))
    if expected != actual:
        raise InputError(
            f"`distillation.teachers`: {source.path} reads {_listed(actual)}, but the model reads {_listed(expected)}"
        )
    return model


def _listed(feeds: Mapping[str, str]) -> str:
    return ", ".join(f"`{name}` ({dtype})" for name, dtype in feeds.items())
