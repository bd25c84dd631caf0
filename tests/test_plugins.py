"""A reader, a metric, a threshold rule and a pruning criterion from outside the package do what those inside it do.

For an engine see tests/engines/test_toy_engine.py, for a format tests/formats.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from act.engines.process import EngineProcess
from act.errors import InputError
from act.metrics import find, needs_reference
from act.onnx_graph.conversion import to_onnx
from act.program.model import InferenceModel
from act.pruning.structured import prune_channels
from act.quantization.statistics import TensorStatistics
from act.quantization.thresholds import clip_by
from act.samples.dataset import Samples
from act.settings import ChannelPrune, PtqSearch, load_job
from tests.pruning.test_channel import FIRST, SHAPE, context, kept
from tests.support import plugins
from tests.support.place import Place
from tests.support.prune_networks import plain, static

READER = """
import numpy as np
from act.samples.dataset import Ragged, Samples
from act.samples.readers import only_feed
from act.settings.data import Data


class Settings(Data):
    level: float = 0.5

    @property
    def labels(self):
        return "class"


def read(settings, feeds, class_count, scratch):
    feed = only_feed(settings.reader, feeds)
    grey = [np.full((3, 48, 192), settings.level * number, feed.dtype) for number in range(4)]
    labels = Ragged.of([np.array([number % class_count]) for number in range(2)])
    return Samples({feed.name: Ragged.of(grey[:2])}), Samples({feed.name: Ragged.of(grey[2:])}, labels)
"""
METRIC = """
import numpy as np
from act.metrics import Scorer


class Metric(Scorer):
    title = "probability of the label"
    labels = "class"

    def score(self, outputs, truth):
        return float(outputs[0][int(truth[0])])
"""
RULE = """
from act.quantization.thresholds import Rule


def clip(statistics, symmetric):
    return statistics.clipped(statistics.largest / 2, symmetric)


RULE = Rule(clip, "extremes", place=9)
"""
CRITERION = """
import numpy as np


def importance(weights, gamma):
    return np.arange(1.0, len(weights) + 1)
"""


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kinds = {"readers": "grey", "metrics": "confidence", "thresholds": "half", "criteria": "position"}
    sources = dict(zip(kinds, (READER, METRIC, RULE, CRITERION)))
    plugins.install(monkeypatch, tmp_path / "toys", {kind: {kinds[kind]: sources[kind]} for kind in kinds})


def test_a_reader_feeds_a_job_and_a_metric_scores_it_in_the_engines_process(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.job |= {"data": {"reader": "grey", "path": "examples", "level": 0.25}, "metric": "confidence"}
    assert (done := place.run("prepare")).returncode == 0, done.stderr
    prepared = tmp_path / "artifacts/mine/prepare"
    assert Samples.load(prepared / "evaluation").feeds["x"][1].max() == 0.75
    assert find("confidence").title == "probability of the label" and not needs_reference("confidence")
    assert not (prepared / "reference").exists()
    onnx.save(to_onnx(InferenceModel.load(prepared / "model")), tmp_path / "model.onnx")
    with EngineProcess("onnxruntime", tmp_path / "model.onnx", "fp32") as engine:
        engine.load()
        quality = engine.quality(prepared / "evaluation", "confidence")
    assert len(quality.scores) == 2 and quality.value == pytest.approx(np.mean(quality.scores))


def test_settings_that_the_reader_does_not_know_and_metrics_that_do_not_fit_it_are_named(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.job |= {"data": {"reader": "grey", "path": "examples", "levle": 1}, "metric": "confidence"}
    place.write()
    with pytest.raises(InputError, match="`jobs.mine.data.levle` is not a known key; known here: reader, path, level$"):
        load_job("mine", tmp_path / "params.yaml")
    place.job |= {"data": {"reader": "grey", "path": "examples"}, "metric": "ctc_exact"}
    place.write()
    with pytest.raises(InputError, match="use one of `accuracy`, `confidence`, .*`similarity`, .*`top1`"):
        load_job("mine", tmp_path / "params.yaml")


def test_a_threshold_rule_can_be_searched_and_gives_ranges() -> None:
    assert PtqSearch(ptq_algo=["half", "hist"]).ptq_algo[0] == "half"
    statistics = TensorStatistics()
    statistics.add(np.linspace(-1, 3, 64, dtype=np.float32))
    assert clip_by("half")(statistics, True).threshold == pytest.approx(1.5)


def test_a_criterion_decides_which_channels_go() -> None:
    model = static(plain, SHAPE)
    settings = ChannelPrune(pruned_ratio=0.5, prune_params_name=[FIRST], criterion="position")
    assert kept(model, prune_channels(model, settings, context()).model, FIRST) == list(range(8, 16))
