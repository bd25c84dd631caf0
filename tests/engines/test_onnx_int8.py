"""Int8 files for ONNX Runtime and OpenVINO: pairs stand where the engine fuses them, and the numbers stay right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from act import machine
from act.engines.check import Checker
from act.engines.onnxruntime.writer import OnnxRuntimeWriter
from act.engines.paddle_inference import writer as paddle_cpu
from act.engines.writer import Alternatives, Export, OnnxWriter, further_tensors, writer_of
from act.metrics import cosine
from act.onnx_graph.conversion import to_onnx
from act.onnx_graph.graph import Graph
from act.onnx_graph.passes import ends_of_gates, input_to_depth
from act.program.layers import Layer, quantizable_layers
from act.program.model import InferenceModel
from act.quantization.activations import reader
from act.quantization.qdq import Plan, Rules, exact, gate_step, gate_summand
from act.quantization.quantized_program import quantize
from act.quantization.ranges import Range
from act.quantization.scheme import Scheme, make_scheme
from act.samples.dataset import Ragged, Samples
from act.settings import EngineName
from tests.support.cpu import similar
from tests.support.engines import export
from tests.support.models import noise, normalised_classifier

ENGINES: tuple[EngineName, ...] = ("onnxruntime", "openvino")
PIXELS = ["N", 3, 12, 16]
SHAPES = {"w1": (4, 3, 1, 1), "b1": (4,), "w2": (4, 3, 1, 1), "b2": (4,), "w3": (2, 8, 1, 1), "b3": (2,)}
ENDS = [("x", 3, 1), ("y", 2, 2)]
LAYERS = {
    w: Layer(name, "conv2d", a, w, 0) for w, name, a in [("w1", "c1", "x"), ("w2", "c2", "x"), ("w3", "y", "pooled")]
}
RANGES = {
    "x": Range(-3.0, 3.0),
    "r1": Range(0.0, 8.0),
    "r2": Range(0.0, 6.0),
    "joined": Range(0.0, 8.0),
    "pooled": Range(0.0, 8.0),
    "y": Range(-40.0, 30.0),
}


def rules(engine: str) -> Rules:
    found = writer_of(engine).rules
    assert found is not None
    return found


def write(engine: str, fp32: onnx.ModelProto, model: InferenceModel, scheme: Scheme) -> onnx.ModelProto:
    writer = writer_of(engine)
    assert isinstance(writer, OnnxWriter)
    return writer.quantized(fp32, model, scheme)


@pytest.fixture(scope="module")
def model() -> InferenceModel:
    return normalised_classifier()


@pytest.fixture(scope="module")
def fp32(model: InferenceModel) -> onnx.ModelProto:
    return to_onnx(model)


@pytest.fixture(scope="module")
def scheme(model: InferenceModel, fp32: onnx.ModelProto) -> Scheme:
    """All layers, and the ranges of everything else."""
    layers, further = quantizable_layers(model), further_tensors(fp32)
    values = reader(fp32, layers, further)({"x": noise(4)})
    ranges = {name: Range(min(0.0, float(v.min())), max(0.0, float(v.max()))) for name, v in values.items()}
    return replace(make_scheme(model, layers, ranges), further={name: ranges[name] for name in further})


def outputs(
    model: onnx.ModelProto, x: npt.NDArray[np.float32], optimised: Path | None = None
) -> npt.NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: npt.NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: x})[0]
    return result


@pytest.mark.parametrize("engine", ENGINES)
def test_the_file_computes_nearly_what_the_fp32_model_does(
    model: InferenceModel, fp32: onnx.ModelProto, scheme: Scheme, engine: EngineName
) -> None:
    x = noise(4, seed=1)
    found, wanted = outputs(write(engine, fp32, model, scheme), x), outputs(fp32, x)
    assert np.mean(list(map(cosine, found, wanted))) > similar(0.99, where_sums_saturate=0.98)


def test_onnx_runtime_runs_every_layer_and_gate_in_int8(
    model: InferenceModel, fp32: onnx.ModelProto, scheme: Scheme, tmp_path: Path
) -> None:
    outputs(write("onnxruntime", fp32, model, scheme), noise(1), tmp_path / "optimised.onnx")
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    convolutions = sum(node.op_type == "Conv" for node in fp32.graph.node)
    assert kinds["QLinearConv"] == convolutions
    assert not {"Conv", "HardSigmoid", "HardSwish", "Mul", "Relu"} & set(kinds)
    assert kinds["QuantizeLinear"] == 1  # the input


def test_biases_are_int32_and_weights_int8(model: InferenceModel, fp32: onnx.ModelProto, scheme: Scheme) -> None:
    written = write("onnxruntime", fp32, model, scheme).graph
    kinds = {each.name: each.data_type for each in written.initializer}
    makers = {node.output[0]: node for node in written.node}
    for node in written.node:
        if node.op_type == "Conv":
            stored = [kinds[makers[name].input[0]] for name in node.input[1:]]
            assert stored == [onnx.TensorProto.INT8, onnx.TensorProto.INT32][: len(stored)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("flags", [frozenset({"avx2", "avx512f"}), frozenset({"avx2", "avx_vnni"})])
def test_weights_keep_to_seven_bits_only_where_sums_of_products_saturate(
    model: InferenceModel,
    fp32: onnx.ModelProto,
    scheme: Scheme,
    engine: EngineName,
    flags: frozenset[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "cpu_flags", lambda: flags)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    rounded = replace(scheme, integers={"conv2d_10.w_0": np.full_like(model.weight("conv2d_10.w_0"), 127, np.int8)})
    for each in (scheme, rounded):
        written = write(engine, fp32, model, each)
        largest = max(
            int(np.abs(numpy_helper.to_array(stored).astype(int)).max())
            for stored in written.graph.initializer
            if stored.data_type == onnx.TensorProto.INT8 and stored.name.endswith(".quantized")
        )
        assert largest == (127 if "avx_vnni" in flags else 64)
    x = noise(4, seed=1)
    found, wanted = outputs(write(engine, fp32, model, scheme), x), outputs(fp32, x)
    assert np.mean(list(map(cosine, found, wanted))) > 0.98


def test_what_has_no_range_stays_in_float(model: InferenceModel, fp32: onnx.ModelProto, scheme: Scheme) -> None:
    bare = write("onnxruntime", fp32, model, replace(scheme, further={}))
    assert outputs(bare, noise(2)) == pytest.approx(outputs(fp32, noise(2)), abs=0.05)


def test_only_what_runs_in_int8_has_its_bias_corrected(
    model: InferenceModel, fp32: onnx.ModelProto, scheme: Scheme
) -> None:
    bias, made = "conv2d_4.b_0", "conv2d_56.tmp_0"
    corrected = replace(scheme, biases={bias: model.weight(bias) + np.float32(1)})
    in_float = replace(corrected, further={name: span for name, span in scheme.further.items() if name != made})
    written = {each.name: each for each in write("onnxruntime", fp32, model, in_float).graph.initializer}
    assert numpy_helper.to_array(written[bias]) == pytest.approx(model.weight(bias).reshape(-1))
    stored = []
    for each in (corrected, scheme):
        written = {each.name: each for each in write("onnxruntime", fp32, model, each).graph.initializer}
        integers, scale = (numpy_helper.to_array(written[f"{made}.bias.{part}"]) for part in ("quantized", "scale"))
        stored.append(integers * scale)
    assert stored[0] - stored[1] == pytest.approx(np.ones(stored[0].shape), abs=0.01)


def test_where_all_rules_lose_too_much_one_kind_stays_in_float(
    model: InferenceModel, fp32: onnx.ModelProto, scheme: Scheme, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Spoiling(OnnxRuntimeWriter):
        def forms(self, export: Export, scheme: Scheme) -> Iterator[tuple[str, onnx.ModelProto]]:
            for form, written in super().forms(export, scheme):
                for each in written.graph.initializer if "in float" not in form else ():
                    if each.name.endswith(".scale") and each.data_type == onnx.TensorProto.FLOAT:
                        values = numpy_helper.to_array(each) / np.float32(30)
                        each.CopyFrom(numpy_helper.from_array(values, each.name))
                yield form, written

    monkeypatch.setattr("act.engines.onnxruntime.writer.OnnxRuntimeWriter", Spoiling)
    checker = Checker(Samples({"x": Ragged.of(list(noise(4)))}))
    entry = export("int8", model, scheme, tmp_path, checker, ["onnxruntime"])
    assert entry["files"]["onnxruntime"] == "int8/onnxruntime.onnx" and entry["check"]["onnxruntime"] > 0.8
    rounded = Counter(node.op_type for node in onnx.load(tmp_path / "int8" / "onnxruntime.onnx").graph.node)
    whole = Counter(node.op_type for node in write("onnxruntime", fp32, model, scheme).graph.node)
    assert rounded["QuantizeLinear"] <= whole["QuantizeLinear"]


def test_ranges_that_were_best_for_one_candidate_are_tried_first_for_its_like(
    model: InferenceModel, scheme: Scheme
) -> None:
    ranges = {label: {**scheme.further, **scheme.activations} for label in ("mse", "KL", "emd", "avg")}
    alternatives = Alternatives(lambda: ranges)
    assert list(alternatives.of(model, scheme)) == ["mse", "KL", "emd", "avg"]
    alternatives.tried(model, scheme, ["emd", "KL", "avg"])
    alternatives.tried(model, scheme, ["avg"])
    assert list(alternatives.of(model, scheme)) == ["emd", "KL"]
    shifted = {name: Range(0.0, 1.0) for name in scheme.activations}
    assert len(alternatives.of(model, replace(scheme, activations=shifted))) == 4 or not scheme.symmetric
    assert len(alternatives.of(model.copy(), scheme)) == 4


@pytest.mark.parametrize("slope, middle", [(1 / 6, 0.5), (0.2, 0.5), (0.3, 0.2)])
def test_a_gate_is_right_to_half_a_step(slope: float, middle: float) -> None:
    x = np.linspace(-8, 8, 4001)
    step, (integer, scale, zero_point) = gate_step(slope, middle), gate_summand(slope, middle)
    assert step.before is not None
    summand = (int(integer) - int(zero_point)) * float(scale)
    rounded = np.clip(np.round((x + summand) / step.before[0]) + int(step.before[1]), 0, 255)
    found = (rounded - int(step.zero_point)) * float(step.scale)
    assert np.abs(found - np.clip(slope * x + middle, 0, 1)).max() < 0.501 / 255


@pytest.mark.parametrize("value", [-0.3, 0.0, 1.0, 2.5])
def test_a_number_is_kept_exactly(value: float) -> None:
    integer, scale, zero_point = exact(value)
    assert (int(integer) - int(zero_point)) * float(scale) == pytest.approx(value, rel=1e-6)


def two_branches() -> onnx.ModelProto:
    """x -> two convolutions with ReLU -> Concat -> MaxPool -> convolution."""
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["x", "w2", "b2"], ["c2"]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Concat", ["r1", "r2"], ["joined"], axis=1),
        helper.make_node("MaxPool", ["joined"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["pooled", "w3", "b3"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", c, 8 // k, 8 // k]) for name, c, k in ENDS
    ]
    constants = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "two branches", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)


def planned(engine: EngineName) -> tuple[Plan, onnx.ModelProto]:
    graph = Graph(two_branches())
    plan = Plan(graph, rules(engine), LAYERS, RANGES, {})
    thresholds = {w: np.abs(graph.constant(w)).max(axis=(1, 2, 3)) for w in LAYERS}
    plan.insert_qdq(Scheme(tuple(each.name for each in LAYERS.values()), RANGES, thresholds))
    return plan, graph.model()


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_joined_has_one_scale_and_no_negative_half(engine: EngineName) -> None:
    plan, written = planned(engine)
    (step,) = {plan.steps[name] for name in ("r1", "r2", "joined", "pooled")}
    assert (step.scale, step.zero_point) == (pytest.approx(8 / 255), 0)
    x = np.random.default_rng(1).uniform(-3, 3, size=(2, 3, 8, 8)).astype(np.float32)
    assert cosine(outputs(written, x), outputs(two_branches(), x)) > similar(0.999, where_sums_saturate=0.99)


def test_what_an_activation_function_clipped_keeps_its_scale_behind_a_pool() -> None:
    model = two_branches()
    conv, relu, other, _, joined, *rest = model.graph.node
    pool = helper.make_node("MaxPool", ["r1"], ["p1"], kernel_shape=[1, 1])
    joined.input[:] = ["p1", "c2"]
    del model.graph.node[:]
    model.graph.node.extend([conv, relu, other, pool, joined, *rest])
    graph = Graph(model)
    ranges = {**RANGES, "p1": Range(0.0, 8.0), "c2": Range(-9.0, 6.0), "joined": Range(-9.0, 8.0)}
    plan = Plan(graph, rules("onnxruntime"), LAYERS, ranges, {})
    # With a negative half the pair would not clip what the ReLU does, which would stay, and its convolution in float.
    assert (plan.steps["r1"].scale, plan.steps["r1"].zero_point) == (pytest.approx(8 / 255), 0)
    assert plan.steps["p1"] == plan.steps["r1"] and plan.steps["joined"].zero_point > 0


@pytest.mark.parametrize("padding, fits", [(0.0, True), (-1.0, False)])
def test_a_leaky_function_zeros_around_and_a_computed_shape_stay_in_int8(padding: float, fits: bool) -> None:
    model = two_branches()
    conv, relu, other, _, joined, pool, last = model.graph.node
    relu.op_type = "LeakyRelu"
    for name, value in (("around", np.zeros(8, np.int64)), ("padding", np.array(padding, np.float32))):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    pad = helper.make_node("Pad", ["r1", "around", "padding"], ["p1"])
    joined.input[:] = ["p1", "c2"]
    shape = helper.make_node("Shape", ["joined"], ["shape"])
    reshape = helper.make_node("Reshape", ["joined", "shape"], ["reshaped"])
    pool.input[0] = "reshaped"
    nodes = [conv, relu, other, pad, joined, shape, reshape, pool, last]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    ranges = {
        **RANGES,
        "c1": Range(-8.0, 8.0),
        "r1": Range(-1.0, 8.0),
        "c2": Range(-9.0, 6.0),
        "joined": Range(-9.0, 8.0),
    }
    plan = Plan(Graph(model), rules("onnxruntime"), LAYERS, ranges, {})
    assert (plan.made >= {"r1", "p1", "joined", "reshaped", "pooled"}) == fits


def test_pairs_stand_where_each_engine_wants_them() -> None:
    assert planned("onnxruntime")[0].rounded == set(RANGES) - {"y"}
    assert planned("openvino")[0].rounded == {"x", "r1", "r2"}


@pytest.mark.parametrize("engine", ENGINES)
def test_boxes_and_scores_behind_the_last_layers_are_not_rounded(engine: EngineName) -> None:
    model = two_branches()
    large = numpy_helper.from_array(np.array(640, np.float32), "large")
    model.graph.initializer.append(large)
    model.graph.node.extend(
        [
            helper.make_node("Sigmoid", ["y"], ["scores"]),
            helper.make_node("Mul", ["scores", "large"], ["boxes"]),
            helper.make_node("Concat", ["boxes", "scores"], ["found"], axis=1),
        ]
    )
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("found", onnx.TensorProto.FLOAT, ["N", 4, 4, 4]))
    graph = Graph(model)
    ranges = {**RANGES, "scores": Range(0.0, 1.0), "boxes": Range(0.0, 640.0), "found": Range(0.0, 640.0)}
    plan = Plan(graph, rules(engine), LAYERS, ranges, {})
    assert plan.rounded.isdisjoint({"y", "scores", "boxes", "found"}) and "x" in plan.rounded
    plan = Plan(Graph(model), replace(rules(engine), round_ends=True), LAYERS, ranges, {})
    assert plan.rounded.isdisjoint({"scores", "boxes", "found"}) and ("y" in plan.rounded) == (engine == "onnxruntime")


def test_what_is_only_averaged_is_rounded_as_before() -> None:
    model = two_branches()
    model.graph.node.append(helper.make_node("GlobalAveragePool", ["y"], ["mean"]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("mean", onnx.TensorProto.FLOAT, ["N", 2, 1, 1]))
    plan = Plan(Graph(model), rules("onnxruntime"), LAYERS, RANGES, {})
    assert "y" in plan.rounded


def test_a_weak_channel_makes_room_for_its_bias() -> None:
    model = two_branches()
    for each in model.graph.initializer:
        if each.name == "w1":
            each.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(each) * np.float32(1e-12), "w1"))
    graph = Graph(model)
    plan = Plan(graph, rules("onnxruntime"), LAYERS, RANGES, {})
    thresholds = {w: np.abs(graph.constant(w)).max(axis=(1, 2, 3)) for w in LAYERS}
    plan.insert_qdq(Scheme((), RANGES, thresholds))
    x = np.zeros((1, 3, 8, 8), dtype=np.float32)
    assert cosine(outputs(graph.model(), x), outputs(model, x)) > 0.99


@pytest.mark.parametrize("kernel, pad", [(3, 1), (7, 3), (3, 0), (5, 2)])
def test_blocks_of_pixels_give_the_same_sums(kernel: int, pad: int) -> None:
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.normal(size=(4, 3, kernel, kernel)).astype(np.float32), "w")
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in [("x", PIXELS), ("y", ["N", 4, None, None])]
    ]
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2], pads=[pad] * 4)
    graph = helper.make_graph([node], "first layer", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    rewritten = Graph(model)
    assert list(input_to_depth(rewritten)) == ["w"]
    x = rng.normal(size=(2, 3, 12, 16)).astype(np.float32)
    assert outputs(rewritten.model(), x) == pytest.approx(outputs(model, x), abs=1e-5)


def test_paddle_rounds_the_summands_of_residual_additions(model: InferenceModel, scheme: Scheme) -> None:
    symmetric = replace(
        scheme,
        activations={name: Range.around_zero(span.threshold) for name, span in scheme.activations.items()},
        further={name: Range.around_zero(span.threshold) for name, span in scheme.further.items()},
    )
    plain, written = quantize(model, symmetric), paddle_cpu.int8_program(model, symmetric)
    pairs = [sum(op.type == "quantize_linear" for op in each.ops) for each in (plain, written)]
    assert pairs[1] > pairs[0]
    (found,), (wanted,) = written.run({"x": noise(4)}), model.run({"x": noise(4)})
    assert np.mean(list(map(cosine, found, wanted))) > 0.99
    assert len(paddle_cpu.int8_program(model, scheme).ops) == len(quantize(model, scheme).ops)  # zero points: as it was


def test_ranges_end_where_gates_close_and_where_nothing_was_seen() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["before"]),
        helper.make_node("HardSwish", ["before"], ["a"]),
        helper.make_node("HardSigmoid", ["before"], ["b"], alpha=0.2, beta=0.5),
        helper.make_node("Relu", ["a"], ["seen"]),
        helper.make_node("HardSwish", ["seen"], ["c"]),
        helper.make_node("Add", ["seen", "b"], ["d"]),
        helper.make_node("Add", ["c", "d"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 4]) for name in ("x", "y")]
    graph = Graph(helper.make_model(helper.make_graph(nodes, "gates", ends[:1], ends[1:])))
    assert ends_of_gates(graph) == {"before": -3.0}


def test_a_symmetric_scheme_wastes_nothing_on_what_was_never_seen(
    model: InferenceModel, fp32: onnx.ModelProto, scheme: Scheme
) -> None:
    symmetric = {name: Range.around_zero(span.threshold) for name, span in scheme.activations.items()}
    further = {name: Range.around_zero(span.threshold) for name, span in scheme.further.items()}
    wide = replace(scheme, activations=symmetric, further=further)
    close = replace(wide, extremes={**scheme.further, **scheme.activations})
    steps = [
        {
            each.name: numpy_helper.to_array(each)
            for each in write("onnxruntime", fp32, model, form).graph.initializer
            if each.name.endswith(".scale") and not each.dims
        }
        for form in (wide, close)
    ]
    assert steps[0].keys() == steps[1].keys()
    finer = [float(steps[1][name] / steps[0][name]) for name in steps[0]]
    assert max(finer) <= 1.001 and np.mean(finer) < 0.9
    # OpenVINO's kernels are fastest without zero points: there nothing changes.
    files = [write("openvino", fp32, model, each).SerializeToString() for each in (wide, close)]
    assert files[0] == files[1]
