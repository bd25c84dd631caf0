"""Each real engine, on the PP-OCR direction classifier: same outputs as Paddle, and refusals that name their reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import onnx
import pytest

from act.engines.paddle_inference.runtime import PaddleTensorRt
from act.engines.process import EngineFailure, EngineProcess
from act.engines.spec import all_specs
from act.machine import cpu_flags
from act.metrics import cosine
from act.onnx_graph.conversion import to_onnx
from act.program.model import InferenceModel
from act.samples.dataset import Array, Ragged, Samples
from tests.support.models import CLASSIFIER, noise

# Those of the environment that the tests run in; for the others see test_paddle_lite.py, and what lacks here.
Process = Callable[[str], EngineProcess]
OURS = [spec.name for spec in all_specs() if spec.default is not None]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    loaded = InferenceModel.load(CLASSIFIER)
    loaded.save(folder)
    onnx.save(to_onnx(loaded), folder / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples") / "noise"
    Samples({"x": Ragged.of(list(noise(6)))}).save(folder)
    return folder


@pytest.fixture(scope="module")
def reference() -> Array:
    (outputs,) = InferenceModel.load(CLASSIFIER).run({"x": noise(6)})
    return outputs


@pytest.fixture(scope="module")
def process() -> Iterator[Process]:
    """Give the one process of each engine: to start one takes longer than most of what is asked of it here."""
    with ExitStack() as stack:
        yield cache(lambda name: stack.enter_context(EngineProcess(name, Path(), "fp32", 1, 300)))


def path_for(engine: str, model: Path) -> Path:
    return model if engine == "paddle_inference" else model / "model.onnx"


@pytest.mark.parametrize(("name", "kind"), [("openvino", "Convolution"), ("onnxruntime", "Conv")])
def test_every_kernel_has_its_kind_precision_shape_and_time(
    process: Process, name: str, kind: str, model: Path, samples: Path
) -> None:
    engine = process(name)
    engine.load(model / "model.onnx", "fp32")
    engine.warm_up(samples, 1, 0.5)
    kernels = engine.profile(samples, 1)
    assert {kernel["precision"] for kernel in kernels if kind in kernel["kind"]} == {"f32"}
    assert sum(kind in kernel["kind"] for kernel in kernels) > 20
    assert all(kernel["seconds"] >= 0 for kernel in kernels) and any(kernel["seconds"] > 0 for kernel in kernels)
    assert all(kernel["shape"] for kernel in kernels if kind in kernel["kind"])


@pytest.mark.parametrize("name", OURS)
def test_fp32_agrees_with_paddle(process: Process, name: str, model: Path, samples: Path, reference: Array) -> None:
    engine = process(name)
    info = engine.load(path_for(name, model), "fp32")
    assert info.version and "fp32" in info.precisions and "int8" in info.precisions
    assert info.description["threads"] == 1
    (alone,) = engine.outputs(samples)
    (together,) = engine.outputs(samples, batch=4)  # the batch axis is dynamic; 6 is no multiple of 4
    assert len(engine.time(samples, 1, 3)) == 3
    np.testing.assert_allclose(np.stack(list(alone)), reference, atol=1e-5)
    np.testing.assert_allclose(np.stack(list(together)), reference, atol=1e-5)


@pytest.mark.parametrize("name", ["openvino", "paddle_inference"])
def test_bf16_runs_where_the_cpu_has_it_and_is_refused_elsewhere(
    process: Process, name: str, model: Path, samples: Path, reference: Array
) -> None:
    engine = process(name)
    if not {"avx512_bf16", "amx_bf16"} & cpu_flags():
        with pytest.raises(EngineFailure, match="unsupported"):
            engine.load(path_for(name, model), "bf16")
        return
    engine.load(path_for(name, model), "bf16")
    (outputs,) = engine.outputs(samples)
    different = np.abs(np.stack(list(outputs)) - reference).max()
    assert different > 0, "nothing ran in bf16"
    assert cosine(np.stack(list(outputs)), reference) > 0.99


@pytest.mark.parametrize("name", OURS)
def test_a_wrong_path_is_an_error(process: Process, name: str, tmp_path: Path) -> None:
    with pytest.raises(EngineFailure) as failure:
        process(name).load(tmp_path / "nowhere", "fp32")
    assert failure.value.kind == "error" and "nowhere" in failure.value.cause


@pytest.mark.parametrize("name", OURS)
def test_a_damaged_model_is_a_failure_with_a_cause(name: str, model: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in model.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with EngineProcess(name, path_for(name, damaged), "fp32", 1, 60) as engine, pytest.raises(EngineFailure) as failure:
        engine.load()
    assert failure.value.kind in ("error", "crash") and failure.value.cause


def test_onnxruntime_has_no_bf16(process: Process, model: Path) -> None:
    with pytest.raises(EngineFailure, match="unsupported: no bf16 here"):
        process("onnxruntime").load(model / "model.onnx", "bf16")


def test_paddles_own_kernels_agree_and_offer_fp32_only(model: Path, samples: Path, reference: Array) -> None:
    with EngineProcess("paddle_native", model, "fp32", 1, 60) as engine:
        info = engine.load()
        assert info.precisions == ["fp32"] and info.description["onednn"] is False
        (outputs,) = engine.outputs(samples)
    np.testing.assert_allclose(np.stack(list(outputs)), reference, atol=1e-5)


@pytest.mark.parametrize("name", OURS)
def test_several_streams_run_at_the_same_time(process: Process, name: str, model: Path, samples: Path) -> None:
    engine = process(name)
    engine.load(path_for(name, model), "fp32")
    assert engine.throughput(samples, 2, 2, 0.05) > 0


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_tensorrt_is_asked_for_the_precision_that_is_wanted(precision: Any) -> None:
    from paddle import inference

    config = Mock()
    PaddleTensorRt()._choose_kernels(config, precision)
    config.enable_use_gpu.assert_called_once()
    asked = config.enable_tensorrt_engine.call_args.kwargs
    wanted = {"fp32": "Float32", "fp16": "Half", "int8": "Int8"}[precision]
    assert asked["precision_mode"] == getattr(inference.PrecisionType, wanted)
    assert asked["use_calib_mode"] is False
    # The real class knows all these arguments: a build without TensorRT gets as far as missing it.
    if inference.get_trt_compile_version() == (0, 0, 0):
        with pytest.raises(RuntimeError, match="compile with TENSORRT"):
            inference.Config().enable_tensorrt_engine(**asked)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_engines_tell_which_layers_run_in_int8_and_what_they_did_not_fuse(
    process: Process, name: str, tmp_path: Path
) -> None:
    quantized, engine = quantized_pair(tmp_path / "pair.onnx"), process(name)
    engine.load(quantized, "int8")
    told = engine.operators()
    counts = {precision: sum(kinds.values()) for precision, kinds in told["multiplying"].items()}
    # The second convolution has float weights: it stays in float, and what it reads is dequantized before it.
    assert counts == {"int8": 1, "fp32": 1}
    assert sum(told["conversions"].values()) >= 1
    assert list(tmp_path.iterdir()) == [quantized]


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("openvino", {"Convolution": ["y", "z"]}), ("onnxruntime", {"FusedConv": ["z"], "Conv": ["z"]})],
)
def test_engines_tell_what_each_kernel_stands_for(
    process: Process, name: str, kinds: dict[str, list[str]], tmp_path: Path
) -> None:
    weight = np.random.default_rng(0).normal(size=(16, 16, 3, 3)).astype(np.float32)
    nodes = [onnx.helper.make_node("Conv", ["x", "w"], ["y"], "y"), onnx.helper.make_node("Relu", ["y"], ["z"], "z")]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 16, "h", "w"]) for name in ("x", "z")
    ]
    graph = onnx.helper.make_graph(nodes, "two", ends[:1], ends[1:], [onnx.numpy_helper.from_array(weight, "w")])
    path = tmp_path / "two.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8), path)
    engine = process(name)
    engine.load(path, "fp32")
    told = engine.kernels()
    assert engine.operators()["multiplying"] == {"fp32": {kind: 1 for kind in kinds if kind in str(told)}}
    (layer,) = [kernel for kernel in told if kernel.kind in kinds]
    assert layer.precision == "fp32" and list(tmp_path.iterdir()) == [path]
    if name == "openvino":
        assert layer.names == kinds[layer.kind]
    else:  # on blocks of channels it bears the convolution's name, and the relu is in it
        assert layer.names in (["y"], ["z"])
        assert not [kernel for kernel in told if kernel.kind == "Relu"]


def quantized_pair(path: Path) -> Path:
    """Two convolutions, the first with everything quantized that an engine needs to run it in int8."""
    weight = np.random.default_rng(0).integers(-127, 128, size=(16, 16, 3, 3)).astype(np.int8)
    constants = {
        "q": weight,
        "w_scale": np.full(16, 0.01, dtype=np.float32),
        "w_zero": np.zeros(16, dtype=np.int8),
        "scale": np.array(0.05, dtype=np.float32),
        "zero": np.array(128, dtype=np.uint8),
        "w": weight.astype(np.float32) / 100,
    }
    pairs = []
    for source in ("x", "y"):
        pairs.append(onnx.helper.make_node("QuantizeLinear", [source, "scale", "zero"], [f"{source}q"]))
        pairs.append(onnx.helper.make_node("DequantizeLinear", [f"{source}q", "scale", "zero"], [f"{source}d"]))
    nodes = [
        *pairs[:2],
        onnx.helper.make_node("DequantizeLinear", ["q", "w_scale", "w_zero"], ["wd"], axis=0),
        onnx.helper.make_node("Conv", ["xd", "wd"], ["y"]),
        *pairs[2:],
        onnx.helper.make_node("Conv", ["yd", "w"], ["z"]),
    ]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 16, "h", "w"]) for name in ("x", "z")
    ]
    initialisers = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = onnx.helper.make_graph(nodes, "pair", ends[:1], ends[1:], initialisers)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8), path)
    return path
