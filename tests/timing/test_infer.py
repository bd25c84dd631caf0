"""The stand-alone measurement: its settings, what it makes of a model, and whole runs as a user starts them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from act.errors import InputError
from act.results.benchmark import FailedVariant, InferFailed, InferFigures, InferRan, RanVariant
from act.samples.dataset import FeedSpec
from act.timing.infer.measure import plans
from act.timing.infer.models import Model, input_shapes, random_samples, read_model
from act.timing.infer.settings import Infer, read
from act.timing.infer.table import render
from tests.support.commands import run_module
from tests.support.measured import MACHINE, entry, failed, noise
from tests.support.models import CLASSIFIER

ROOT = Path(__file__).parents[2]


def convolution(path: Path, quantized: bool = False) -> Path:
    """A small ONNX model, one convolution over pictures of any size."""
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes, source = [], "x"
    constants = [numpy_helper.from_array(weight, "w")]
    if quantized:
        constants += [
            numpy_helper.from_array(np.array(0.01, dtype=np.float32), "scale"),
            numpy_helper.from_array(np.array(0, dtype=np.uint8), "zero"),
        ]
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        ]
        source = "d"
    nodes.append(helper.make_node("Conv", [source, "w"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, "a", "b"])],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    for name in ("inference.pdmodel", "inference.pdiparams"):
        shutil.copy(CLASSIFIER / name, tmp_path / "model")
    convolution(tmp_path / "fp32.onnx")
    convolution(tmp_path / "int8.onnx", quantized=True)
    return tmp_path


SHORT = ("--rounds", "3", "--runs_per_round", "2", "--seconds", "0")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_module("act.timing.infer.__main__", [*SHORT, *arguments], folder)


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def model(*shape: int, dtype: str = "float32", quantized: bool = False, kind: Any = "onnx") -> Model:
    return Model("m", kind, {}, [FeedSpec("x", dtype, shape)], quantized)


def test_the_shipped_settings_are_right_and_have_every_documented_field() -> None:
    settings = read(ROOT / "configs" / "infer.yaml", {})
    assert settings.image_size == ((48, 320),) and settings.precision == "int8"
    documented = """inference_model_dir model_filename params_filename batch_size image_size use_tensorrt use_gpu
        enable_mkldnn use_fp16 use_int8"""
    assert set(documented.split()) <= set(yaml.safe_load((ROOT / "configs" / "infer.yaml").read_text()))


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        ({"batch_sise": 1}, ["`batch_sise` is not a known key", "batch_size"]),
        ({"batch_size": "two"}, ["`batch_size` is 'two'", "integer"]),
        ({"batch_size": 0}, ["`batch_size` is 0", "greater than"]),
        ({"use_gpu": "yes please"}, ["`use_gpu`", "boolean"]),
        ({"image_size": "big"}, ["`image_size` is 'big'", "48x320"]),
        ({"image_size": [224, 0]}, ["`image_size`", "from 1 to"]),
        ({"image_size": True}, ["`image_size`", "whole number"]),
        ({"image_size": []}, ["`image_size`", "at least one"]),
        ({"use_tensorrt": True}, ["`use_tensorrt` is set without `use_gpu`"]),
        ({"use_int8": True, "use_fp16": True}, ["`use_fp16` and `use_int8`"]),
        ({"compare": ["a.onnx=int7"]}, ["`compare.0`", "`int7` in `a.onnx=int7`", "int8"]),
        ({"inference_model_dir": 5}, ["`inference_model_dir` is 5", "string"]),
        ({"inference_model_dir": None}, ["`inference_model_dir`"]),
    ],
)
def test_wrong_settings_are_named_with_their_file(tmp_path: Path, change: dict[str, Any], fragments: list[str]) -> None:
    path = tmp_path / "infer.yaml"
    path.write_text(yaml.safe_dump({"inference_model_dir": "m", **change}))
    with pytest.raises(InputError) as caught:
        read(path, {})
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    for fragment in fragments:
        assert fragment in message


def test_flags_win_over_the_file_and_are_named_as_the_origin(tmp_path: Path) -> None:
    path = tmp_path / "infer.yaml"
    path.write_text("{inference_model_dir: m, batch_size: 2, image_size: [64, 32x48]}")
    settings = read(path, {"batch_size": 4})
    assert (settings.batch_size, settings.image_size) == (4, ((64, 64), (32, 48)))
    with pytest.raises(InputError, match="infer.yaml and the command line: `batch_size`"):
        read(path, {"batch_size": -1})
    with pytest.raises(InputError, match="the command line: `inference_model_dir` is missing"):
        read(None, {})


def test_dynamic_axes_get_their_lengths_and_fixed_ones_keep_theirs() -> None:
    def shape(*axes: int) -> tuple[int, ...]:
        return input_shapes(model(*axes), 2, (48, 320), 77)["x"]

    assert shape(-1, 3, -1, -1) == (2, 3, 48, 320)
    assert shape(-1, -1, -1, -1) == (2, 3, 48, 320)
    assert shape(-1, -1, -1, 3) == (2, 48, 320, 3)
    assert shape(-1, 3, 48, -1) == (2, 3, 48, 320)
    assert shape(2, 1, 28, 28) == (2, 1, 28, 28)
    assert shape(-1, -1) == (2, 77)
    with pytest.raises(InputError, match="input `x` has a batch axis of 8, but `batch_size` is 2"):
        shape(8, 3)
    with pytest.raises(InputError, match="no batch axis"):
        shape()


def test_random_data_has_the_type_of_the_input_and_the_seed_fixes_it() -> None:
    floats = random_samples(model(-1, 5), {"x": (2, 5)}, 2, seed=3)
    assert len(floats) == 8 and floats.feeds["x"].dtype == np.float32
    assert 0 <= floats.feeds["x"].flat.min() < floats.feeds["x"].flat.max() < 1
    again = random_samples(model(-1, 5), {"x": (2, 5)}, 2, seed=3)
    assert np.array_equal(floats.feeds["x"].flat, again.feeds["x"].flat)
    tokens = random_samples(model(-1, 5, dtype="int64"), {"x": (2, 5)}, 2, seed=3).feeds["x"]
    assert tokens.dtype == np.int64 and set(tokens.flat) == {0, 1}
    with pytest.raises(InputError, match="no random data"):
        random_samples(model(-1, dtype="str"), {"x": (1,)}, 1, seed=0)


def test_the_model_is_read_as_it_is(folder: Path) -> None:
    paddle = read_model(folder / "model")
    assert (paddle.kind, paddle.quantized) == ("paddle", False)
    assert paddle.feeds == [FeedSpec("x", "float32", (-1, 3, -1, -1))]
    assert read_model(folder, model_filename="int8.onnx").quantized and not read_model(folder / "fp32.onnx").quantized
    (folder / "damaged.onnx").write_bytes((folder / "fp32.onnx").read_bytes()[:99])
    for name, fragment in (("damaged.onnx", "damaged"), ("nowhere.onnx", "no such file"), ("nowhere", "no such")):
        with pytest.raises(InputError, match=fragment):
            read_model(folder / name)


@pytest.mark.parametrize(
    ("path", "switches", "expected"),
    [
        ("model", {}, [("paddle_inference", "fp32", None)]),
        ("model", {"enable_mkldnn": False}, [("paddle_native", "fp32", None)]),
        ("model", {"use_gpu": True}, [("paddle_gpu", "fp32", None)]),
        ("model", {"use_gpu": True, "use_tensorrt": True, "use_fp16": True}, [("paddle_tensorrt", "fp16", None)]),
        ("model", {"use_int8": True}, [("paddle_inference", "int8", "no quantize/dequantize operators")]),
        ("fp32.onnx", {"use_bf16": True}, [("onnxruntime", "bf16", None), ("openvino", "bf16", None)]),
        ("fp32.onnx", {"use_gpu": True}, [("onnxruntime_cuda", "fp32", None)]),
        ("int8.onnx", {"engines": ["openvino"]}, [("openvino", "int8", None)]),
        ("int8.onnx", {"engines": ["openvino"], "use_bf16": True}, [("openvino", "int8+bf16", None)]),
    ],
)
def test_what_runs_where(
    folder: Path, path: str, switches: dict[str, Any], expected: list[tuple[str, str, str | None]]
) -> None:
    found = plans(Infer.model_validate({"inference_model_dir": str(folder / path), **switches}))
    assert [(plan.row.engine, plan.row.precision) for plan in found] == [row[:2] for row in expected]
    for plan, (_, _, refusal) in zip(found, expected):
        assert (refusal in plan.refusal) if refusal and plan.refusal else plan.refusal is refusal
    assert (found[0].row.note is not None) == (path == "int8.onnx")


def test_models_side_by_side_in_a_table_and_as_json(folder: Path) -> None:
    before = hashes(folder)
    command = [sys.executable, "-m", "act.timing.infer", *SHORT]
    command += ["--inference_model_dir", "model", "--image_size", "48x64", "48x96", "--use_int8", "false"]
    command += ["--compare", "int8.onnx", "fp32.onnx=bf16", "--streams", "2", "--json", "figures.json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    figures = json.loads((folder / "figures.json").read_text())
    assert hashes(folder).items() - before.items() == {("figures.json", hashes(folder)["figures.json"])}
    rows = {(row["model"], row["engine"]): row for row in figures["models"]}
    first, int8 = rows["model", "paddle_inference"], rows["int8.onnx", "onnxruntime"]
    assert figures["compared_with"] == 0 and first["speedup"] == {"value": 1, "low": 1, "high": 1}
    assert (first["precision"], int8["precision"], int8["quantized"]) == ("fp32", "int8", True)
    for row in (first, int8):
        assert [shape["inputs"]["x"] for shape in row["shapes"]] == [[1, 3, 48, 64], [1, 3, 48, 96]]
        assert (
            row["latency"]["runs"] == 6 and row["speedup"]["low"] <= row["speedup"]["value"] <= row["speedup"]["high"]
        )
        assert row["throughput"]["streams"] == 2 and row["throughput"]["per_second"] > 0
        assert row["peak_rss_bytes"] > 10**7 and row["load_seconds"] > 0 and row["warm_up"]["first_ms"] > 0
    assert int8["operators"]["multiplying"] == {"fp32": {"Conv": 1}}  # its weights are float: nothing to run in int8
    assert int8["operators"]["conversions"] == {"QuantizeLinear": 1, "DequantizeLinear": 1}
    refused = rows["fp32.onnx", "onnxruntime"]["failure"]
    assert refused["kind"] == "unsupported" and "no bf16 here" in refused["cause"]
    assert figures["noise"]["cores_used_by_others"] >= 0
    for fragment in ("1x3x48x96", "times as fast as row 1", "no bf16 here; this engine offers fp32, int8"):
        assert fragment in done.stdout


def test_what_this_machine_lacks_is_said_with_its_cure_and_is_no_success(folder: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has what the test wants to be missing")
    done = run(folder, "--inference_model_dir", "fp32.onnx", "--use_gpu", "--use_tensorrt", "--compare", "model")
    assert done.returncode == 1, done.stderr
    assert "missing: this ONNX Runtime" in done.stdout and "onnxruntime-gpu" in done.stdout
    assert "missing: this Paddle" in done.stdout and "paddlepaddle-gpu" in done.stdout
    assert "Traceback" not in done.stderr


def test_wrong_input_ends_with_one_line_and_code_two(folder: Path) -> None:
    (folder / "infer.yaml").write_text("{inference_model_dir: model, use_gpu: perhaps}")
    for arguments, fragment in (
        (["--config", "infer.yaml"], "infer.yaml and the command line: `use_gpu` is 'perhaps'"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--inference_model_dir", "model", "--batch_size", "two"], "`batch_size` is 'two'"),
        (["--inference_model_dir", "nowhere"], "nowhere: no such folder"),
        (["--inference_model_dir", "model", "--json", "no/where.json"], "no/where.json: there is no such folder"),
    ):
        done = run(folder, *arguments)
        last = done.stderr.strip().splitlines()[-1]
        assert done.returncode == 2 and last.startswith("error: ") and fragment in last


def row(model: str, note: str | None, variant: RanVariant | FailedVariant) -> InferRan | InferFailed:
    kind = InferFailed if isinstance(variant, FailedVariant) else InferRan
    figures = {name: value for name, value in variant if name in kind.model_fields}
    return kind(**{**figures, "model": model, "quantized": False, "note": note})


def test_the_table_shortens_names_and_says_what_disturbed(tmp_path: Path) -> None:
    figures = InferFigures(
        settings={"cpu_num_threads": 1, "batch_size": 1},
        measured_at="now",
        machine=MACHINE,
        compared_with=0,
        noise=noise(True, "other processes used 0.50 of its 2 cores"),
        models=[
            row("/a/x/fp32/m.onnx", None, entry("openvino", "fp32", 10, 0.8)),
            row("/a/y/fp32/m.onnx", "a note", entry("openvino", "int8", 4, 0.8)),
            row("/a/y/fp32/m.onnx", None, failed("onnxruntime", "int8", "crash", "ended by SIGSEGV")),
        ],
    )
    lines = render(figures).splitlines()
    assert lines[1].split()[:5] == ["1", "x/fp32/m.onnx", "openvino", "fp32", "1x3x48x320"]
    assert "2.50 (2.42 to 2.58)" in lines[2] and "375.0 (2 streams)" in lines[2]
    assert lines[3].endswith("crash, see below")
    assert lines[4:7] == [
        "row 2: a note",
        "row 2: 30 of 32 layers in int8; 2 MatMul in fp32; not fused: 4 QuantizeLinear",
        "row 3: crash: ended by SIGSEGV",
    ]
    assert "other processes used 0.50" in lines[-1]
