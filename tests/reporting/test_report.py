"""The report stage on a made-up measurement: files, figures, and a page that is whole, escaped and self-contained."""

from __future__ import annotations

import csv
import hashlib
import html.parser
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from act.results.artifact import Artifact
from act.results.benchmark import FailedVariant, RanVariant, Throughput
from act.results.export import ExportedCandidate, ExportedCandidates, Failure, FloatLayer
from act.results.ptq_search import Attempt, LayerSensitivity, Refinements, Trials
from act.results.select import Options, StrategyPart
from act.results.training import (
    ComparedPart,
    Counts,
    PrunedLayer,
    Pruning,
    PruningStep,
    Qualities,
    Sparsity,
    Training,
    TrainingPoint,
)
from tests.support import measured, results
from tests.support.commands import run_module
from tests.support.measured import MACHINE, entry, failed

ROOT = Path(__file__).parents[2]
HOSTILE = "<script>alert('&\"')</script>"
MEASURED: list[RanVariant | FailedVariant] = [
    entry("openvino", "fp32", 10, 0.8),
    entry("openvino", "bf16", 4, 0.795),
    entry("openvino", "int8-ptq", 3, 0.4),
    entry("onnxruntime", "fp32", 12, 0.8),
    failed("onnxruntime", "int8-ptq", "crash", f"ended by SIGSEGV: {HOSTILE}"),
    failed("paddle_inference", "fp32", "missing", "no module named paddle"),
]


class Page(html.parser.HTMLParser):
    """What a page loads, its elements, its text; complains about elements left open."""

    VOID = ("meta", "br", "line", "rect", "circle", "polygon", "polyline", "path")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.elements: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


class Workspace:
    """A folder with the settings and artefacts of one job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        jobs = yaml.safe_load((ROOT / "params.yaml").read_text())["jobs"]
        self.job: dict[str, Any] = jobs["recogniser"]
        self.candidates: dict[str, ExportedCandidate] = {}
        self.measure(MEASURED)
        for name, precision in (("fp32", "fp32"), ("int8-ptq", "int8")):
            self.export(name, precision)
        self.write("ptq_search/trials.json", Trials())
        self.write("refine/refine.json", Refinements(attempts=[]))
        self.write("qat/qat.json", Training(needed=False, why="it is enough"))
        self.write("prune/prune.json", Pruning(pruned=False, why="the strategy does not prune"))
        self.write("analyze/analysis.json", results.analysis())
        self.write("select/strategy.json", results.strategy())
        self.write("options/options.json", Options())

    def export(self, name: str, precision: str, **changes: Any) -> None:
        """Leave the files of a candidate, in place of one of that name."""
        model = self.artifacts / "export" / name
        model.mkdir(parents=True, exist_ok=True)
        for file in ("model.pdmodel", "model.pdiparams", "model.onnx", "quant_model.onnx", "calibration_table.txt"):
            (model / file).write_text(f"{name} {file}")
        files = {"paddle_inference": name, "openvino": f"{name}/model.onnx", "onnxruntime": f"{name}/model.onnx"}
        self.candidates[name] = results.exported(name, precision, files=files, **changes)
        candidates = list(self.candidates.values())
        self.write("export/candidates.json", ExportedCandidates(candidates=candidates, deploy="int8-ptq"))

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts" / "demo"

    @property
    def deploy(self) -> Path:
        return self.folder / "deploy" / "demo"

    def measure(self, variants: Sequence[RanVariant | FailedVariant], noisy: bool = False) -> None:
        machine = MACHINE.model_copy(update={"cpu": HOSTILE})
        noise = measured.noise(noisy, "a fixed piece of work took 25% longer at times")
        self.write("benchmark/measurements.json", measured.measurements(variants, machine=machine, noise=noise))

    def write(self, name: str, artifact: Artifact) -> None:
        (self.artifacts / name).parent.mkdir(parents=True, exist_ok=True)
        artifact.write(self.artifacts / name)

    def report(self, **budget: float) -> subprocess.CompletedProcess[str]:
        job = {**self.job, "budget": {**self.job["budget"], **budget}}
        (self.folder / "params.yaml").write_text(yaml.safe_dump({"jobs": {"demo": job}}))
        return run_module("tasks.report.__main__", ["--job", "demo"], self.folder)

    def manifest(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.deploy / "manifest.json").read_text())
        return content

    def page(self) -> str:
        return (self.deploy / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def test_the_deployed_files_and_their_manifest(workspace: Workspace) -> None:
    done = workspace.report(max_quality_drop=0.01)
    assert done.returncode == 0, done.stderr
    assert "bf16 on OpenVINO wins: 4.00 ms" in done.stdout
    assert (workspace.deploy / "model.pdiparams").read_text() == "int8-ptq model.pdiparams"
    assert (workspace.deploy / "quant_model.onnx").read_text() == "int8-ptq quant_model.onnx"
    assert (workspace.deploy / "winner" / "model.onnx").read_text() == "fp32 model.onnx"
    manifest = workspace.manifest()
    assert (manifest["schema_version"], manifest["job"], manifest["deployed_candidate"]) == (1, "demo", "int8-ptq")
    assert (manifest["winner"]["engine"], manifest["winner"]["precision"]) == ("openvino", "bf16")
    assert manifest["winner"]["files"] == ["winner/model.onnx"]
    assert '"INFERENCE_PRECISION_HINT": "bf16"' in manifest["winner"]["how_to_load"]
    assert manifest["compressed"] is True and manifest["budget"]["met"] is True
    assert [variant["inside_budget"] for variant in manifest["variants"]] == [True, True, False, False, False, False]
    on_disk = {path.relative_to(workspace.deploy).as_posix() for path in workspace.deploy.rglob("*") if path.is_file()}
    assert set(manifest["files"]) == on_disk - {"manifest.json"}
    twin = json.loads((workspace.deploy / "report.json").read_text())
    assert {key: twin[key] for key in manifest if key != "files"} == {k: v for k, v in manifest.items() if k != "files"}
    for name, described in manifest["files"].items():
        content = (workspace.deploy / name).read_bytes()
        assert described == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_figures_for_dvc(workspace: Workspace) -> None:
    assert workspace.report(max_quality_drop=0.01).returncode == 0
    metrics = json.loads((workspace.artifacts / "report" / "metrics.json").read_text())
    assert metrics["winner"] == "openvino/bf16"
    assert (metrics["latency_ms"], metrics["speedup"], metrics["quality"]) == (4, 2.5, 0.795)
    assert metrics["onnxruntime/fp32/latency_ms"] == 12
    assert (metrics["p90_ms"], metrics["samples_per_second"], metrics["peak_rss_bytes"]) == (4.8, 375, 10**8)
    assert metrics["onnxruntime/fp32/samples_per_second"] == 125 and metrics["openvino/bf16/first_ms"] == 12
    assert all(isinstance(value, (str, int, float)) for value in metrics.values())
    with (workspace.artifacts / "report" / "accuracy_latency.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["inside_budget"] for row in rows] == ["1", "1", "0", "0"]
    assert [row["samples_per_second"] for row in rows] == ["150.0", "375.0", "500.0", "125.0"]
    for name in ("trials.csv", "training.csv"):  # there, with a heading, though the stages left nothing
        assert "quality" in (workspace.artifacts / "report" / name).read_text()


def test_a_new_budget_selects_anew_and_replaces_all_of_the_old(workspace: Workspace) -> None:
    assert workspace.report(max_quality_drop=0.01).returncode == 0
    (workspace.deploy / "leftover").write_text("old")
    assert workspace.report(max_quality_drop=0.5).returncode == 0
    assert workspace.manifest()["winner"]["name"] == "int8-ptq"
    assert not (workspace.deploy / "leftover").exists()
    assert workspace.report(max_quality_drop=0.001, min_speedup=1.0).returncode == 0
    manifest = workspace.manifest()
    assert manifest["winner"]["name"] == "fp32" and manifest["compressed"] is False
    assert "fp32 stays the fastest" in workspace.page()
    assert [path.name for path in workspace.deploy.parent.iterdir()] == ["demo"]


def test_a_tail_is_named_with_what_became_of_it_and_files_without_it_are_deployed(workspace: Workspace) -> None:
    bodies = workspace.artifacts / "export" / "bodies" / "int8-ptq"
    bodies.mkdir(parents=True)
    for file in ("model.pdmodel", "model.pdiparams", "onnxruntime.onnx", "quant_model.onnx"):
        (bodies / file).write_text(f"{file} without")
    paths = {"openvino": "bodies/int8-ptq/model.onnx", "onnxruntime": "bodies/int8-ptq/onnxruntime.onnx"}
    workspace.export("int8-ptq", "int8", bodies=paths)
    (workspace.artifacts / "export/int8-ptq/quant_model.onnx").unlink()
    candidates = list(workspace.candidates.values())
    found = ExportedCandidates(candidates=candidates, deploy="int8-ptq", tail=["TopK", HOSTILE])
    workspace.write("export/candidates.json", found)
    assert workspace.report().returncode == 0
    without = {path.name for path in (workspace.deploy / "without_tail").iterdir()}
    assert without == {"onnxruntime.onnx", "quant_model.onnx"}
    assert not (workspace.deploy / "quant_model.onnx").exists()
    tail = workspace.manifest()["tail"]
    assert tail["operators"] == ["TopK", HOSTILE]
    assert tail["engines"]["openvino"] == "in its file" and "SIGSEGV" in tail["engines"]["onnxruntime"]
    assert "neither trained nor quantized: TopK" in Page(workspace.page()).text


def test_where_the_given_model_wins_its_own_files_are_deployed(workspace: Workspace) -> None:
    given = workspace.artifacts / "prepare" / "given"
    (given / "data").mkdir(parents=True)
    (given / "net.onnx").write_text("the user's")
    (given / "data" / "weights.bin").write_text("weights")
    path = "artifacts/demo/prepare/given/net.onnx"
    rows = [
        entry("openvino", "given", 10, 0.8, candidate="given", path=path, is_reference=True),
        entry("openvino", "fp32", 11, 0.8, is_reference=False),
        entry("openvino", "int8-ptq", 3, 0.4),
    ]
    workspace.measure(rows)
    assert workspace.report(max_quality_drop=0.01).returncode == 0
    manifest = workspace.manifest()
    assert manifest["compressed"] is False and manifest["winner"]["reference"] == "openvino/given"
    assert manifest["winner"]["files"] == ["winner/data/weights.bin", "winner/net.onnx"]
    assert (workspace.deploy / "winner" / "net.onnx").read_text() == "the user's"
    assert '"winner/net.onnx"' in manifest["winner"]["how_to_load"]
    assert "the given model stays the fastest" in workspace.page()


def test_the_page_is_escaped_and_self_contained(workspace: Workspace) -> None:
    settings = results.settings(ptq_algo=HOSTILE, quantizable_op_type=["a", "b"])
    tried = [
        results.trial(0, settings=settings),
        results.trial(1, settings=settings, drop=0.3, cost=0.25),
        results.trial(2, settings=settings, quality=None, drop=None, failure=HOSTILE),
    ]
    layers = [LayerSensitivity(layer=HOSTILE, op_type="conv2d", error=0.25)] * 20
    importance = {"ptq_algo": 0.75, HOSTILE: 0.25, "bias_correct": 0.0}
    workspace.write(
        "ptq_search/trials.json", Trials(trials=tried, front=[0, 1], sensitivity=layers, importance=importance)
    )
    refined = [
        Attempt(candidate=HOSTILE, method="layer_wise", quality_before=0.7, quality=0.75, kept=True, failure=None),
        Attempt(candidate=HOSTILE, method="region_wise", quality_before=0.7, quality=None, kept=False, failure=HOSTILE),
    ]
    workspace.write("refine/refine.json", Refinements(attempts=refined))
    history = [TrainingPoint(epoch=0, step=step, loss=1 / (1 + step), quality=0.5) for step in range(5)]
    parts = [
        ComparedPart(loss="default", node=["logits"], teacher_node=["logits"], alpha=1.0, teacher=0),
        ComparedPart(loss="fsp", node=[HOSTILE, "b"], teacher_node=["a", "b"], alpha=0.1, teacher=1),
    ]
    workspace.write("qat/qat.json", Training(needed=True, why=HOSTILE, history=history, distillation=parts))
    operators = [results.analysis(HOSTILE).operators[0]] * 20
    workspace.write("analyze/analysis.json", results.analysis(operators=operators))
    part = StrategyPart(name="QuantPost", why=HOSTILE)
    workspace.write("select/strategy.json", results.strategy(strategy=[part], why=HOSTILE))
    assert workspace.report(max_quality_drop=0.01).returncode == 0
    page = Page(workspace.page())
    with (workspace.artifacts / "report" / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["front"] for row in rows] == ["1", "1", "0"]
    assert rows[0]["quantizable_op_type"] == "a b"
    assert page.loads == []
    assert not re.search(r"url\(|@import|https?:", workspace.page())
    assert "script" not in page.elements and "img" not in page.elements
    # the failure, the CPU, three trials and a failure, a setting's importance, 12 layers, two refined, a failure,
    # the training and what it compared, 15 operators, the strategy twice
    assert page.text.count(HOSTILE) == 1 + 1 + 3 + 1 + 1 + 12 + 2 + 1 + 2 + 15 + 2
    assert "logits by the loss `default`;" in page.text
    assert "and b by the loss `fsp`, weighed 0.1, with teacher 2" in page.text
    assert "layer-wise0.70000.7500kept" in page.text
    for text in ("2.50\N{MULTIPLICATION SIGN} as fast", "crashed", "not installed", "3 trials", "15 costliest of 20"):
        assert text in page.text


def test_the_page_says_when_the_machine_was_noisy_or_the_interval_leaves_the_budget(workspace: Workspace) -> None:
    workspace.report(max_quality_drop=0.01)
    assert "noisy" not in workspace.page() and "interval reaches" not in workspace.page()
    workspace.measure(MEASURED, noisy=True)
    workspace.report(max_quality_drop=0.006)
    assert "took 25% longer at times" in workspace.page()
    assert "interval reaches 0.0090" in workspace.page()


def test_the_page_tells_of_the_model_itself(workspace: Workspace) -> None:
    workspace.write("analyze/analysis.json", results.analysis(HOSTILE))
    done = workspace.report(max_quality_drop=0.01)
    assert done.returncode == 0, done.stderr
    text = Page(workspace.page()).text
    assert "A mixed network" in text and "5 operators, 4.00 k parameters and 6.00 M MACs" in text
    assert "In it: 2 residual joins, 1 gate." in text and "98.1 MB all together and 2.1 MB at the same time" in text
    assert "2 blocks of 2 \N{MULTIPLICATION SIGN} convolution 3x3, residual join" in text
    assert "OpenVINO542 Reorderfp32, bf16fp32: 2 in fp32; bf16: 1 in bf16, 1 in fp322" in text
    assert "relu32 into Convolution, 1 beforehand" in text
    # the most sensitive first, and what was not measured with its reason
    assert f"{HOSTILE}conv2d1650.0%0.250" in text and "1234" in text
    assert text.index("lateconv2d8") > text.index(f"{HOSTILE}conv2d16") and "the time was up" in text
    assert "1 of 2 layers were not measured." in text
    assert "6 batch norms folded, 1 identity removed." in text and "assignidentitygives what it is given" in text
    # the CPU and a failure; the peak, the head, a layer, what is foldable, five operators
    assert text.count(HOSTILE) == 1 + 1 + 1 + 1 + 1 + 1 + 5


PRUNED = Pruning(
    pruned=True,
    why="two of four",
    steps=[
        PruningStep(
            name="ASPPrune",
            why="two of every four weights are zero",
            layers=[PrunedLayer(name="conv", kept=8, of=16, ratio=0.5)],
            measured_speedup=None,
            quality_before=0.8,
            quality_pruned=0.61,
            quality_after=0.797,
            training="training raised the quality",
            history=[TrainingPoint(epoch=number, step=8 * number, loss=0.1, quality=0.7) for number in range(2)],
        )
    ],
    sparse={"w": Sparsity(zeros=0.5, pattern="2:4")},
    macs={},
    parameters=Counts(before=3_000_000, after=3_000_000),
    quality=Qualities(before=0.8, after=0.797),
)


def test_a_pruned_winner_is_deployed_and_the_page_says_what_zeros_bring(workspace: Workspace) -> None:
    workspace.write("prune/prune.json", PRUNED)
    workspace.export("pruned", "fp32")
    fp32 = entry("openvino", "fp32", 10.0, 0.8)
    workspace.measure([fp32, entry("openvino", "pruned", 9.9, 0.797, path="pruned/model.onnx")])
    done = workspace.report()
    assert done.returncode == 0, done.stderr
    assert (workspace.deploy / "winner" / "model.onnx").read_text() == "pruned model.onnx"
    assert workspace.manifest()["winner"]["name"] == "pruned" and workspace.manifest()["compressed"]
    page = workspace.page()
    assert "bring no speed on OpenVINO (1.01\N{MULTIPLICATION SIGN})" in page and "0.6100" in page
    curve = (workspace.artifacts / "report" / "pruning.csv").read_text().splitlines()
    assert curve[1:] == ["ASPPrune,0,0.1,0.7", "ASPPrune,8,0.1,0.7"]


def test_the_page_tells_throughput_and_further_shapes_with_their_failures(workspace: Workspace) -> None:
    workspace.report(max_quality_drop=0.01)
    text = Page(workspace.page()).text
    assert "Throughput, memory and loading" in text and "2 streams" in text and "375" in text
    assert "int8-ptq on OpenVINO30 of 32 layers in int82 MatMul in fp324 QuantizeLinear" in text
    assert "Latency by shape" not in text and "not steady" not in text
    # fp32 of 10 ms and bf16 of 4 ms, half of them in convolutions, an eighth in reorders
    assert "Convolution5.00 ms32 \N{MULTIPLICATION SIGN} f32" in text and "Reorder1.25 ms" in text
    assert "all6.25 ms2.50 ms" in text
    refused = Failure(kind="error", cause=HOSTILE)
    fp32, bf16 = entry("openvino", "fp32", 10, 0.8), entry("openvino", "bf16", 4, 0.795)
    latency = fp32.latency.model_copy(update={"median_ms": 77, "p90_ms": 80})
    further = fp32.shapes[0].model_copy(update={"inputs": {"x": [1, 3, 48, 640]}, "latency": latency})
    without = further.model_copy(update={"latency": None, "speedup": None, "failure": refused})
    changes = {
        "shapes": [*bf16.shapes, without],
        "throughput": Throughput(streams=2, per_second=None, slowest=None, fastest=None, failure=refused),
        "warm_up": bf16.warm_up.model_copy(update={"steady": False}),
    }
    shapes = [*fp32.shapes, further]
    workspace.measure([fp32.model_copy(update={"shapes": shapes}), bf16.model_copy(update=changes)])
    done = workspace.report(max_quality_drop=0.01)
    assert done.returncode == 0, done.stderr
    text = Page(workspace.page()).text
    assert "1\N{MULTIPLICATION SIGN}3\N{MULTIPLICATION SIGN}48\N{MULTIPLICATION SIGN}640" in text and "77.0" in text
    assert "Still not steady when the warm-up's time was up, measured all the same: bf16 on OpenVINO." in text
    assert text.count(HOSTILE) == 2 + 1  # two causes, the CPU
    assert workspace.manifest()["winner"]["samples_per_second"] is None


def test_the_page_says_what_is_left_in_float_and_shows_int8_where_fp32_won(workspace: Workspace) -> None:
    left = [FloatLayer(name=HOSTILE, type="matmul_v2", why="two activations")]
    workspace.export("int8-ptq", "int8", left_in_float=left)
    slower = [entry("openvino", "fp32", 10, 0.8), entry("openvino", "int8-ptq", 16, 0.8)]
    workspace.measure(slower)
    done = workspace.report(max_quality_drop=0.01)
    assert done.returncode == 0, done.stderr
    twin = json.loads((workspace.deploy / "report.json").read_text())
    assert twin["left_in_float"]["int8-ptq"][0]["why"] == "two activations" and twin["variants"][1]["kernels"]
    text = Page(workspace.page()).text
    assert "int8-ptq: 1 layer" in text and f"{HOSTILE}matmul_v2two activations" in text
    assert "fp32 stays the fastest" in text and "Convolution5.00 ms" in text
    assert "8.00 ms32 \N{MULTIPLICATION SIGN} u8" in text


def test_missing_inputs_end_with_one_line_and_change_nothing(workspace: Workspace) -> None:
    assert workspace.report().returncode == 0
    before = workspace.page()
    (workspace.artifacts / "export" / "int8-ptq" / "model.pdiparams").unlink()
    done = workspace.report()
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and "model.pdiparams" in done.stderr
    (workspace.artifacts / "benchmark" / "measurements.json").unlink()
    done = workspace.report()
    assert done.returncode == 2 and "measurements.json" in done.stderr
    assert workspace.page() == before


def test_in_a_process_of_its_own_it_does_the_same_and_imports_no_engine(workspace: Workspace) -> None:
    assert workspace.report().returncode == 0
    before = workspace.page()
    code = (
        "import sys; from tasks.report.__main__ import main; main(); "
        "print([name for name in sys.modules if name in ('paddle', 'openvino', 'onnxruntime', 'onnx')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--job", "demo"],
        cwd=workspace.folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done.stderr
    assert workspace.page() == before
