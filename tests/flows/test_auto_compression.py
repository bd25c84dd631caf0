"""PaddleSlim's face: its documented example runs as it stands but for the import, and leaves what ACT leaves."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import yaml
from PIL import Image

from act.errors import InputError
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.results.export import ExportedCandidates
from act.results.flow import CallbackMetrics
from act.samples.dataset import FeedSpec, Samples
from act.samples.readers import arrays
from flows.auto_compression import AutoCompression
from flows.stages import Ended, ProcessGroups
from tests.support import results
from tests.support.commands import run_module

CHECKOUT = Path(__file__).parents[2]

# From PaddleSlim's README of ACT, but for the import and for how much is searched and measured.
EXAMPLE = """
import paddle
from PIL import Image
from paddle.vision.datasets import DatasetFolder
from paddle.vision.transforms import transforms
from flows.auto_compression import AutoCompression
paddle.enable_static()
class ImageNetDataset(DatasetFolder):
    def __init__(self, path, image_size=224):
        super(ImageNetDataset, self).__init__(path)
        normalize = transforms.Normalize(
            mean=[123.675, 116.28, 103.53], std=[58.395, 57.120, 57.375])
        self.transform = transforms.Compose([
            transforms.Resize(256),
            transforms.CenterCrop(image_size), transforms.Transpose(),
            normalize
        ])

    def __getitem__(self, idx):
        img_path, _ = self.samples[idx]
        return self.transform(Image.open(img_path).convert('RGB'))

    def __len__(self):
        return len(self.samples)

train_dataset = ImageNetDataset("./ILSVRC2012_data_demo/ILSVRC2012/train/")
image = paddle.static.data(
    name='inputs', shape=[None] + [3, 224, 224], dtype='float32')
train_loader = paddle.io.DataLoader(train_dataset, feed_list=[image], batch_size=32, return_list=False)
ac = AutoCompression(
    model_dir="./MobileNetV1_infer",
    model_filename="inference.pdmodel",
    params_filename="inference.pdiparams",
    save_dir="MobileNetV1_quant",
    config={'Quantization': {}, 'HyperParameterOptimization': {'ptq_algo': ['avg'], 'max_quant_count': 3},
            'Pipeline': {'analyze': {'time_limit_seconds': 0},
                         'benchmark': {'rounds': 3, 'runs_per_round': 2, 'seconds': 0, 'streams': 1},
                         'target': {'engines': ['openvino', 'onnxruntime'], 'precisions': ['fp32', 'int8']},
                         'refine': {'steps': 2, 'methods': ['layer_wise'], 'candidates': 1}}},
    train_dataloader=train_loader,
    eval_dataloader=train_loader)
ac.compress()
"""
CLASSES = 10


def save_mobilenet(folder: Path, size: int = 224) -> None:
    """MobileNetV1 at a quarter of its width, its batch norms fitted to noise so that its outputs say something."""
    paddle.disable_static()
    try:
        paddle.seed(0)
        rng = np.random.default_rng(0)
        network = paddle.vision.models.mobilenet_v1(scale=0.25, num_classes=CLASSES)
        for layer in network.sublayers():
            if isinstance(layer, paddle.nn.BatchNorm2D):
                layer._momentum = 0.5
        network.train()
        width = min(size, 64)
        for _ in range(8):
            network(paddle.to_tensor(rng.normal(0, 2, (8, 3, width, width)).astype("float32")))
        network.eval()
        spec = paddle.static.InputSpec([None, 3, size, size], "float32", name="inputs")
        paddle.jit.save(network, str(folder / "inference"), input_spec=[spec])
    finally:
        paddle.enable_static()


def checksums(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def pictures(count: int, size: int, seed: int = 1) -> np.ndarray[Any, Any]:
    coarse = np.random.default_rng(seed).normal(0, 1.5, (count, 3, size // 8, size // 8))
    return np.kron(coarse, np.ones((1, 1, 8, 8))).astype("float32")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the documented example has run."""
    folder = tmp_path_factory.mktemp("example")
    save_mobilenet(folder / "MobileNetV1_infer")
    rng = np.random.default_rng(0)
    for name in ("n01440764", "n01443537"):
        train = folder / "ILSVRC2012_data_demo/ILSVRC2012/train" / name
        train.mkdir(parents=True)
        for number in range(8):
            coarse = Image.fromarray(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8))
            coarse.resize((320, 280), Image.Resampling.BICUBIC).save(train / f"{number}.JPEG", "JPEG")
    (folder / "example.py").write_text(EXAMPLE)
    before = checksums(folder)
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "example.py"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    after = checksums(folder)
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in set(after) - set(before)} == {"MobileNetV1_quant"}
    return folder


def test_the_documented_example_leaves_int8_weights(example: Path) -> None:
    made = InferenceModel.load(example / "MobileNetV1_quant", "model.pdmodel", "model.pdiparams")
    int8 = [name for name in made.weight_names() if made.weight(name).dtype == np.int8]
    assert len(int8) > 15
    before = (example / "MobileNetV1_infer/inference.pdiparams").stat().st_size
    assert (example / "MobileNetV1_quant/model.pdiparams").stat().st_size < 0.65 * before
    # ACT writes the names that it was given, which scripts that come after ask for.
    again = checksums(example / "MobileNetV1_quant")
    assert again["inference.pdmodel"] == again["model.pdmodel"]
    assert again["inference.pdiparams"] == again["model.pdiparams"]


def test_its_onnx_file_computes_what_its_paddle_files_compute(example: Path) -> None:
    folder = example / "MobileNetV1_quant"
    batch = pictures(4, 224)
    given = InferenceModel.load(example / "MobileNetV1_infer").run({"inputs": batch})[0]
    made = InferenceModel.load(folder, "model.pdmodel", "model.pdiparams").run({"inputs": batch})[0]
    session = onnxruntime.InferenceSession(str(folder / "quant_model.onnx"), providers=["CPUExecutionProvider"])
    onnx = session.run(None, {"inputs": batch})[0]
    scale = np.abs(given).max()
    assert np.abs(onnx - made).max() < 0.05 * scale
    assert np.abs(made - given).max() < 0.3 * scale
    assert np.abs(made - given).max() > 0


def test_its_calibration_table_names_tensors_and_scales(example: Path) -> None:
    lines = (example / "MobileNetV1_quant/calibration_table.txt").read_text().splitlines()
    assert len(lines) > 15
    assert all(float(line.rsplit(" ", 1)[1]) > 0 for line in lines)


def test_it_tells_what_it_did_and_cleans_up(example: Path) -> None:
    folder = example / "MobileNetV1_quant"
    assert not (folder / ".pipeline").exists()
    assert (folder / "report.html").stat().st_size > 0 and list((folder / "winner").iterdir())
    job = yaml.safe_load((folder / "params.yaml").read_text())["jobs"]["model"]
    assert job["strategy"] == ["QuantPost", "HyperParameterOptimization"]
    assert job["ptq_search"]["ptq_algo"] == ["avg"] and job["ptq_search"]["max_quant_count"] == 3
    files = json.loads((folder / "manifest.json").read_text())["files"]
    for name, described in files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == described["sha256"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "model"
    save_mobilenet(folder, 32)
    return folder


QUICK = {
    "QuantPost": {},
    "HyperParameterOptimization": {"ptq_algo": ["avg", "hist"], "max_quant_count": 4},
    "Pipeline": {
        "data": {"calibration": 16, "evaluation": 24},
        "target": {"engines": ["openvino"], "precisions": ["fp32", "int8"]},
        "budget": {"max_quality_drop": 0.5},
        "benchmark": {"rounds": 3, "runs_per_round": 2, "seconds": 0, "streams": 1},
        "analyze": {"time_limit_seconds": 0},
        "refine": {"steps": 2, "methods": ["layer_wise"], "candidates": 1},
    },
}


def endless() -> Iterator[dict[str, Any]]:
    while True:
        yield {"inputs": pictures(8, 32)}


class Callback:
    """Likes best what differs most from the given model, which no search would choose."""

    def __init__(self) -> None:
        self.batch = pictures(8, 32, seed=5)
        self.first: Any = None
        self.asked: list[tuple[Any, ...]] = []

    def __call__(self, executor: Any, program: Any, feeds: list[str], fetches: list[Any]) -> float:
        self.asked.append((type(executor).__name__, feeds, [type(fetch).__name__ for fetch in fetches]))
        found = executor.run(program, feed={feeds[0]: self.batch}, fetch_list=fetches)[0]
        self.first = found if self.first is None else self.first
        paddle.disable_static()  # as one does that computes a metric on Paddle's tensors
        return float(np.abs(found - self.first).mean())


@pytest.fixture
def stages_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run stages in this process; those of the documented example have processes of their own."""

    def run(_: ProcessGroups, stage: str, command: Sequence[str], folder: Path, emit: Any) -> Ended:
        module = command[2] if stage == "learn" else f"{command[2]}.__main__"
        done = run_module(module, command[3:], folder)
        lines = (done.stdout + done.stderr).splitlines()
        for line in lines:
            emit(line)
        return Ended(done.returncode, lines)

    monkeypatch.setattr(ProcessGroups, "run", run)


@pytest.mark.usefixtures("stages_in_process", "brief_baseline")
def test_the_callback_chooses_what_is_deployed(small: Path, tmp_path: Path) -> None:
    callback, before = Callback(), checksums(small)
    ac = AutoCompression(
        str(small),
        endless,
        save_dir=str(tmp_path / "made"),
        config=QUICK,
        target_speedup=1.1,
        eval_callback=callback,
        eval_dataloader=[[pictures(8, 32, seed)] for seed in range(3)],
        deploy_hardware="cpu",
    )
    ac.compress()
    assert checksums(small) == before and not paddle.in_dynamic_mode()
    found = json.loads((tmp_path / "made/eval_callback.json").read_text())
    metrics = found["metrics"]
    assert metrics.pop("fp32") == 0 and len(metrics) >= 2
    assert found["deployed"] == max(metrics, key=lambda name: metrics[name])
    assert ac.final_metric == metrics[found["deployed"]] > min(metrics.values())
    made = InferenceModel.load(tmp_path / "made").run({"inputs": callback.batch})[0]
    assert float(np.abs(made - callback.first).mean()) == pytest.approx(ac.final_metric, rel=1e-3)
    assert callback.asked[0] == ("Executor", ["inputs"], ["Variable"]) and len(callback.asked) == len(metrics) + 1
    job = yaml.safe_load((tmp_path / "made/params.yaml").read_text())["jobs"]["model"]
    assert job["metric"] == "similarity" and job["budget"]["min_speedup"] == 1.1
    assert job["calibration"]["batch_size"] == 8  # the loader's
    ac.export_onnx("other.onnx")
    assert (tmp_path / "made/ONNX/other.onnx").read_bytes() == (tmp_path / "made/quant_model.onnx").read_bytes()


def test_the_callback_is_asked_anew_for_the_candidates_of_another_strategy(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which bear the same names."""
    ac = AutoCompression(str(small), endless, save_dir=str(tmp_path / "made"), eval_callback=Callback())
    found = iter([0.5, 0.7])
    monkeypatch.setattr(ac, "_metric", lambda model: next(found))
    ac._given_metric = 0.9
    exported = tmp_path / "artifacts/model/export"
    shutil.copytree(small, exported / "int8-ptq-1")
    candidates = ExportedCandidates(candidates=[results.exported("int8-ptq-1", "int8")], deploy=None)
    for metric in (0.5, 0.7):
        candidates.write(exported / "candidates.json")
        ac._choose(tmp_path)
        told = json.loads((exported / "eval_callback.json").read_text())
        assert told["metrics"] == {"fp32": 0.9, "int8-ptq-1": metric}


def test_a_caller_in_dynamic_mode_goes_on_in_it(small: Path, tmp_path: Path) -> None:
    ac = AutoCompression(str(small), endless, save_dir=str(tmp_path / "made"), eval_callback=Callback())
    exported = tmp_path / "artifacts/model/export"
    for name in ("int8-ptq-1", "int8-ptq-2"):
        shutil.copytree(small, exported / name)
    candidates = [results.exported(name, "int8") for name in ("int8-ptq-1", "int8-ptq-2")]
    ExportedCandidates(candidates=candidates, deploy=None).write(exported / "candidates.json")
    ac._given_metric = 0.9
    paddle.disable_static()
    try:
        ac._choose(tmp_path)
        assert paddle.in_dynamic_mode()
    finally:
        paddle.enable_static()
    assert set(CallbackMetrics.read(exported / "eval_callback.json").metrics) == {"fp32", "int8-ptq-1", "int8-ptq-2"}


def read_arrays(folder: Path) -> tuple[Samples, Samples]:
    settings = arrays.Settings(reader="arrays", path=str(folder))
    return arrays.read(settings, [FeedSpec("inputs", "float32", (-1, 3, 32, 32))], 10, folder)


@pytest.mark.parametrize(
    ("labels", "metric"),
    [
        (np.arange(8), "top1"),
        (np.arange(8)[:, None], "top1"),
        (np.arange(8) + 3, "similarity"),  # the model has ten classes
        (np.zeros((8, 2), int), "similarity"),
        (None, "similarity"),
    ],
)
def test_class_numbers_make_the_metric(small: Path, tmp_path: Path, labels: Any, metric: str) -> None:
    batch = [pictures(8, 32)] if labels is None else [pictures(8, 32), labels]
    ac = AutoCompression(str(small), endless, config=QUICK, eval_dataloader=[batch])
    ac._write_samples(InferenceModel.load(small), tmp_path)
    assert ac._entry["metric"] == metric
    assert (tmp_path / "data/evaluation/label.npy").exists() == (metric == "top1")
    calibration, evaluation = read_arrays(tmp_path / "data")
    assert len(calibration) == 16 and len(evaluation) == 8
    np.testing.assert_array_equal(evaluation.feeds["inputs"][3], pictures(8, 32)[3])


def test_one_loader_is_dealt_out_and_one_without_end_is_left(small: Path, tmp_path: Path) -> None:
    config = {"QuantPost": {"batch_nums": 3}, "Pipeline": {"data": {"evaluation": 20}}}
    for name, evaluation in (("none", None), ("same", endless)):
        ac = AutoCompression(str(small), endless, config=config, eval_dataloader=evaluation)
        (tmp_path / name).mkdir()
        ac._write_samples(InferenceModel.load(small), tmp_path / name)
        found = read_arrays(tmp_path / name / "data")
        assert [len(samples) for samples in found] == [128, 20]
        assert isinstance(found[0].feeds["inputs"].flat, np.memmap)


def test_wrong_samples_are_the_users_mistake_and_leave_their_trace(small: Path, tmp_path: Path) -> None:
    loader: list[Any] = [[np.full((2, 3, 32, 32), np.nan, "float32")]]
    with pytest.raises(InputError, match="feed `inputs`, sample 0 holds NaN"):
        AutoCompression(str(small), loader, save_dir=str(tmp_path / "made"), config=QUICK).compress()
    assert (tmp_path / "made/.pipeline/params.yaml").is_file()
    with pytest.raises(InputError, match="train_dataloader: batch 0 .* the model's inputs are `inputs`"):
        loader = [{"x": np.ones((2, 3, 32, 32), "float32")}]
        AutoCompression(str(small), loader, save_dir=str(tmp_path / "made"), config=QUICK).compress()


def test_the_metric_promised_must_be_found(small: Path, tmp_path: Path) -> None:
    config = {**QUICK, "TrainConfig": {"origin_metric": 0.7}}
    ac = AutoCompression(
        str(small), endless, save_dir=str(tmp_path / "made"), config=config, eval_callback=lambda *_: 0.6
    )
    with pytest.raises(InputError, match=r"gives 0\.6000 for the given model, but `TrainConfig.origin_metric` is 0\.7"):
        ac.compress()
    assert not (tmp_path / "made").exists()


def test_a_callback_must_return_a_number(small: Path, tmp_path: Path) -> None:
    for wrong in (None, "good", float("nan"), [1, 2]):
        ac = AutoCompression(
            str(small), endless, save_dir=str(tmp_path), config=QUICK, eval_callback=lambda *_, value=wrong: value
        )
        with pytest.raises(InputError, match="`eval_callback` returned .*must return one number"):
            ac.compress()


def test_the_constructor_is_paddleslims() -> None:
    spec = importlib.util.find_spec("paddleslim")
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).with_name("auto_compression") / "compressor.py"

    def constructor(path: Path) -> tuple[list[str], list[Any]]:
        tree = ast.parse(path.read_text())
        kind = next(n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == "AutoCompression")
        init = next(n for n in kind.body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
        return [a.arg for a in init.args.args], [ast.literal_eval(default) for default in init.args.defaults]

    assert constructor(CHECKOUT / "flows/auto_compression.py") == constructor(source)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"config": {"QuantPost": {"algoo": "hist"}}}, "config: `QuantPost.algoo` is not a known key"),
        ({"config": {"QuantPots": {}}}, "did you mean `QuantPost`"),
        ({"config": 3}, "`config` is 3"),
        ({"config": "no/such.yaml"}, "no/such.yaml: no such file"),
        ({"config": {"Pipeline": {"budgett": {}}}}, "budgett"),
        (
            {"config": {"Pipeline": {"data": {"path": "x"}}}},
            r"`Pipeline.data.path` is 'x'; the loaders give the samples",
        ),
        ({"target_speedup": 0.5}, "`target_speedup` is 0.5"),
        ({"deploy_hardware": "abacus"}, "`deploy_hardware` is 'abacus'"),
    ],
)
def test_wrong_arguments_are_told_at_once(small: Path, tmp_path: Path, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        AutoCompression(str(small), endless, save_dir=str(tmp_path / "made"), **arguments)
    assert not (tmp_path / "made").exists()


def test_the_given_model_is_not_overwritten(small: Path) -> None:
    for given in (small, small / "inference.pdmodel"):
        with pytest.raises(InputError, match="`save_dir` is .*name another folder"):
            AutoCompression(str(given), endless, save_dir=str(small))


def test_a_list_of_strategies_and_a_yaml_file_are_configurations_and_nothing_is_changed(
    small: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ac = AutoCompression(str(small), endless, config=["QuantPost", "HyperParameterOptimization"])
    assert ac._entry["strategy"] == ["QuantPost", "HyperParameterOptimization"]
    (tmp_path / "act.yaml").write_text("Global: {model_dir: elsewhere}\nQuantPost: {batch_nums: 3, algo: mse}\n")
    ac = AutoCompression(str(small), endless, config=str(tmp_path / "act.yaml"), deploy_hardware="SD710")
    assert ac._entry["model"]["path"] == str(small) and ac._entry["calibration"]["batch_num"] == [3]
    assert "nothing is measured on SD710" in caplog.text
    config: dict[str, Any] = {"QuantPost": {}, "TrainConfig": {"epochs": 1}}
    AutoCompression(str(small), endless, config=config)
    assert config == {"QuantPost": {}, "TrainConfig": {"epochs": 1}}


def test_input_shapes_are_timed_where_the_samples_have_others(small: Path, tmp_path: Path) -> None:
    from act.samples.dataset import FeedSpec, Ragged, Samples

    samples = Samples({"inputs": Ragged.of([np.zeros((3, 32, 32), "float32")])})
    feeds = [FeedSpec("inputs", "float32", (-1, 3, -1, -1))]
    for shapes, timed in (
        ([-1, 3, 64, 32], [{"inputs": [3, 64, 32]}]),
        ({"inputs": (1, 3, 64, 64)}, [{"inputs": [3, 64, 64]}]),
        ([1, 3, 32, 32], None),
    ):
        ac = AutoCompression(str(small), endless, save_dir=str(tmp_path), input_shapes=shapes)
        ac._time_shapes(feeds, samples)
        assert ac._entry["benchmark"].get("shapes") == timed
    with pytest.raises(InputError, match="names `x`, which is no input"):
        AutoCompression(str(small), endless, input_shapes={"x": [1, 3, 32, 32]})._time_shapes(feeds, samples)
    with pytest.raises(InputError, match="give the length of each axis"):
        AutoCompression(str(small), endless, input_shapes=[1, 3, -1, 32])._time_shapes(feeds, samples)


def test_the_module_knows_no_paddle_until_it_is_needed() -> None:
    probe = (
        "import sys, flows.auto_compression; print([m for m in sys.modules if m.split('.')[0] in ('paddle', 'dvc')])"
    )
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run([sys.executable, "-c", probe], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


CALLBACK = """
import numpy as np

GAIN = 1.0

def judge(executor, program, feed_names, fetch_targets):
    feed = {feed_names[0]: np.linspace(0, 1, 3072, dtype="float32").reshape(1, 3, 32, 32)}
    return GAIN * float(np.abs(executor.run(program, feed=feed, fetch_list=fetch_targets)[0]).mean())
"""


def test_the_search_goes_by_a_callback_that_says_the_same_in_a_process(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_callback.py").write_text(CALLBACK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    judge = importlib.import_module("my_callback").judge
    ac, model = AutoCompression(str(small), endless, config=QUICK, eval_callback=judge), InferenceModel.load(small)
    ac._write_samples(model, tmp_path)
    ac._given_metric = ac._metric(model)
    metric = ac._sent_callback(model, tmp_path)
    assert metric is not None and metric["function"] == "my_callback:judge" and not (tmp_path / "asked").exists()
    # What a script has set is not there in another process.
    monkeypatch.setattr(sys.modules["my_callback"], "GAIN", 2.0)
    ac._given_metric = ac._metric(model)
    assert ac._sent_callback(model, tmp_path) is None
    ac._callback = Callback()
    assert ac._sent_callback(model, tmp_path) is None
