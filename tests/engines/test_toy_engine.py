"""An engine from outside the package: a job can have it, models are written for it, and it runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from act.engines.check import Checker
from act.engines.evaluation import Evaluation
from act.engines.inspection import ask_engines
from act.engines.spec import title_of
from act.engines.writer import Export
from act.onnx_graph.conversion import to_onnx
from act.program.graph import Graph
from act.program.layers import quantizable_layers
from act.quantization.scheme import make_scheme
from act.registry import ENGINES
from act.samples.dataset import Ragged, Samples
from act.settings import Job, Target
from tests.support import plugins
from tests.support.engines import export
from tests.support.models import first_layers, noise, normalised_classifier, seen
from tests.support.place import JOB

TOY = """
from act.engines.spec import Spec

SPEC = Spec(
    name="toy",
    title="Toy",
    runtime="toy_runtime:Toy",
    writer="act.engines.writer:OnnxWriter",
    reads="onnx",
    int8_operators=("conv2d",),
)
"""
RUNTIME = """
import onnxruntime

from act.engines.base import Engine


class Toy(Engine):
    def version(self):
        return "0.1"

    def precisions(self):
        return ("fp32", "int8")

    def load(self, path, precision, threads):
        self._session = onnxruntime.InferenceSession(str(path))

    def run(self, feeds):
        return self._session.run(None, dict(feeds))
"""


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plugins.install(monkeypatch, tmp_path / "toys", {"engines": {"toy": TOY}})
    (tmp_path / "toys" / "toy_runtime.py").write_text(RUNTIME)


@pytest.mark.usefixtures("toy")
def test_an_engine_from_outside_does_what_one_of_the_package_does(tmp_path: Path) -> None:
    assert "toy" in ENGINES.names() and Target(engines=["toy", "openvino"]).engines[0] == "toy"
    assert "toy" not in Target().engines and title_of("toy") == "Toy"
    model, batch = normalised_classifier(), {"x": noise(2)}
    layers = quantizable_layers(model)
    scheme = make_scheme(model, layers, seen(model, layers, batch, symmetric=True))
    samples = Samples({"x": Ragged.of(list(noise(2)))}, Ragged.of([np.array(0)] * 2))
    for role in ("calibration", "evaluation"):
        samples.save(tmp_path / role)
    evaluation = Evaluation("toy", "top1", tmp_path / "evaluation", None)
    assert evaluation.quality(model, None).value == evaluation.quality(model, scheme).value
    entry = export("int8", model, scheme, tmp_path, Checker(samples), ["toy"])
    assert entry["files"]["toy"] == "int8/toy.onnx" and entry["check"]["toy"] > 0.9
    job = Job.model_validate({**JOB, "target": {"engines": ["toy"]}})
    told = ask_engines(job, Graph(model, {"x": noise(1)}), to_onnx(model), tmp_path)["toy"]
    assert (told.version, told.failure, told.kernels) == ("0.1", None, [])


BROKEN = """
    def operators(self):
        raise RuntimeError("no operators today")
"""


@pytest.mark.usefixtures("toy")
def test_what_an_engine_told_before_it_failed_is_known(tmp_path: Path) -> None:
    """The baseline is measured on it all the same, and its machine is named by this version."""
    (tmp_path / "toys" / "toy_runtime.py").write_text(RUNTIME + BROKEN)
    job, model = Job.model_validate({**JOB, "target": {"engines": ["toy"]}}), normalised_classifier()
    Samples({"x": Ragged.of(list(noise(2)))}, Ragged.of([np.array(0)] * 2)).save(tmp_path / "calibration")
    told = ask_engines(job, Graph(model, {"x": noise(1)}), to_onnx(model), tmp_path)["toy"]
    assert told.failure is not None and "no operators today" in told.failure
    assert (told.version, told.precisions) == ("0.1", ["fp32", "int8"])


WRONG = {
    "gives something else": """
            outer = helper.make_node("Mul", [f"{node.output[0]}.inner", "factor"], [node.output[0]])
            node.output[0] = outer.input[0]
            nodes.append(outer)
""",
    "ends": """
            os.abort()
""",
}
DEPTHWISE = """

class Wrong(Toy):
    def load(self, path, precision, threads):
        model, nodes = onnx.load(path), []
        constants = {each.name for each in model.graph.initializer}
        for node in model.graph.node:
            nodes.append(node)
            if node.op_type != "Conv" or node.input[1] in constants or helper.get_node_attr_value(node, "group") == 1:
                continue
CASE
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        model.graph.initializer.append(helper.make_tensor("factor", onnx.TensorProto.FLOAT, [1], [1.1]))
        self._session = onnxruntime.InferenceSession(model.SerializeToString())
"""


@pytest.mark.parametrize("fault", WRONG)
@pytest.mark.usefixtures("toy")
def test_layers_that_it_computes_wrongly_in_int8_stay_in_float(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    module = ENGINES.load("toy")
    spec = replace(module.SPEC, runtime="toy_runtime:Wrong", int8_operators=("conv2d", "depthwise_conv2d"))
    monkeypatch.setattr(module, "SPEC", spec)
    imports = "import os\nimport onnx\nfrom onnx import helper\n"
    wrong = imports + RUNTIME + DEPTHWISE.replace("CASE\n", WRONG[fault].lstrip("\n"))
    (tmp_path / "toys" / "toy_runtime.py").write_text(wrong)
    model, batch = first_layers(normalised_classifier(), 8), {"x": noise(2)}
    samples = Samples({"x": Ragged.of(list(noise(2)))})
    samples.save(tmp_path / "calibration")
    job = Job.model_validate({**JOB, "target": {"engines": ["toy"]}})
    told = ask_engines(job, Graph(model, {"x": noise(1)}), to_onnx(model), tmp_path)["toy"]
    layers = quantizable_layers(model)
    depthwise = {layer.name for layer in layers if layer.op_type == "depthwise_conv2d"}
    assert told.in_float == depthwise and "int8" in told.precisions and told.failure is None
    assert all(each.kind.startswith("depthwise_conv2d") for each in told.wrong)
    scheme = make_scheme(model, layers, seen(model, layers, batch, symmetric=True))
    made = Export("int8", model, scheme, tmp_path / "int8", Checker(samples), ["toy"], {"toy": depthwise}).write()
    graph = onnx.load(tmp_path / made.files["toy"]).graph
    stored = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    in_int8 = [node.input[1] in stored for node in graph.node if node.op_type == "Conv"]
    assert in_int8.count(False) == len(depthwise) < in_int8.count(True)


def test_without_it_the_settings_name_those_there_are() -> None:
    with pytest.raises(ValueError, match="Input should be 'openvino', 'onnxruntime', .* or 'tensorrt'"):
        Target(engines=["toy"])
