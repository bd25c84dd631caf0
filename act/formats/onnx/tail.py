"""An ONNX model without its tail, and the tail: the nodes behind the last layers, as they are in the file.

So what has no form in Paddle, such as `NonMaxSuppression` or `Loop`, is no obstacle there: only the body is imported.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from act.engines.process import EngineFailure, EngineProcess
from act.engines.spec import title_of
from act.errors import InputError
from act.formats.onnx import folding
from act.formats.onnx.importer import RefusedNode, import_model
from act.formats.onnx.operators.registry import find
from act.formats.onnx.qoperator import with_qdq
from act.formats.onnx.quantized import restore
from act.formats.onnx.reading import DOMAINS, KnownTensor, OnnxModel, known_tensors, reads
from act.onnx_graph.nested import graphs_of
from act.samples.dataset import FeedSpec, Gathering, Ragged, Samples
from act.tail.frontier import SMALLEST_LAYER, Cut, Operator, find_cut
from act.tail.split import SplitModel, Tail

BODY_FILE = "model.onnx"
_RUNTIME = "onnxruntime"
_TIME_LIMIT_SECONDS = 1200
_SAMPLES_AT_A_TIME = 16
_MOST_REFUSALS = 16  # of nodes, one after the other, each of which begins a tail
_LAYERS = frozenset(
    (
        *("Conv", "ConvTranspose", "DeformConv", "Gemm", "MatMul", "LSTM", "GRU", "RNN"),
        *("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"),
    )
)
# Shapes that hang on the data.
_CHOOSES = frozenset(("NonMaxSuppression", "NonZero", "Unique", "Compress", "Loop", "Scan"))
# No gradient, or one that means nothing: numbers of places, chance.
_NUMBERS = frozenset(
    (
        *("TopK", "ArgMax", "ArgMin", "Multinomial", "Bernoulli"),
        *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
    )
)
_REAL = frozenset(
    (
        *(onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16),
        onnx.TensorProto.UNDEFINED,
    )
)


def import_split(source: OnnxModel) -> SplitModel:
    """Import a model without its tail, and keep that as it is.

    Raises:
        InputError: a node cannot be taken, and a layer is behind it or none before it.
    """
    given, rounded = source, with_qdq(source)
    source, rounding = restore(rounded)
    refused: set[str] = set()
    while True:
        parts = _Parts(source, refused)
        try:
            body, tail = import_model(parts.body), parts.tail(rounded)
            if rounding is None:
                return SplitModel(body, tail)
            return SplitModel(
                body, tail, rounding, partial(_outputs, parts, rounded if tail is not None else given), parts.save_body
            )
        except RefusedNode as refusal:
            place = _holder(source, refusal.outputs)
            if place in refused or len(refused) == _MOST_REFUSALS or not _Parts(source, {*refused, place}).holds(place):
                raise
            refused.add(place)


def _holder(source: OnnxModel, outputs: Collection[str]) -> str:
    """Return the first output of the node of the main graph that a node with some outputs is, or is inside."""

    def holds(node: onnx.NodeProto) -> bool:
        return bool(set(outputs) & set(node.output)) or any(holds(n) for graph in graphs_of(node) for n in graph.node)

    return next((name for node in source.graph.node if holds(node) for name in node.output if name), "")


def _outputs(parts: _Parts, given: OnnxModel, samples: Samples, scratch: Path) -> Samples:
    """Return a body's outputs of samples, as the file computes them with its rounding."""
    gathered = [Gathering(scratch) for _ in parts.outputs]
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        file = _save(parts.body_of(given), Path(name))
        try:
            with EngineProcess(_RUNTIME, file, "fp32", 1, _TIME_LIMIT_SECONDS) as process:
                process.load()
                for number, batch in enumerate(samples.batches(_SAMPLES_AT_A_TIME)):
                    place = Path(name) / str(number)
                    part = Samples({feed: Ragged.of(list(values)) for feed, values in batch.items()})
                    part.save(place)
                    for gathering, output in zip(gathered, process.outputs(place, len(part)), strict=True):
                        for values in output:
                            gathering.add(values)
                    shutil.rmtree(place)
        except EngineFailure as failure:
            raise InputError(
                f"{given.path}: {title_of(_RUNTIME)} cannot run it on the evaluation samples ({failure.cause}); mend "
                "the samples or the model"
            ) from None
    return Samples({name: gathering.ragged() for name, gathering in zip(parts.outputs, gathered)})


def _save(model: onnx.ModelProto, folder: Path) -> Path:
    """Write a model, its weights in a file of their own where one is too small, and return what engines load."""
    file = folder / BODY_FILE
    large = model.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF
    onnx.save(model, file, save_as_external_data=large, location=f"{BODY_FILE}.data")
    return file


class _Parts:
    """A model in its two parts; the body alone where nothing is cut off.

    Args:
        refused: first outputs of nodes that cannot be imported.
    """

    def __init__(self, source: OnnxModel, refused: Collection[str]) -> None:
        self._source, self._graph = source, source.graph
        operators = _operators(source, refused)
        outputs = [value.name for value in self._graph.output]
        inputs = [value.name for value in source.inputs]
        self._known: Mapping[str, KnownTensor] = {}
        self._cut: Cut | None = None
        whole_numbers = any(value.type.tensor_type.elem_type not in _REAL for value in self._graph.output)
        if whole_numbers or any(op.stays for op in operators) or not all(map(_may_count, self._graph.output)):
            self._known = known_tensors(source)
            self._counts = _counts_samples(self._known, inputs)
            self._constants = self._constant_shapes()
            cut_by = [replace(op, reads=()) if n in self._constants else op for n, op in enumerate(operators)]
            self._cut = find_cut(cut_by, inputs, outputs, self._fits)

    def _constant_shapes(self) -> dict[int, onnx.NodeProto]:
        """Return what stands in the tail for each node, by its number, that asks for a shape which is known.

        So that no feature map becomes an output of the body for the sake of its lengths.
        """
        found = {}
        for number, node in enumerate(self._graph.node):
            known = self._known.get(node.input[0]) if node.op_type == "Shape" and node.input else None
            lengths = known.shape if known is not None else None
            if lengths is not None and all(isinstance(length, int) for length in lengths):
                ends = {each.name: each.i for each in node.attribute}
                some = np.array(lengths, np.int64)[ends.get("start", 0) : ends.get("end", len(lengths))]
                value = onnx.numpy_helper.from_array(some)
                found[number] = onnx.helper.make_node("Constant", [], node.output, name=node.name, value=value)
        return found

    def _fits(self, name: str) -> bool:
        known = self._known.get(name)
        if known is None or known.kind not in _REAL:
            return known is None
        # One number for all samples is no matter of a tail: whoever reads the model refuses it.
        is_one = known.shape == [] and any(name == value.name for value in self._graph.output)
        return is_one or self._counts(known.shape) is not False

    def holds(self, name: str) -> bool:
        """Tell whether what makes a tensor is in the tail."""
        return self._cut is not None and any(name in self._graph.node[n].output for n in self._cut.tail)

    @property
    def body(self) -> OnnxModel:
        """Return the body as a model; the source itself where nothing is cut off."""
        return OnnxModel(self._source.path, self.body_of(self._source))

    @property
    def outputs(self) -> list[str]:
        """Return the names of what the body gives."""
        return [value.name for value in self._graph.output] if self._cut is None else list(self._cut.outputs)

    def body_of(self, model: OnnxModel) -> onnx.ModelProto:
        """Return the body of a model that has the tensors at the cut; itself where nothing is cut off."""
        if self._cut is None:
            return model.proto
        wanted, nodes = set(self._cut.outputs), []
        for node in reversed(model.graph.node):
            if not wanted.isdisjoint(node.output):
                wanted.update(reads(node))
                nodes.append(node)
        own = {value.name: value for value in self._graph.output}
        ends = [own.get(name) or self._end(name) for name in self._cut.outputs]
        return _model(model, nodes[::-1], self._graph.input, ends)

    def tail(self, given: OnnxModel) -> Tail | None:
        """Return the tail; None where nothing is cut off.

        Args:
            given: the user's model, whose body is kept: the source, or what that was made of.
        """
        if self._cut is None:
            return None
        nodes = [self._constants.get(number, self._graph.node[number]) for number in self._cut.tail]
        made = {name for node in nodes for name in node.output}
        read = {name for node in nodes for name in reads(node)} - made
        inputs = [value for value in self._source.inputs if value.name in read]
        inputs += [self._end(name) for name in self._cut.outputs if name in read]
        outputs = [value for value in self._graph.output if value.name not in self._cut.outputs]
        proto = _model(self._source, nodes, inputs, outputs)
        source = OnnxModel(self._source.path, proto)
        return Tail(
            operators=_kinds(nodes),
            outputs=[self._spec(value) for value in self._graph.output],
            whole=[number for number, value in enumerate(self._graph.output) if not self._is_by_sample(value, nodes)],
            own_form=0,
            to_onnx=lambda: proto,
            to_program=lambda: import_model(source),
            save_body=lambda folder: _save(self.body_of(given), folder),
        )

    def _end(self, name: str) -> onnx.ValueInfoProto:
        """Describe a tensor at the cut."""
        known = self._known.get(name)
        kind = known.kind if known is not None and known.kind else onnx.TensorProto.FLOAT
        return onnx.helper.make_tensor_value_info(name, kind, known.shape if known is not None else None)

    def _spec(self, value: onnx.ValueInfoProto) -> FeedSpec:
        known = self._known.get(value.name)
        shape = known.shape if known is not None and known.shape is not None else []
        return FeedSpec(value.name, self._source.dtype(value), tuple(n if isinstance(n, int) else -1 for n in shape))

    def _is_by_sample(self, value: onnx.ValueInfoProto, nodes: Sequence[onnx.NodeProto]) -> bool:
        """Tell whether an output's first axis is the batch.

        Where that cannot be inferred, it is where the file says so, and else unless it hangs on what is chosen.
        """
        known = self._known.get(value.name)
        counts = self._counts(known.shape) if known is not None else None
        if counts is not None:
            return counts
        if any(_first_length(value) == _first_length(each) for each in self._source.inputs if _first_length(each)):
            return True
        chosen: set[str] = set()
        for node in nodes:
            if node.op_type in _CHOOSES or not chosen.isdisjoint(reads(node)):
                chosen.update(node.output)
        return value.name not in chosen

    def save_body(self, folder: Path) -> Path:
        """Write the source without its tail, which runs beside the import."""
        return _save(self.body.proto, folder)


def _model(
    source: OnnxModel,
    nodes: Sequence[onnx.NodeProto],
    inputs: Iterable[onnx.ValueInfoProto],
    outputs: Iterable[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    """Return a model of some nodes of a source, with the constants that they read."""
    outputs = list(outputs)
    read = {name for node in nodes for name in reads(node)} | {value.name for value in outputs}
    result = onnx.ModelProto(ir_version=source.proto.ir_version)
    result.opset_import.extend(source.proto.opset_import)
    graph = result.graph
    graph.name = source.graph.name or "model"
    graph.node.extend(nodes)
    graph.input.extend(inputs)
    graph.output.extend(outputs)
    graph.initializer.extend(tensor for tensor in source.graph.initializer if tensor.name in read)
    return result


def _operators(source: OnnxModel, refused: Collection[str]) -> list[Operator]:
    """Return the nodes as the rule for the cut sees them."""
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in source.graph.initializer}
    result = []
    for node in source.graph.node:
        read, kind, domain = tuple(dict.fromkeys(reads(node))), node.op_type, node.domain
        known = kind in folding.ALWAYS or kind in folding.CONTROL or find(domain, kind, source.version(domain))
        stays = domain in DOMAINS and kind in (_CHOOSES | _NUMBERS)
        stays = stays or not known or any(name in refused for name in node.output)
        result.append(Operator(read, tuple(filter(None, node.output)), _is_layer(node, sizes), stays))
        # What is computed of constants alone is one, as large as the largest of them.
        attributes = [math.prod(each.t.dims) for each in node.attribute if each.HasField("t")]
        if all(name in sizes for name in read):
            sizes |= dict.fromkeys(node.output, max([*attributes, *(sizes[name] for name in read)], default=0))
    return result


def _is_layer(node: onnx.NodeProto, sizes: Mapping[str, int]) -> bool:
    """Tell whether a node, or one inside it, multiplies by a constant of some size."""
    if node.op_type in _LAYERS and any(sizes.get(name, 0) >= SMALLEST_LAYER for name in node.input):
        return True
    for graph in graphs_of(node):
        inner = {**sizes, **{tensor.name: math.prod(tensor.dims) for tensor in graph.initializer}}
        if any(_is_layer(each, inner) for each in graph.node):
            return True
    return False


def _counts_samples(
    known: Mapping[str, KnownTensor], inputs: Iterable[str]
) -> Callable[[Sequence[int | str | None] | None], bool | None]:
    """Return what tells of a shape whether its first axis counts samples; it gives None where that is not known."""
    shapes = [known[name].shape for name in inputs if name in known]
    firsts = {shape[0] for shape in shapes if shape} | {1}
    others = {length for shape in shapes if shape for length in shape[1:]}

    def counts(shape: Sequence[int | str | None] | None) -> bool | None:
        if shape is None:
            return None
        if not shape:
            return False
        if shape[0] in firsts and shape[0] is not None:
            return True
        return False if isinstance(shape[0], int) or shape[0] in others else None

    return counts


def _first_length(value: onnx.ValueInfoProto) -> int | str:
    """Return what the file says of the length of a first axis: a number, a name, or nothing."""
    axes = value.type.tensor_type.shape.dim
    return (axes[0].dim_value or axes[0].dim_param) if axes else ""


def _may_count(value: onnx.ValueInfoProto) -> bool:
    """Tell whether an output's first axis may be the batch, by what the file says."""
    return _first_length(value) == 1 or isinstance(_first_length(value), str)


def _kinds(nodes: Iterable[onnx.NodeProto]) -> list[str]:
    return list(dict.fromkeys(node.op_type for node in nodes if node.op_type != "Constant"))
