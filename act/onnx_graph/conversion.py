"""An fp32 Paddle program as ONNX, by Paddle2ONNX in a process of its own."""

import hashlib
import re
import subprocess
import sys
import tempfile
from collections import Counter
from copy import deepcopy
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from act.errors import InputError
from act.onnx_graph.graph import inferred
from act.onnx_graph.nested import nodes_of
from act.program.files import PROGRAM_FILE, WEIGHTS_FILE
from act.program.model import InferenceModel

OPSET = 14  # the lowest with HardSwish, which all our engines fuse
TIME_LIMIT_SECONDS = 600
_LONGEST_NAME = 160  # of a tensor: beyond it a digest stands for what comes before the last operator
# In a process of its own, because Paddle2ONNX ends the process when it meets an operator that it cannot convert. Its
# compiled part is called with the defaults of `paddle2onnx.export`, whose package would import all of Paddle first.
_CONVERT = """
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path

program, weights, target, opset = sys.argv[1:]
found = PathFinder.find_spec("paddle2onnx_cpp2py_export", find_spec("paddle2onnx").submodule_search_locations)
compiled = module_from_spec(found)
found.loader.exec_module(compiled)
settings = (True, True, True, True, True, {}, "onnxruntime", "", "", False)
Path(target).write_bytes(compiled.export(program, weights, int(opset), *settings))
"""
_COLOURS = re.compile("\x1b\\[[0-9;]*m")


class NotConvertible(InputError):
    """Paddle2ONNX does not convert a program.

    Attributes:
        cause: what it says.
    """

    def __init__(self, cause: str) -> None:
        self.cause = " ".join(cause.split())
        super().__init__(f"Paddle2ONNX cannot convert the model: {self.cause}; build it of operators that ONNX has")


def to_onnx(model: InferenceModel) -> onnx.ModelProto:
    """Convert the fp32 model to ONNX, with weights under their Paddle names; `InputError` says why it cannot.

    Tensors that the program lacks are named by what they are made of, so that a name means the same in models that
    differ elsewhere.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save(folder)
        target = folder / "model.onnx"
        arguments = [str(folder / PROGRAM_FILE), str(folder / WEIGHTS_FILE), str(target), str(OPSET)]
        command = [sys.executable, "-c", _CONVERT, *arguments]
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIME_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise NotConvertible(f"no end after {TIME_LIMIT_SECONDS} s") from None
        if done.returncode != 0 or not target.is_file():
            raise NotConvertible(_reason(done.stdout.decode(errors="replace")))
        converted = onnx.load(target)
    _constants_to_initialisers(converted.graph)
    _name_by_origin(converted.graph, model)
    _name_squeezed_axes(converted)
    try:
        inferred(converted, strict=True)
    except onnx.shape_inference.InferenceError as error:
        raise NotConvertible(f"what it writes is no valid model: {error}") from None
    return converted


def _name_by_origin(graph: onnx.GraphProto, model: InferenceModel) -> None:
    """Name the tensors that the program lacks by what they are made of: the tensor read, the operator, its weight.

    Paddle2ONNX numbers them through the model, so that one more operator anywhere would give all behind it other names.
    """
    constants = {initialiser.name for initialiser in graph.initializer}
    names: dict[str, str] = {}
    made: Counter[str] = Counter()
    for node in graph.node:
        given = [names.get(name, name) for name in node.input if name]
        activation = next((name for name in given if name not in constants), "")
        weights = [name for name in given if name in constants and model.is_weight(name)]
        for output in node.output:
            if output and not model.has(output):
                name = _shortened("/".join([activation, ".".join([node.op_type, *weights])]))
                made[name] += 1
                names[output] = name if made[name] == 1 else f"{name}.{made[name]}"
    for node in nodes_of(graph):
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def _shortened(name: str) -> str:
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{hashlib.sha256(name.encode()).hexdigest()[:16]}/{name.rpartition('/')[2]}"


def _name_squeezed_axes(model: onnx.ModelProto) -> None:
    """Say which axes are taken away where Paddle2ONNX leaves it to lengths: of one box all would be, and OpenVINO
    knows no rank."""
    unnamed = [node for node in model.graph.node if node.op_type == "Squeeze" and len(node.input) == 1]
    if not unnamed:
        return
    graph = inferred(model)
    shapes = {value.name: value.type.tensor_type.shape.dim for value in (*graph.value_info, *graph.input)}
    for node in unnamed:
        axes = [axis for axis, length in enumerate(shapes.get(node.input[0], ())) if length.dim_value == 1]
        if axes:
            name = f"{node.output[0]}.axes"
            model.graph.initializer.append(numpy_helper.from_array(np.array(axes, np.int64), name))
            node.input.append(name)


def with_weights(fp32: onnx.ModelProto, model: InferenceModel) -> onnx.ModelProto | None:
    """Return the ONNX model with the weights of another model of the same program, which is much faster than `to_onnx`.

    None where it does not have every weight of the program as it is; a weight of one value may become one of several.
    """
    result = deepcopy(fp32)
    initialisers = {initialiser.name: initialiser for initialiser in result.graph.initializer}
    for name in model.weight_names():
        if model.consumers(name):
            if name not in initialisers:
                return None
            value, before = model.weight(name), tuple(initialisers[name].dims)
            if before != value.shape and np.prod(before) == value.size:
                value = value.reshape(before)
            elif before != value.shape and np.prod(before) != 1:
                return None
            initialisers[name].CopyFrom(numpy_helper.from_array(value, name))
    return result


def _reason(log: str) -> str:
    """Return the line of Paddle2ONNX's log that tells most: operators that it lacks, or would write in a version of
    ONNX that it does not know, its last error, its last line."""
    lines = [line.strip() for line in _COLOURS.sub("", log).splitlines() if line.strip()]
    telling = [line for sign in ("not supported", "requires opset", "rror") for line in lines if sign in line]
    return (telling or lines[-1:] or ["it gives no reason"])[0].removeprefix("[Paddle2ONNX] ").rstrip(",.")


def _constants_to_initialisers(graph: onnx.GraphProto) -> None:
    """Make initialisers of `Constant` nodes, as which Paddle2ONNX writes weights: engines and quantizers look there."""
    kept = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
