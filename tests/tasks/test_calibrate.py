"""The calibration stage: its one pass sees what Paddle computes, and bad activations are the user's matter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from act.onnx_graph.conversion import to_onnx
from act.program.layers import quantizable_layers
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.quantization.activations import reader
from act.quantization.statistics import STATISTICS_FILE, load
from act.samples.dataset import Array, Ragged, Samples
from tests.support.models import RECOGNISER, noise
from tests.support.place import Place
from tests.support.prepare_networks import build
from tests.support.results import strategy


def prepared(place: Place, quantize: bool = True) -> None:
    assert place.run("prepare").returncode == 0
    folder = place.folder / "artifacts" / "mine" / "select"
    folder.mkdir()
    strategy(quantize=quantize).write(folder / "strategy.json")
    artifacts = folder.parent
    shutil.copytree(artifacts / "prepare" / "model", artifacts / "prune" / "model")


def test_the_reader_gives_what_paddle_computes() -> None:
    model = InferenceModel.load(RECOGNISER)
    layers = quantizable_layers(model)
    batch = {"x": noise(2)}
    found = reader(to_onnx(model), layers)(batch)
    wanted = dict(zip([la.activation for la in layers], model.run(batch, [la.activation for la in layers])))
    assert set(found) == set(wanted)
    for name, values in found.items():
        np.testing.assert_allclose(values, wanted[name], atol=2e-3 * np.abs(wanted[name]).max(), err_msg=name)


def test_the_stage_keeps_the_numbers_of_batches_that_were_asked_for(tmp_path: Path) -> None:
    place = Place(tmp_path)
    np.savez(tmp_path / "data" / "calibration.npz", x=noise(5))
    place.job["calibration"] = {"batch_size": 2, "batch_num": [1, 100]}
    prepared(place)
    done = place.run("calibrate")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "artifacts" / "mine" / "calibrate"
    assert json.loads((folder / "calibrate.json").read_text())["batch_num"] == [1, 3], "3 batches are all there are"
    found = load(folder / STATISTICS_FILE)
    assert sorted(found) == [1, 3]
    assert found[1]["x"].counts.sum() == noise(2).size and found[3]["x"].counts.sum() == noise(5).size
    assert found[3]["x"].low == pytest.approx(noise(5).min()) and found[3]["x"].high == pytest.approx(noise(5).max())
    ranges = json.loads((folder / "ranges.json").read_text())["rules"]
    assert {"KL", "mse", "hist 0.999", "abs_max"} < set(ranges)
    assert ranges["abs_max"]["x"] == pytest.approx([noise(5).min(), noise(5).max()])
    assert all(set(spans) == set(found[3]) for spans in ranges.values())


def test_nothing_is_calibrated_where_nothing_is_quantized(tmp_path: Path) -> None:
    place = Place(tmp_path)
    prepared(place, quantize=False)
    done = place.run("calibrate")
    assert done.returncode == 0 and "does not quantize" in done.stdout
    assert not (tmp_path / "artifacts" / "mine" / "calibrate" / STATISTICS_FILE).exists()


def test_infinite_activations_are_the_users_matter(tmp_path: Path) -> None:
    place = Place(tmp_path)
    prepared(place)
    samples = tmp_path / "artifacts" / "mine" / "prepare" / "calibration"
    for file in samples.iterdir():
        file.unlink()
    samples.rmdir()
    Samples({"x": Ragged.of([np.full((3, 48, 192), np.inf, dtype=np.float32)])}).save(samples)
    done = place.run("calibrate")
    assert done.returncode == 2, done.stderr
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: ") and "NaN or infinity" in error and "`x`" in error
    assert not (tmp_path / "artifacts" / "mine" / "calibrate").exists()


def test_several_inputs_and_samples_of_different_lengths() -> None:
    """Two inputs, one of integers, whose lengths differ from sample to sample."""

    def network(x: Any, ids: Any) -> Any:
        weight = paddle.static.create_parameter([4, 3], "float32")
        return paddle.matmul(x, weight) + paddle.cast(ids, "float32").sum(axis=1, keepdim=True).unsqueeze(-1)

    model = build(network, (-1, -1, 4), others={"ids": (-1, -1)})
    layers = quantizable_layers(model)
    assert [layer.op_type for layer in layers] == ["matmul_v2"]
    read = reader(to_onnx(model), layers)
    for length in (2, 7):
        batch: dict[str, Array] = {
            "x": np.ones((1, length, 4), dtype=np.float32),
            "ids": np.ones((1, length), dtype=np.int64),
        }
        assert read(batch)[layers[0].activation].shape == (1, length, 4)
