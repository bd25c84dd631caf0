"""Int8 programs for Paddle Inference: what its oneDNN passes get wrong is kept from them, seen on the engine itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from act.engines.paddle_inference import writer as paddle_cpu
from act.engines.process import EngineProcess
from act.metrics import cosine
from act.program.layers import quantizable_layers
from act.program.model import InferenceModel
from act.program.paddle_setup import CPU, paddle
from act.quantization.quantized_program import quantize
from act.quantization.scheme import Scheme, make_scheme
from act.samples.dataset import Ragged, Samples
from tests.support.cpu import similar
from tests.support.models import seen

CHANNELS, SIDE, SAMPLES = 16, 12, 4
Build = Callable[[Any], Any]


def pictures(channels: int = CHANNELS) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(SAMPLES, channels, SIDE, SIDE)).astype(np.float32)


def network(build: Build, seed: int = 0) -> InferenceModel:
    """A small network of convolutions with random weights."""
    program, start, scope = paddle.static.Program(), paddle.static.Program(), paddle.static.Scope()
    program.random_seed = start.random_seed = seed
    with (
        paddle.static.scope_guard(scope),
        paddle.utils.unique_name.guard(),
        paddle.static.program_guard(program, start),
    ):
        x = paddle.static.data("x", [-1, CHANNELS, SIDE, SIDE])
        output = build(x)
        executor = paddle.static.Executor(CPU)
        executor.run(start)
        program = paddle.static.normalize_program(program, [x], [output])
    return InferenceModel(program, scope, ["x"], [output.name])


def squeeze_and_excitation(x: Any) -> Any:
    nn = paddle.nn
    x = nn.functional.relu(nn.Conv2D(CHANNELS, CHANNELS, 3, padding=1)(x))
    gate = nn.Conv2D(4, CHANNELS, 1)(nn.functional.relu(nn.Conv2D(CHANNELS, 4, 1)(nn.AdaptiveAvgPool2D(1)(x))))
    return nn.Conv2D(CHANNELS, 8, 1)(paddle.multiply(x, nn.functional.hardsigmoid(gate)))


def pooled_and_joined(x: Any) -> Any:
    nn = paddle.nn
    x = nn.functional.avg_pool2d(nn.functional.relu(nn.Conv2D(CHANNELS, CHANNELS, 3, padding=1)(x)) ** 3, 6)
    return nn.Conv2D(2 * CHANNELS, 8, 1)(paddle.concat([x, nn.functional.relu(nn.Conv2D(CHANNELS, CHANNELS, 1)(x))], 1))


def scaled(x: Any) -> Any:
    """A dropout that multiplies by what it keeps, as SqueezeNet's does."""
    nn = paddle.nn
    x = nn.functional.relu(nn.Conv2D(CHANNELS, CHANNELS, 3, padding=1)(x))
    x = paddle.concat([nn.functional.relu(nn.Conv2D(CHANNELS, CHANNELS, 1)(x)) for _ in range(2)], axis=1)
    block = paddle.static.default_main_program().global_block()
    kept, mask = (block.create_var(name=name, shape=x.shape, dtype="float32") for name in ("kept", "mask"))
    attributes = {"dropout_prob": 0.75, "is_test": True, "dropout_implementation": "downgrade_in_infer"}
    block.append_op(type="dropout", inputs={"X": [x]}, outputs={"Out": [kept], "Mask": [mask]}, attrs=attributes)
    return nn.functional.relu(nn.Conv2D(2 * CHANNELS, 8, 1)(kept))


def shuffled_halves(x: Any) -> Any:
    nn = paddle.nn
    x = nn.Conv2D(CHANNELS, CHANNELS, 1)(x)
    first, second = paddle.split(x, 2, axis=1)
    second = nn.functional.relu(nn.Conv2D(CHANNELS // 2, CHANNELS // 2, 3, padding=1)(second))
    joined = paddle.concat([first, second], axis=1)
    shuffled = joined.reshape([-1, 2, CHANNELS // 2, SIDE, SIDE]).transpose([0, 2, 1, 3, 4])
    return nn.Conv2D(CHANNELS, 8, 1)(shuffled.reshape([-1, CHANNELS, SIDE, SIDE]))


def product_with_a_heavy_column(x: Any) -> Any:
    heavy = np.random.default_rng(1).normal(size=(CHANNELS, 24)).astype(np.float32)
    heavy[:, 5] *= 20
    features = paddle.nn.AdaptiveAvgPool2D(1)(paddle.nn.Conv2D(CHANNELS, CHANNELS, 3)(x)).flatten(1)
    attribute = paddle.ParamAttr(initializer=paddle.nn.initializer.Assign(heavy))
    return paddle.nn.Linear(CHANNELS, 24, weight_attr=attribute)(features)


def scheme_of(model: InferenceModel) -> Scheme:
    layers = quantizable_layers(model)
    return make_scheme(model, layers, seen(model, layers, {"x": pictures()}, symmetric=True))


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with EngineProcess("paddle_inference", Path(), "int8", 1, 300) as process:
        yield process


def on_the_engine(
    engine: EngineProcess, program: InferenceModel, folder: Path
) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """The outputs, and what the engine says it executes."""
    (folder / "model").mkdir(parents=True)
    program.save(folder / "model")
    Samples({"x": Ragged.of(list(pictures()))}).save(folder / "samples")
    engine.load(folder / "model")
    (outputs,) = engine.outputs(folder / "samples")
    return np.stack(list(outputs)), engine.operators()


# The least similarity is above what the engine gives for the plain quantized program.
@pytest.mark.parametrize(
    ("build", "least"),
    [(squeeze_and_excitation, 0.9999), (pooled_and_joined, 0.999), (scaled, 0.999), (shuffled_halves, 0.99995)],
)
def test_the_engine_computes_what_the_quantized_model_does(
    engine: EngineProcess, build: Build, least: float, tmp_path: Path
) -> None:
    model = network(build)
    scheme = scheme_of(model)
    (wanted,) = quantize(model, scheme).run({"x": pictures()})
    found, executed = on_the_engine(engine, paddle_cpu.int8_program(model, scheme), tmp_path)
    assert executed["multiplying"] == {"int8": {"fused_conv2d": len(scheme.layers)}}
    assert np.mean(list(map(cosine, found, wanted))) > similar(least, where_sums_saturate=0.999)


def test_columns_that_the_engine_would_clip_are_read_in_float(engine: EngineProcess, tmp_path: Path) -> None:
    model = network(product_with_a_heavy_column)
    scheme = scheme_of(model)
    written = paddle_cpu.int8_program(model, scheme)
    (product,) = [layer for layer in quantizable_layers(model) if layer.op_type == "matmul_v2"]
    assert written.weight(product.weight).dtype == np.int8
    assert product.activation not in {op.input("X")[0] for op in written.ops if op.type == "quantize_linear"}
    (wanted,) = quantize(model, scheme).run({"x": pictures()})
    found, executed = on_the_engine(engine, written, tmp_path)
    assert executed["multiplying"] == {"int8": {"fused_conv2d": 1}, "fp32": {"fc": 1}}
    assert np.mean(list(map(cosine, found, wanted))) > 0.999


def test_a_product_of_even_columns_is_not_clipped() -> None:
    even = np.sign(np.random.default_rng(1).normal(size=(CHANNELS, 24))).astype(np.float32)
    assert not paddle_cpu.clips(even)
    even[3, 5] *= 2
    assert paddle_cpu.clips(even)


def test_a_network_that_needs_no_care_gets_none(tmp_path: Path) -> None:
    model = network(lambda x: paddle.nn.Conv2D(CHANNELS, 8, 1)(paddle.nn.functional.relu(x)))
    scheme = scheme_of(model)
    written, plain = paddle_cpu.int8_program(model, scheme), quantize(model, scheme)
    assert [op.type for op in written.ops] == [op.type for op in plain.ops]


def test_zero_points_share_one_constant_for_each_size() -> None:
    model = network(squeeze_and_excitation)
    written = quantize(model, scheme_of(model))
    counts = [name for name in written.weight_names() if name.startswith("zero_points@")]
    assert sorted(counts) == ["zero_points@1", f"zero_points@{CHANNELS}", "zero_points@4", "zero_points@8"]
