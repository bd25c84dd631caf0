"""An ACT configuration becomes a job's entry, which DVC follows: comments kept, lag told, nothing guessed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from act.errors import InputError
from act.paddleslim.translate import refuse_lagging
from act.settings import load_job
from flows.act_config import entry_of, settings_of, write
from tests.support.commands import run_module

CHECKOUT = Path(__file__).parents[2]

PARAMS = """\
# All jobs.
jobs:
  # The one.
  one:
    model: {path: model}
    data: {reader: arrays, path: data}  # arrays
    metric: similarity
    target:
      threads: 2  # of this machine
    budget: {}
    strategy: auto
    calibration: {}
    ptq_search: {seed: 3}
    refine: {}
    qat: {}
    benchmark: {}
"""
ACT = """\
Global:
  reader_config: reader.yml
QuantPost:
HyperParameterOptimization:
  ptq_algo: [avg, hist]
  hist_percent: [0.99, 0.999]
Pipeline:
  refine: {learning_rate: 1.0e-05}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load((CHECKOUT / "params.yaml").read_text())["jobs"]["classifier"]
    mine = yaml.safe_load(PARAMS)
    for section in params:
        mine["jobs"]["one"].setdefault(section, {})
    text = PARAMS + "".join(f"    {s}: {{}}\n" for s in params if s not in yaml.safe_load(PARAMS)["jobs"]["one"])
    (tmp_path / "params.yaml").write_text(text)
    (tmp_path / "act.yaml").write_text(ACT)
    return tmp_path


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_module(module, arguments, Path.cwd())


def act_config(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run("flows.act_config", *arguments)


def test_an_entry_takes_over_what_the_file_says_and_keeps_the_rest(place: Path) -> None:
    done = act_config("act.yaml", "--job", "one")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("warning: act.yaml: `Global.reader_config`: ") and "reader: function" in done.stderr
    text = (place / "params.yaml").read_text()
    for kept in ("# All jobs.", "# The one.", "# arrays", "threads: 2  # of this machine"):
        assert kept in text
    assert "ptq_algo: [avg, hist]" in text
    job = load_job("one")
    assert job.strategy == ["QuantPost", "HyperParameterOptimization"] and job.act_config == "act.yaml"
    assert job.ptq_search.ptq_algo == ["avg", "hist"] and job.ptq_search.seed == 3
    assert job.refine.learning_rate == 1e-5  # which YAML must not take for a text
    assert "is up to date" in act_config("act.yaml", "--job", "one").stdout
    assert (place / "params.yaml").read_text() == text


def test_printing_writes_nothing(place: Path) -> None:
    done = act_config("act.yaml", "--job", "one", "--print")
    assert yaml.safe_load(done.stdout)["jobs"]["one"]["ptq_search"]["ptq_algo"] == ["avg", "hist"]
    assert yaml.safe_load((place / "params.yaml").read_text())["jobs"]["one"]["strategy"] == "auto"


def test_a_new_job_needs_its_model_and_data(place: Path) -> None:
    done = act_config("act.yaml", "--job", "two")
    assert done.returncode == 2 and "says nothing of the job's `model`" in done.stderr
    settings = settings_of(["model.path=model", "data.reader=arrays", "data.path=data", "target.engines=[openvino]"])
    entry = entry_of(Path("act.yaml"), "two", settings)
    assert write("two", entry) == ["job `two` is new"]
    assert load_job("two").target.engines == ["openvino"]
    assert load_job("one").strategy == "auto"
    (place / "params.yaml").unlink()
    write("two", entry)
    assert load_job("two").refine.learning_rate == 1e-5


def test_another_reader_leaves_no_keys_of_the_one_before(place: Path) -> None:
    entry = entry_of(Path("act.yaml"), "one", settings_of(["data.reader=image_folder", "data.path=pictures"]))
    assert entry["data"] == {"reader": "image_folder", "path": "pictures"}


@pytest.mark.parametrize("text", ["data", "data..path=x", "=x", "a=[1"])
def test_settings_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--set"):
        settings_of([text])


def test_a_file_that_changed_since_stops_the_first_stage_and_the_flow(place: Path) -> None:
    assert act_config("act.yaml", "--job", "one").returncode == 0
    refuse_lagging("one", load_job("one"))
    (place / "act.yaml").write_text(ACT.replace("[avg, hist]", "[mse]"))
    cure = "`ptq_search.ptq_algo` should be ['mse'] and is ['avg', 'hist']; run `python -m flows.act_config act.yaml"
    for command in (["tasks.prepare.__main__", "--job", "one"], ["flows.compress", "--job", "one"]):
        done = run(*command)
        assert done.returncode == 2 and cure in done.stderr, done.stderr
    done = run("flows.compress", "--job", "one", "--act-config", "act.yaml")
    # It goes on from there: the model of this job does not exist.
    assert "`ptq_search.ptq_algo` is now ['mse']" in done.stdout and "`jobs.one.model.path`" in done.stderr
    assert load_job("one").ptq_search.ptq_algo == ["mse"]


def test_a_teacher_without_file_names_and_an_empty_section_lag_behind_nothing(place: Path) -> None:
    text = "QuantAware:\nDistillation: {loss: l2, node: [a], teacher_model_dir: t}\nPipeline: {target: {}}\n"
    (place / "act.yaml").write_text(text)
    write("one", entry_of(Path("act.yaml"), "one", {}))
    refuse_lagging("one", load_job("one"))


def test_what_a_file_makes_wrong_is_told_before_anything_is_written(place: Path) -> None:
    (place / "act.yaml").write_text("Pipeline: {ptq_search: {batch_num: [99]}}\n")
    before = (place / "params.yaml").read_text()
    done = act_config("act.yaml", "--job", "one")
    assert done.returncode == 2 and "act.yaml, as an entry of params.yaml" in done.stderr and "[99]" in done.stderr
    assert (place / "params.yaml").read_text() == before
    done = run("flows.compress", "--all", "--act-config", "act.yaml")
    assert done.returncode == 2 and "name the one job" in done.stderr


def test_the_shipped_example_is_for_the_shipped_classifier(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(CHECKOUT)
    entry = entry_of(Path("examples/act-classifier.yaml"), "classifier", {})
    assert capsys.readouterr().err == ""
    assert entry["ptq_search"]["max_quant_count"] == 10 and entry["data"]["reader"] == "text_lines"
