"""Models in two parts: what the body ends in, and that both together compute what the model does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from act.errors import InputError
from act.formats import SourceModel
from act.formats import paddle as paddle_format
from act.onnx_graph.append import append
from act.onnx_graph.conversion import to_onnx
from act.program.model import InferenceModel
from act.program.parts import join
from act.samples.dataset import Array, Ragged, Samples
from tests.support import tails

CHOSEN = "int64[k, 3] selected, float[k] best"
BESIDE = f"{CHOSEN}, float[N, 3, 64] scores"
IN_ONNX = {
    "boxes are chosen": (tails.NMS, CHOSEN, "N", 13, ["boxes", "scores"], [0, 1]),
    "of one picture, by a later opset": (tails.NMS, CHOSEN, "1", 18, ["boxes", "scores"], [0, 1]),
    "beside an output of the body": (tails.NMS, BESIDE, "N", 13, ["scores", "boxes"], [0, 1]),
    "a loop": (tails.LOOP, "int64[N, 1, 64] numbers", "N", 16, ["scores"], []),
    "what is not of real numbers": (
        "high = Greater (scores, threshold)", "bool[N, 3, 64] high", "N", 13, ["scores"], []
    ),
    "lengths of a feature map that are known": (
        f"lengths = Shape (r)  many = Gather <axis = 0> (lengths, second)  {tails.NMS.replace('most', 'many')}",
        CHOSEN, "1", 13, ["boxes", "scores"], [0, 1]
    ),
    "what is not by sample": ("flat = Reshape (boxes, rows)", "float[64, 4] flat", "1", 13, ["boxes"], [0]),
}  # fmt: skip


def run(model: onnx.ModelProto, batch: dict[str, Array]) -> list[Array]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, batch)


def in_order(rows: Array) -> Array:
    """Sort boxes, which an engine may choose in another order."""
    return rows if rows.ndim != 2 else rows[np.lexsort(np.round(rows, 2).T)]


@pytest.mark.parametrize(("ending", "outputs", "batch", "opset", "ends", "whole"), IN_ONNX.values(), ids=list(IN_ONNX))
def test_an_onnx_model_is_cut_and_put_together(
    ending: str, outputs: str, batch: str, opset: int, ends: list[str], whole: list[int], tmp_path: Path
) -> None:
    given = tails.onnx_detector(ending, outputs, batch, opset)
    for name, values in {"rows": [64, 4], "second": [1]}.items():
        given.graph.initializer.append(onnx.numpy_helper.from_array(np.array(values), name))
    onnx.save(given, tmp_path / "model.onnx")
    parts = SourceModel.find(tmp_path).split()
    assert parts.tail is not None
    assert parts.body.fetch_names == ends
    assert parts.tail.whole == whole
    names = [value.name for value in given.graph.output]
    assert [each.name for each in parts.tail.outputs] == names
    together = append(to_onnx(parts.body), parts.tail.to_onnx(), names)
    onnx.checker.check_model(together)
    x = np.random.default_rng(0).normal(size=(1 if batch == "1" else 2, 3, 8, 8)).astype(np.float32)
    for wanted, found in zip(run(given, {"x": x}), run(together, {"x": x}), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    (tmp_path / "body").mkdir()
    beside = onnx.load(parts.tail.save_body(tmp_path / "body"))
    for wanted, found in zip(run(beside, {"x": x}), parts.body.run({"x": x}), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_what_cannot_be_imported_ahead_of_a_layer_is_told(tmp_path: Path) -> None:
    given = tails.onnx_detector(
        "noise = RandomNormalLike (scores) h = MatMul (noise, w_last)", "float[N, 3, 64] h", opset=16
    )
    given.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((64, 64), np.float32), "w_last"))
    onnx.save(given, tmp_path / "model.onnx")
    with pytest.raises(InputError, match=r"\(RandomNormalLike, opset 16\)"):
        SourceModel.find(tmp_path).split()


@pytest.mark.parametrize(
    ("make", "ends", "whole", "in_onnx"),
    [
        (tails.paddle_detector, 2, [0], True),
        (tails.paddle_classes, 1, [], True),
        (tails.paddle_choice, 1, [0], False),
        (tails.paddle_loop, 1, [0], True),
    ],
)
def test_a_paddle_program_is_cut_and_put_together(
    make: Callable[[], InferenceModel], ends: int, whole: list[int], in_onnx: bool, tmp_path: Path
) -> None:
    model = make()
    model.save(tmp_path)
    parts = SourceModel.find(tmp_path).split()
    assert parts.tail is not None
    assert len(parts.body.fetch_names) == ends and parts.body.feed_names == model.feed_names
    assert all(parts.body.dtype(name) == "float32" for name in parts.body.fetch_names)
    assert parts.tail.whole == whole
    names = [each.name for each in parts.tail.outputs]
    rng = np.random.default_rng(0)
    batch = {each.name: rng.random((1, *each.shape[1:]), np.float32) for each in model.feed_specs()}
    wanted = model.run(batch)
    for found, output in zip(join(parts.body, parts.tail.to_program(), names).run(batch), wanted, strict=True):
        np.testing.assert_array_equal(found, output)
    if not in_onnx:
        with pytest.raises(InputError, match="Paddle2ONNX cannot convert it: .*masked_select"):
            parts.tail.to_onnx()
        return
    together = append(to_onnx(parts.body), parts.tail.to_onnx(), names)
    for found, output in zip(run(together, batch), wanted, strict=True):
        np.testing.assert_allclose(in_order(found), in_order(output), atol=1e-3)


def test_a_model_without_a_tail_is_its_own_body(tmp_path: Path) -> None:
    onnx.save(tails.onnx_detector("", "float[N, 64, 4] boxes, float[N, 3, 64] scores"), tmp_path / "model.onnx")
    parts = SourceModel.find(tmp_path).split()
    assert parts.tail is None and parts.body.fetch_names == ["boxes", "scores"]


def test_a_program_with_its_tail_is_run_beside_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Formats that become programs are cut as such, so that the whole program is what their runtime must agree with."""
    tails.paddle_detector().save(tmp_path)
    monkeypatch.setattr(paddle_format, "RUNTIME", "openvino", raising=False)
    source = SourceModel.find(tmp_path)
    whole = source.split().whole
    assert whole is not None
    pictures = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    samples = Samples(
        {"image": Ragged.of(list(pictures)), "scale_factor": Ragged.of(list(np.ones((2, 2), np.float32)))}
    )
    deviation = source.check(whole, samples, tmp_path, by_sample=False)
    assert deviation is not None and deviation < 1e-3
