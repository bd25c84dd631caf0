"""The stage as a user runs it, and what the later stages make of a pruned model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from act.program.layers import quantizable_layers
from act.program.model import InferenceModel
from act.pruning import steps
from act.pruning.context import Context
from act.pruning.sparse import has_two_of_four, sparse_layers
from act.samples.dataset import Ragged, Samples
from act.settings import Job, validate
from tests.support.models import noise
from tests.support.place import CHECKOUT, JOB, Place
from tests.support.prune_networks import pictures, plain, static
from tests.support.results import strategy

STAGES = (
    *("machine", "prepare", "analyze", "select", "prune", "calibrate", "ptq_search", "refine"),
    *("plan", "qat", "export"),
)

pytestmark = pytest.mark.usefixtures("brief_baseline")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artefacts of a job whose channels are pruned, then two of every four weights, and which is then quantized and
    trained."""
    place = Place(tmp_path_factory.mktemp("pruned"))
    place.shorten(24)
    training = {"epochs": 1, "batch_size": 2}
    place.job |= {
        "strategy": ["ChannelPrune", "ASPPrune", "QuantPost", "QuantAware"],
        "metric": "similarity",
        "target": {"engines": ["openvino"]},
        "analyze": {"time_limit_seconds": 0},
        "prune": {**training, "channel": {"pruned_ratio": 0.25, "criterion": "bn_scale"}},
        "calibration": {"batch_num": [2]},
        "ptq_search": {"max_quant_count": 3},
        "refine": {"steps": 2, "methods": ["adaround", "layer_wise"]},
        "qat": {**training, "learning_rate": 1e-4},
    }
    np.savez(place.folder / "data" / "calibration.npz", x=noise(4, width=96))
    np.savez(place.folder / "data" / "evaluation.npz", x=noise(3, width=96, seed=1))
    for stage in STAGES:
        done = place.run(stage)
        assert done.returncode == 0, done.stdout + done.stderr
    return place.folder / "artifacts" / "mine"


def told(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def test_the_saved_model_is_smaller_and_has_the_pattern(chain: Path) -> None:
    whole, pruned = (InferenceModel.load(chain / stage / "model") for stage in ("prepare", "prune"))
    found = told(chain, "prune/prune.json")
    sizes = [sum(each.weight(name).size for name in each.weight_names()) for each in (whole, pruned)]
    assert found["pruned"] and found["parameters"] == {"before": sizes[0], "after": sizes[1]}
    assert sizes[1] < 0.75 * sizes[0]
    assert [step["name"] for step in found["steps"]] == ["ChannelPrune", "ASPPrune"]
    axes = {layer.weight: layer.axis for layer in sparse_layers(pruned)}
    assert len(found["sparse"]) > 5
    for name, each in found["sparse"].items():
        assert has_two_of_four(pruned.weight(name), axes[name])
        assert each == {"zeros": pytest.approx(0.5), "pattern": "2:4"}


def test_each_step_tells_what_it_lost_and_won_back(chain: Path) -> None:
    before = 1.0  # similarity to itself
    for step in told(chain, "prune/prune.json")["steps"]:
        assert step["quality_before"] == pytest.approx(before, abs=1e-4)
        assert step["quality_after"] >= step["quality_pruned"]
        assert step["history"][0]["quality"] == pytest.approx(step["quality_pruned"])
        before = step["quality_after"]


def test_batch_norms_are_known_by_the_weights_that_they_went_into(chain: Path) -> None:
    model = InferenceModel.load(chain / "prepare" / "model")
    with np.load(chain / "prepare" / "batch_norms.npz") as found:
        gammas = {name: found[name] for name in found.files}
    assert len(gammas) == told(chain, "prepare/prepare.json")["normalised"]["folded_batch_norms"] > 10
    assert all(model.weight(name).shape[0] == len(gamma) for name, gamma in gammas.items())
    rows = told(chain, "prune/prune.json")["steps"][0]["layers"]
    notes = [row["note"] for row in rows]
    assert None in notes and any("no batch norm" in note for note in notes if note is not None)


def test_the_pruned_model_is_a_candidate_beside_fp32(chain: Path) -> None:
    entries = {entry["name"]: entry for entry in told(chain, "export/candidates.json")["candidates"]}
    assert entries["fp32"]["precision"] == entries["pruned"]["precision"] == "fp32"
    assert entries["pruned"]["bytes"]["openvino"] < 0.85 * entries["fp32"]["bytes"]["openvino"]
    exported, pruned = (InferenceModel.load(chain / name) for name in ("export/pruned", "prune/model"))
    for name in pruned.weight_names():
        np.testing.assert_array_equal(exported.weight(name), pruned.weight(name))


def test_what_is_quantized_is_the_pruned_model_with_its_zeros(chain: Path) -> None:
    pruned = InferenceModel.load(chain / "prune" / "model")
    layers = {layer.weight for layer in quantizable_layers(pruned)}
    sparse = told(chain, "prune/prune.json")["sparse"]
    axes = {layer.weight: layer.axis for layer in sparse_layers(pruned)}
    entries = told(chain, "export/candidates.json")["candidates"]
    int8 = [entry for entry in entries if entry["precision"] == "int8"]
    assert int8
    for entry in int8:
        folder = chain / "export" / entry["name"]
        model = InferenceModel.load(folder)
        for name in layers:
            assert model.weight(name).dtype == np.int8 and model.weight(name).shape == pruned.weight(name).shape
        file = onnx.load(folder / "quant_model.onnx")
        held = {each.name: onnx.numpy_helper.to_array(each) for each in file.graph.initializer}
        values = {name: array for name, array in held.items() if array.dtype == np.int8 and array.ndim > 1}
        for name in sparse:
            assert has_two_of_four(model.weight(name), axes[name])
            assert not model.weight(name)[pruned.weight(name) == 0].any()
            twin = next(array for other, array in values.items() if other.startswith(name))
            assert has_two_of_four(twin, axes[name])


def test_refining_and_training_kept_the_zeros(chain: Path) -> None:
    """What they were asked to do was done, so that the test above speaks of them."""
    attempts = told(chain, "refine/refine.json")["attempts"]
    assert {attempt["method"] for attempt in attempts if attempt["failure"] is None} == {"adaround", "layer_wise"}
    training = told(chain, "qat/qat.json")
    assert training["needed"]
    if training["candidate"] is not None:
        pruned, trained = (InferenceModel.load(chain / name) for name in ("prune/model", "qat/model"))
        for name in told(chain, "prune/prune.json")["sparse"]:
            assert not trained.weight(name)[pruned.weight(name) == 0].any()


def test_losses_count_from_the_whole_model(chain: Path) -> None:
    found = told(chain, "ptq_search/candidates.json")
    assert found["reference"]["quality"] == pytest.approx(1, abs=1e-4)
    candidate = found["candidates"][0]
    assert candidate["drop"] == pytest.approx(found["reference"]["quality"] - candidate["quality"])


def test_where_nothing_is_pruned_it_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(json.dumps({"jobs": {"mine": JOB}}))
    here = tmp_path / "artifacts" / "mine"
    (here / "select").mkdir(parents=True)
    strategy().write(here / "select" / "strategy.json")
    model = here / "prepare" / "model"
    model.mkdir(parents=True)
    (model / "model.pdmodel").write_bytes(b"one")
    code = (
        "import sys; sys.argv = ['prune', '--job', 'mine']\n"
        "from tasks.prune.__main__ import main; main(); assert 'paddle' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (here / "prune" / "model" / "model.pdmodel").read_bytes() == b"one"
    found = told(here, "prune/prune.json")
    assert not found["pruned"] and found["steps"] == [] and found["kept_multiply_adds"] == 1


def test_where_a_way_of_pruning_leaves_everything_the_model_stays_as_it_was(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.shorten(4)
    place.job |= {
        "strategy": ["ChannelPrune"],
        "metric": "similarity",
        "target": {"engines": ["openvino"]},
        "prune": {"epochs": 1, "batch_size": 2, "channel": {"pruned_ratio": 0.01}},
    }
    np.savez(place.folder / "data" / "calibration.npz", x=noise(4, width=96))
    np.savez(place.folder / "data" / "evaluation.npz", x=noise(3, width=96, seed=1))
    here = place.folder / "artifacts" / "mine"
    done = place.run("prepare")
    assert done.returncode == 0, done.stdout + done.stderr
    (here / "select").mkdir()
    strategy("ChannelPrune", prune=["ChannelPrune"]).write(here / "select" / "strategy.json")
    done = place.run("prune")
    assert done.returncode == 0, done.stdout + done.stderr
    found = told(here, "prune/prune.json")
    assert not found["pruned"] and found["kept_multiply_adds"] == 1
    assert "100% of the MACs are left" in found["why"]
    assert "nothing was trained" in done.stdout
    assert (here / "prune/model/model.pdiparams").read_bytes() == (here / "prepare/model/model.pdiparams").read_bytes()


def test_a_stopped_stage_goes_on_with_what_was_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = [3, 8, 8]
    model = static(plain, shape)
    job = validate(Job, {**JOB, "strategy": ["ChannelPrune"], "prune": {"channel": {"pruned_ratio": 0.5}}}, "here")
    job = job.model_copy(update={"prune": job.prune.model_copy(update={"epochs": 2, "batch_size": 4})})
    context = Context(Samples({"x": Ragged.of(list(pictures(8, shape)))}))

    def run(scratch: Path) -> steps.Step:
        rising = iter(range(100))
        pruner = steps.Pruner(job, context, [model], lambda _: float(next(rising)), scratch)
        return pruner.run(["ChannelPrune"], model, 1.0)[0]

    whole = run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(steps, "train", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(steps.Pruner, "_prune", lambda *_: pytest.fail("it was pruned a second time"))
        again = run(tmp_path / "stopped")
        last = run(tmp_path / "stopped")
    for name in whole.model.weight_names():
        np.testing.assert_array_equal(again.model.weight(name), whole.model.weight(name))
        np.testing.assert_array_equal(last.model.weight(name), whole.model.weight(name))
    assert again.result.layers == whole.result.layers
