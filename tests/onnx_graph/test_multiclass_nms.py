"""Boxes that Paddle chooses, chosen by ONNX's operators: the same ones of each picture, in the same order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest

from act.errors import InputError
from act.onnx_graph.multiclass_nms import convert
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.samples.dataset import Array
from tests.support.odd_models import Odd

BOXES, CLASSES = 60, 4
ATTRIBUTES = {
    **{"score_threshold": 0.3, "nms_top_k": 20, "keep_top_k": 15, "nms_threshold": 0.4, "nms_eta": 1.0},
    **{"normalized": True, "background_label": -1},
}
KINDS: dict[str, dict[str, Any]] = {
    "the best of a picture": {},
    "as many as there are": {"nms_top_k": -1, "keep_top_k": -1},
    "none": {"score_threshold": 2.0},
    "lengths in pixels, and a background": {"normalized": False, "background_label": 1, "score_threshold": 0.5},
}


def choosing(corners: int = 4, **attributes: Any) -> InferenceModel:
    """Return a program that moves boxes, chooses among them, and counts what it chose by another number."""

    def network(boxes: Any, scores: Any) -> Any:
        block = paddle.static.default_main_program().current_block()
        kinds = {"Out": "float32", "Index": "int32", "NmsRoisNum": "int32"}
        made = {slot: block.create_var(name=slot, dtype=kind, shape=[-1, 6]) for slot, kind in kinds.items()}
        made["NmsRoisNum"].desc.set_shape([-1])
        inputs = {"BBoxes": boxes + 1.0, "Scores": scores}
        block.append_op(type="multiclass_nms3", inputs=inputs, outputs=made, attrs={**ATTRIBUTES, **attributes})
        return made["Out"], made["Index"], paddle.scale(made["NmsRoisNum"], 2.0)

    shapes = {"boxes": (-1, BOXES, corners), "scores": (-1, CLASSES, BOXES)}
    return Odd({name: (shape, "float32") for name, shape in shapes.items()}, network, lambda rng: {}).model()


def drawn(pictures: int) -> dict[str, Array]:
    rng = np.random.default_rng(pictures)
    corner, lengths = rng.uniform(0, 60, (pictures, BOXES, 2)), rng.uniform(1, 40, (pictures, BOXES, 2))
    scores = rng.random((pictures, CLASSES, BOXES))
    scores[pictures // 2] *= 0.6  # one picture with fewer
    boxes = np.concatenate([corner, corner + lengths], axis=-1)
    return {"boxes": boxes.astype(np.float32), "scores": scores.astype(np.float32)}


@pytest.mark.parametrize("attributes", KINDS.values(), ids=list(KINDS))
def test_onnx_chooses_what_paddle_chooses_in_that_order(attributes: dict[str, Any], tmp_path: Path) -> None:
    program, file = choosing(**attributes), tmp_path / "model.onnx"
    converted = convert(program)
    onnx.checker.check_model(converted, full_check=True)
    onnx.save(converted, file)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for pictures in (1, 3):
        batch = drawn(pictures)
        wanted = program.run(batch)
        for found in (session.run(None, batch), list(compiled(batch).values())):
            for mine, paddles in zip(found, wanted, strict=True):
                assert mine.dtype == paddles.dtype
                np.testing.assert_allclose(mine, paddles, rtol=1e-6)


@pytest.mark.parametrize(("attributes", "cause"), [({"nms_eta": 0.9}, "nms_eta"), ({"corners": 8}, "two corners")])
def test_what_onnx_cannot_choose_is_told(attributes: dict[str, Any], cause: str) -> None:
    with pytest.raises(InputError, match=cause):
        convert(choosing(**attributes))
