"""Functions of TensorFlow: of a SavedModel, of a frozen graph, of Keras's models; each converted and run alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.eager.polymorphic_function.concrete_function import ConcreteFunction
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from act.errors import InputError, quoted
from act.formats._tensorflow.graph import functions_called, operators_of, refuse_reaching_out, write_onnx
from act.formats._worker import Run
from act.samples.dataset import Array

_SIGNATURE = "serving_default"
_INITIALISER = "__saved_model_init_op"
# Of a frozen graph: what is no result although nobody uses it.
_NO_RESULTS = ("Assert", "Const", "NoOp", "Placeholder", "PlaceholderWithDefault")
_VARIABLES = ("Variable", "VariableV2", "VarHandleOp")


@dataclass(frozen=True)
class Reader:
    """How a format's files are converted and loaded."""

    open: Callable[[Path], "Function | Graph"]

    def convert(self, files: Sequence[Path], target: Path) -> None:
        """Write the ONNX model of the files."""
        self.open(files[0]).write(target)

    def load(self, files: Sequence[Path]) -> Run:
        """Load the files into TensorFlow."""
        return self.open(files[0]).run


@dataclass(frozen=True)
class Function:
    """A function that takes and returns a list of tensors, with the user's names of them in order.

    Attributes:
        source: what it is made of, which it does not keep alive itself.
    """

    source: Any
    concrete: Any
    inputs: Sequence[str]
    outputs: Sequence[str]

    @classmethod
    def trace(
        cls, source: Any, call: Callable[..., Any], inputs: Mapping[str, Any], outputs: Sequence[str]
    ) -> "Function":
        """Trace Python that computes the outputs of tensors given by place; `inputs` has their specs by name."""
        for name, spec in inputs.items():
            if spec.shape.rank is None:
                raise InputError(f"input `{name}` has no number of axes; export the model with its shape")
        specs = [tf.TensorSpec(spec.shape, spec.dtype, f"input_{place}") for place, spec in enumerate(inputs.values())]

        def outputs_of(*tensors: Any) -> list[Any]:
            return [tf.identity(output) for output in call(*tensors)]

        concrete = tf.function(outputs_of).get_concrete_function(*specs)
        refuse_reaching_out(operators_of(concrete.graph.as_graph_def()), checkpoints=True)
        return cls(source, concrete, list(inputs), outputs)

    def write(self, target: Path) -> None:
        """Convert it to ONNX, its variables as constants."""
        frozen = convert_variables_to_constants_v2(self.concrete, lower_control_flow=False)
        graph = frozen.graph.as_graph_def()
        inputs = dict(zip(self.inputs, (tensor.name for tensor in frozen.inputs)))
        write_onnx(graph, inputs, dict(zip(self.outputs, (tensor.name for tensor in frozen.outputs))), target)

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Compute the outputs of a batch."""
        return [output.numpy() for output in self.concrete(*(tf.constant(feeds[name]) for name in self.inputs))]


@dataclass(frozen=True)
class Graph:
    """A graph of nodes without variables, with the names of its ends as tensors."""

    graph: Any
    inputs: Sequence[str]
    outputs: Sequence[str]

    def write(self, target: Path) -> None:
        """Convert it to ONNX."""
        inputs, outputs = ({_name(tensor): tensor for tensor in tensors} for tensors in (self.inputs, self.outputs))
        write_onnx(self.graph.as_graph_def(), inputs, outputs, target)

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Compute the outputs of a batch."""
        with tf.compat.v1.Session(graph=self.graph) as session:
            outputs: list[Array] = session.run(
                list(self.outputs), {tensor: feeds[_name(tensor)] for tensor in self.inputs}
            )
        return outputs


def reader(form: str) -> Reader:
    """Return how files of a format are read."""
    openers: dict[str, Callable[[Path], Function | Graph]]
    openers = {"saved_model": _saved_model, "frozen_graph": _frozen_graph, "keras": _keras}
    return Reader(openers[form])


def _saved_model(path: Path) -> Function:
    """Open the one function of a SavedModel that counts."""
    _check_saved_model(path)
    loaded = tf.saved_model.load(str(path.parent))
    signatures = {name: each for name, each in loaded.signatures.items() if name != _INITIALISER}
    if len(signatures) > 1 and _SIGNATURE not in signatures:
        raise InputError(
            f"has the signatures {quoted(signatures)} and no `{_SIGNATURE}`; save it with the one that counts alone"
        )
    if signatures:
        return _of_signature(loaded, signatures.get(_SIGNATURE) or next(iter(signatures.values())))
    if isinstance(loaded, ConcreteFunction):
        return _of_concrete(loaded)
    raise InputError(f"has no signature, which names inputs and outputs; save it with one, `{_SIGNATURE}`")


def _of_signature(loaded: Any, signature: Any) -> Function:
    """Trace a signature, whose inputs and outputs have names and no order."""
    inputs = dict(sorted(signature.structured_input_signature[1].items()))
    outputs = sorted(signature.structured_outputs)

    def call(*tensors: Any) -> list[Any]:
        results = signature(**dict(zip(inputs, tensors)))
        return [results[name] for name in outputs]

    return Function.trace(loaded, call, inputs, outputs)


def _of_concrete(function: Any) -> Function:
    """Trace a function that was saved alone; its outputs get the names that TensorFlow gives those without any."""
    inputs = {spec.name: spec for spec in tf.nest.flatten(function.structured_input_signature)}
    outputs = [f"output_{place}" for place, _ in enumerate(tf.nest.flatten(function.structured_outputs))]
    return Function.trace(function, lambda *tensors: tf.nest.flatten(function(*tensors)), inputs, outputs)


def _check_saved_model(path: Path) -> None:
    """Refuse a SavedModel that is damaged, or would run code or reach outside of itself when it is loaded or run."""
    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError:
        raise InputError("is no SavedModel, or damaged; save it again") from None
    for part in model.meta_graphs:
        refuse_reaching_out(operators_of(part.graph_def))
        # Every SavedModel has functions that save and restore it, which no other function may call.
        bodies = {each.signature.name: each.node_def for each in part.graph_def.library.function}
        ahead, reached = list(part.object_graph_def.concrete_functions), set()
        while ahead:
            if (name := ahead.pop()) in bodies and name not in reached:
                reached.add(name)
                ahead += functions_called(bodies[name])
        refuse_reaching_out((node.op for name in reached for node in bodies[name]), checkpoints=True)


def _frozen_graph(path: Path) -> Graph:
    """Open a graph: its placeholders go in, and what nobody uses comes out."""
    proto = tf.compat.v1.GraphDef()
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError:
        raise InputError("is no frozen graph of TensorFlow, or damaged; export it again") from None
    refuse_reaching_out(operators_of(proto))
    if any(operator in _VARIABLES for operator in operators_of(proto)):
        raise InputError("holds variables without their values; freeze the graph, or give the SavedModel")
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(proto, name="")
    operators = graph.get_operations()
    inputs = [each.outputs[0] for each in operators if each.type == "Placeholder"]
    awaited = {each.name for operator in operators for each in operator.control_inputs}
    results = [
        tensor
        for each in operators
        if each.type not in _NO_RESULTS and each.name not in awaited
        for tensor in _results(each)
    ]
    if not inputs or not results:
        raise InputError("has no placeholders that go in, or nothing that comes out; export it again")
    for tensor in inputs:
        if tensor.shape.rank is None:
            raise InputError(f"input `{_name(tensor.name)}` has no number of axes; export the graph with its shape")
    return Graph(graph, [tensor.name for tensor in inputs], [tensor.name for tensor in results])


def _results(operator: Any) -> list[Any]:
    """Return what comes out of the graph at an operator: all its outputs where nobody uses any."""
    if any(output.consumers() for output in operator.outputs):
        return []
    # What a batch norm gives beside its result is for training.
    return list(operator.outputs[:1] if operator.type.startswith("FusedBatchNorm") else operator.outputs)


def _name(tensor: str) -> str:
    """Return the name that people know a tensor by: its node's, with a number where that has several."""
    return tensor.removesuffix(":0")


def _keras(path: Path) -> Function:
    """Open a whole model of Keras 2 or 3 for inference."""
    from act.formats._tensorflow.keras_files import load_model

    model = load_model(path)
    if not getattr(model, "inputs", None):
        raise InputError("is a model without inputs of its own (a subclass of `Model`); export it as a SavedModel")
    specs = (tf.TensorSpec(each.shape, each.dtype) for each in model.inputs)
    inputs = dict(zip(_names(model, "input"), specs))

    def call(*tensors: Any) -> list[Any]:
        fed = tensors[0] if len(tensors) == 1 else tf.nest.pack_sequence_as(model.input, list(tensors))
        return tf.nest.flatten(model(fed, training=False))

    return Function.trace(model, call, inputs, _names(model, "output"))


def _names(model: Any, kind: str) -> list[str]:
    """Return the names of a Keras model's inputs or outputs: their layers', numbered if need be."""
    names = getattr(model, f"{kind}_names", None)
    if names is None:
        names = [tensor._keras_history.operation.name for tensor in getattr(model, f"{kind}s")]
    return [name if names.index(name) == place else f"{name}_{place}" for place, name in enumerate(names)]
