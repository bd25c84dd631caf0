"""A metric of the user's own: a function in the project's folder, in the engine's process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from act.errors import InputError
from act.metrics import scorer
from act.samples.dataset import Ragged, Samples
from act.settings.metric import checked

CODE = """
import numpy as np

def share(batches, least=0):
    right = [(np.argmax(outputs[0], 1) == labels[:, 0]) for outputs, labels in batches]
    return float(np.concatenate(right).mean()), {"batches": len(right), "least": least}

def scores(batches):
    return [float(value) for outputs, _ in batches for value in outputs[0][:, 0]]

def fails(batches):
    raise KeyError("no such\\nthing")

def nothing(batches):
    return None

def callback(executor, program, inputs, outputs):
    feed = {inputs[0]: np.ones((2, 3), "float32")}
    first, again = executor.run(program, feed=feed, fetch_list=[outputs[1], "a"])
    return float((first - again).mean())
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mine_metric", raising=False)
    (tmp_path / "mine_metric.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def quality(function: str, labelled: bool = True, **settings: Any) -> Any:
    labels = Ragged.of([np.array([number % 2]) for number in range(5)]) if labelled else None
    metric = checked({"function": function, **settings})
    found = scorer(metric, Samples({"x": Ragged.of([np.zeros(1)] * 5)}, labels))
    for number in range(5):
        found.add([np.eye(2)[1] * (number + 1)])
    return found.quality()


def test_a_number_comes_with_other_figures_and_settings_and_no_interval() -> None:
    found = quality("mine_metric:share", batch=2, settings={"least": 7})
    assert (found.value, found.beside) == (0.4, {"batches": 3, "least": 7})
    assert len(found) == 5 and not found.kind.of_selections


def test_scores_are_kept_one_by_one_and_labels_need_not_be() -> None:
    assert quality("mine_metric:scores", labelled=False).statistics == [0] * 5


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("mine_metric:fails", "mine_metric:fails: failed with KeyError: 'no such"),
        ("mine_metric:nothing", "mine_metric:nothing: returned None; return a number"),
        ("mine_metric:other", "has no function `other`"),
        ("mine_missing:share", "there is no `mine_missing`"),
        ("os:getcwd", "`metric.function` names the module `os`, which is"),
    ],
)
def test_what_goes_wrong_in_it_is_told(function: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        quality(function)


@pytest.mark.parametrize(
    "raw", [{"function": "x"}, {"function": "a.b:c", "batch": 0}, {"function": "a:b", "wide": 1}, {}]
)
def test_wrong_settings_are_refused(raw: Any) -> None:
    with pytest.raises(ValueError, match="function|batch|wide|name"):
        checked(raw)


def test_a_callback_runs_the_engines_model_as_if_it_were_paddles() -> None:
    told = {"function": "mine_metric:callback", "project": str(Path.cwd()), "inputs": ["x"], "outputs": ["a", "b"]}
    samples = Samples({"x": Ragged.of([np.zeros(1)] * 5)})
    found = scorer({"name": "eval_callback", **told}, samples).of_model(lambda feed: [feed["x"], feed["x"] * 3])
    assert found is not None and found.value == 2 and len(found) == 5
    assert scorer("top1", Samples(samples.feeds, Ragged.of([np.zeros(1)] * 5))).of_model(lambda feed: []) is None
    with pytest.raises(InputError, match="mine_metric:callback: IndexError"):
        scorer({"name": "eval_callback", **told}, samples).of_model(lambda feed: [])
