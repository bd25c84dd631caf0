"""An ONNX file, read and checked before anything is built of it: its data, its opset, its functions, its order."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import inliner

from act.errors import InputError
from act.onnx_graph.nested import graphs_of, nodes_of

log = logging.getLogger(__name__)

OPSETS = range(7, 25)
"""Versions of ONNX's own operators that are read."""
DOMAINS = frozenset(("", "ai.onnx"))
_LARGEST_FILE = 2**31 - 1
_LARGEST_INFERRED = 1024  # values of an initialiser that shape inference reads; larger ones are no shapes
_DEEPEST = 16  # subgraphs and functions within one another
_MOST_NODES = 1_000_000  # once functions are written out
_HALF_BYTES = (onnx.TensorProto.INT4, onnx.TensorProto.UINT4, onnx.TensorProto.FLOAT4E2M1)
_INFERENCE_SECONDS = 60
_INFERENCE_BYTES = 4 * 2**30
# Native code that damaged models crash, and some have take any memory: it runs in a process of its own, and is called
# directly, because its package takes ten times as long to import as a model to infer.
_INFERENCE = f"""
import resource, sys
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
limit = {_INFERENCE_BYTES} if hard == resource.RLIM_INFINITY else min({_INFERENCE_BYTES}, hard)
resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
found = PathFinder.find_spec("onnx_cpp2py_export", find_spec("onnx").submodule_search_locations)
compiled = module_from_spec(found)
found.loader.exec_module(compiled)
check_type, strict, propagate_data = False, False, True
model = sys.stdin.buffer.read()
sys.stdout.buffer.write(compiled.shape_inference.infer_shapes(model, check_type, strict, propagate_data))
"""


@dataclass(frozen=True)
class OnnxModel:
    """A model without functions, its nodes in an order in which they can run.

    Attributes:
        path: the file, for messages.
        proto: the model; tensors that were in other files are inside.
    """

    path: Path
    proto: onnx.ModelProto

    @property
    def graph(self) -> onnx.GraphProto:
        return self.proto.graph

    @property
    def inputs(self) -> list[onnx.ValueInfoProto]:
        """Return what the user feeds: inputs that no initialiser gives a value."""
        given = {tensor.name for tensor in self.graph.initializer}
        return [value for value in self.graph.input if value.name not in given]

    @property
    def nodes(self) -> Iterator[onnx.NodeProto]:
        """Yield all nodes, those of subgraphs too."""
        return nodes_of(self.graph)

    def version(self, domain: str) -> int:
        """Return the opset version of a domain."""
        same = [each.version for each in self.proto.opset_import if _domain(each.domain) == _domain(domain)]
        return same[0] if same else 1

    def dtype(self, value: onnx.ValueInfoProto) -> str:
        """Return NumPy's name of the dtype of an input or output; `InputError` where it is no tensor of numbers."""
        kind = value.type.tensor_type.elem_type
        try:
            dtype = (
                np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).name if value.type.HasField("tensor_type") else ""
            )
        except KeyError:
            dtype = ""
        if dtype not in _FED:
            known = onnx.TensorProto.DataType.Name(kind).lower() if kind in onnx.TensorProto.DataType.values() else kind
            what = f"of {known}" if value.type.HasField("tensor_type") else "no tensor"
            raise InputError(
                f"{self.path}: `{value.name}`, an input or output, is {what}; export the model with tensors of "
                f"{', '.join(sorted(_FED))}"
            )
        return dtype


_FED = frozenset(("bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8"))


def external_files(path: Path) -> list[Path]:
    """Return the other files that hold a model's tensors, sorted; they lie in its folder or below.

    Raises:
        InputError: the model is damaged, or names a file that is not there, or not in its folder.
    """
    return sorted({file for _, file in _external(_parse(path), path)})


def read(path: Path) -> OnnxModel:
    """Read a model, refuse what cannot be read, and bring it into the form that the importer takes."""
    proto = _parse(path)
    for tensor, file in _external(proto, path):
        _read_values(tensor, file, path)
    return checked(proto, path)


def checked(proto: onnx.ModelProto, path: Path) -> OnnxModel:
    """Refuse a model that cannot be read, and bring it into the form that the importer takes; may change it."""
    _check_opset(proto, path)
    if proto.functions:
        _check_functions(proto, path)
        try:
            proto = inliner.inline_local_functions(proto)
        except Exception as error:  # native code, which raises its own kinds
            cause = " ".join(str(error).split())
            raise InputError(f"{path}: its functions cannot be read: {cause}; export the model without them") from None
    graph = proto.graph
    if not graph.output:
        raise InputError(f"{path}: has no outputs; export the model again")
    _check_names(graph, path)
    _sort(graph, path, ())
    return OnnxModel(path, proto)


def _check_names(graph: onnx.GraphProto, path: Path) -> None:
    """Refuse a graph in which two inputs, two outputs or two initialisers have one name, or a node writes one of them.

    An initialiser may have the name of an input, of which it is the default.
    """
    given = {
        "inputs": [value.name for value in graph.input],
        "outputs": [value.name for value in graph.output],
        "initialisers": [tensor.name for tensor in graph.initializer],
    }
    for what, names in given.items():
        twice = next((name for name, count in Counter(names).items() if count > 1), None)
        if twice is not None:
            raise InputError(f"{path}: two of its {what} are called `{twice}`; export the model again")
    fixed = {*given["inputs"], *given["initialisers"]}
    written = next((name for node in graph.node for name in node.output if name in fixed and name), None)
    if written is not None:
        raise InputError(f"{path}: tensor `{written}` is an input or weight, and computed, too; export the model again")


def has_half_precision(path: Path) -> bool:
    """Tell whether any weight, input or output of a model is in half precision."""
    proto, half = _parse(path), (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    ends = (*proto.graph.input, *proto.graph.output)
    return any(tensor.data_type in half for tensor in _all_tensors(proto)) or any(
        value.type.tensor_type.elem_type in half for value in ends
    )


def axis_names(path: Path) -> dict[str, list[str]]:
    """Return the names of each input's axes; empty where an axis has none, or a length."""
    return {
        value.name: [
            "" if axis.HasField("dim_value") and axis.dim_value > 0 else axis.dim_param
            for axis in value.type.tensor_type.shape.dim
        ]
        for value in _parse(path).graph.input
    }


@dataclass(frozen=True)
class KnownTensor:
    """What shape inference finds of a tensor.

    Attributes:
        kind: ONNX's number of its type; 0 where it is not known.
        shape: lengths, or names of lengths that are equal where named alike; None where the rank is not known.
    """

    kind: int
    shape: list[int | str | None] | None


def known_shapes(model: OnnxModel) -> dict[str, list[int | str | None]]:
    """Return the shapes of `known_tensors`, where the rank is known."""
    return {name: each.shape for name, each in known_tensors(model).items() if each.shape is not None}


def known_tensors(model: OnnxModel) -> dict[str, KnownTensor]:
    """Return what shape inference finds of each tensor.

    What the file itself says of its tensors is not believed, but for its inputs; an axis of the inputs without a name
    gets one. A name of first axes, which count samples, is another one on other axes. Large initialisers are not
    looked at. Empty where the inference fails, or takes too long: the importer does without.
    """
    skeleton = without_values(model.proto)
    graph = skeleton.graph
    for index, value in enumerate(graph.input):
        for axis, length in enumerate(value.type.tensor_type.shape.dim):
            if not length.HasField("dim_value") or length.dim_value <= 0:
                own = f"{'axes' if axis else 'samples'} {length.dim_param}"
                length.dim_param = own if length.dim_param else f"input {index} axis {axis}"
    inferred = _infer_shapes(skeleton)
    found: dict[str, KnownTensor] = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        tensor, shape = value.type.tensor_type, None
        if tensor.HasField("shape"):
            shape = [
                (each.dim_value if each.dim_value >= 0 else None)
                if each.HasField("dim_value")
                else each.dim_param or None
                for each in tensor.shape.dim
            ]
        found[value.name] = KnownTensor(tensor.elem_type, shape)
    return found


def _infer_shapes(model: onnx.ModelProto) -> onnx.GraphProto:
    """Return the graph with inferred shapes; an empty one where the inference fails, crashes, or takes too long."""
    result = onnx.ModelProto()
    try:
        done = subprocess.run(
            [sys.executable, "-S", "-c", _INFERENCE],
            input=model.SerializeToString(),
            capture_output=True,
            timeout=_INFERENCE_SECONDS,
            cwd=Path(onnx.__file__).parents[1],  # comes first in the search for `onnx`
        )
        if done.returncode == 0:
            result.ParseFromString(done.stdout)
        else:
            log.debug(f"shape inference ended with {done.returncode}: {done.stderr[-300:].decode(errors='replace')!r}")
    except (OSError, ValueError, subprocess.TimeoutExpired, DecodeError, EncodeError) as error:
        log.debug(f"shape inference: {error}")
    return result.graph


def _parse(path: Path) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise InputError(f"{path}: larger than 2 GiB; save the model with its weights as external data")
        proto.ParseFromString(path.read_bytes())
    except (DecodeError, OSError) as error:
        raise InputError(f"{path}: no ONNX model, or damaged ({error}); export the model again") from None
    if not proto.HasField("graph") or not proto.graph.node:
        raise InputError(f"{path}: no ONNX model, or an empty one: it holds no operators; export the model again")
    return proto


def _external(proto: onnx.ModelProto, path: Path) -> Iterator[tuple[onnx.TensorProto, Path]]:
    """Yield the tensors that lie in other files, and these files."""
    folder = path.parent.resolve()
    for tensor in _all_tensors(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = _entries(tensor, path)
        location = entries.get("location", "")
        file = path.parent / location
        try:
            inside = location and not Path(location).is_absolute() and file.resolve().is_relative_to(folder)
            inside = inside and not file.is_symlink()
        except (OSError, ValueError, RuntimeError):  # a name too long, or with a NUL; links in a circle
            inside = False
        if not inside:
            raise InputError(
                f"{path}: tensor `{tensor.name}` names `{location[:100]}` as its file, which does not lie in the "
                "model's folder; save the model with its data beside it"
            )
        if not file.is_file():
            raise InputError(f"{file}: no such file; tensor `{tensor.name}` of {path.name} is in it: copy it, too")
        yield tensor, file


def _entries(tensor: onnx.TensorProto, path: Path) -> dict[str, str]:
    """Return where a tensor's values lie, by key."""
    entries = {each.key: each.value for each in tensor.external_data}
    if len(entries) != len(tensor.external_data):
        raise InputError(f"{path}: tensor `{tensor.name}` says twice where its values lie; export the model again")
    return entries


def _read_values(tensor: onnx.TensorProto, file: Path, path: Path) -> None:
    """Read a tensor's values from its file, and no more than its shape asks for.

    Raises:
        InputError: they are not in the file, or of another length than the shape says.
    """
    entries, size = _entries(tensor, path), _byte_count(tensor)
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
        if length != size:
            raise InputError(
                f"{path}: tensor `{tensor.name}` of shape {list(tensor.dims)} takes {size} bytes, but the model says "
                f"{length}; export it again"
            )
        fits = 0 <= offset <= file.stat().st_size - length
    except (OSError, ValueError):
        fits = False
    if not fits or size < 0:
        raise InputError(
            f"{path}: tensor `{tensor.name}` asks for bytes that {file.name} does not have; copy the model again"
        )
    with file.open("rb") as opened:
        opened.seek(offset)
        tensor.raw_data = opened.read(length)
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def _byte_count(tensor: onnx.TensorProto) -> int:
    """Return the length of a tensor's values in bytes; -1 where its type or shape cannot be in a file."""
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    except KeyError:
        return -1
    if dtype.hasobject or min(tensor.dims, default=0) < 0:
        return -1
    bits = 4 if tensor.data_type in _HALF_BYTES else 8 * dtype.itemsize
    return (math.prod(tensor.dims) * bits + 7) // 8


def _check_opset(proto: onnx.ModelProto, path: Path) -> None:
    domains = [_domain(each.domain) for each in proto.opset_import]
    for domain in domains:
        if domains.count(domain) > 1:
            what = f"`{domain}`" if domain else "ONNX's own operators"
            raise InputError(f"{path}: names two opset versions of {what}; export the model again")
    version = next((each.version for each in proto.opset_import if not _domain(each.domain)), None)
    if version is None:
        raise InputError(f"{path}: names no opset version of ONNX's own operators; export the model again")
    if version not in OPSETS:
        raise InputError(f"{path}: is of opset {version}; export the model with one of {OPSETS[0]} to {OPSETS[-1]}")


def _check_functions(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse functions that call themselves, or one another too deep or too often: they would be written out for ever.

    Overloads of a function count as one function that calls what any of them does.
    """
    bodies: dict[tuple[str, str], list[onnx.NodeProto]] = {}
    overloads = set()
    for function in proto.functions:
        key = (_domain(function.domain), function.name)
        if (*key, function.overload) in overloads:
            raise InputError(f"{path}: function `{function.name}` is defined twice; export the model again")
        overloads.add((*key, function.overload))
        bodies.setdefault(key, []).extend(function.node)
    measured: dict[tuple[str, str], _Extent] = {}

    def extent_of(nodes: Iterable[onnx.NodeProto], above: tuple[tuple[str, str], ...], level: int) -> _Extent:
        """Add up nodes that lie `level` deep in graphs and functions."""
        if level > _DEEPEST:
            where = f"function `{above[-1][1]}`" if above else "the model"
            raise InputError(
                f"{path}: in {where} graphs and functions lie more than {_DEEPEST} deep in one another; export the "
                "model without functions"
            )
        count = size = depth = 0
        for node in nodes:
            key = (_domain(node.domain), node.op_type)
            inner = [extent_of(graph.node, above, level + 1) for graph in graphs_of(node)]
            size += sum(tensor.ByteSize() for graph in graphs_of(node) for tensor in graph.initializer)
            if key in bodies:
                inner.append(called(key, above, level + 1))
                # Each node of a function may hold the attributes that it is called with.
                size += inner[-1].nodes * sum(attribute.ByteSize() for attribute in node.attribute)
            count += sum(each.nodes for each in inner) + (key not in bodies)
            size += sum(each.size for each in inner) + (0 if inner else node.ByteSize())
            depth = max([depth, *(1 + each.depth for each in inner)])
        if count > _MOST_NODES or size > _LARGEST_FILE:
            where = f"function `{above[-1][1]}`" if above else "the model"
            raise InputError(
                f"{path}: {where} has {count} nodes of {size} bytes once its functions are written out, more than "
                f"{_MOST_NODES} or {_LARGEST_FILE}; export the model without functions"
            )
        return _Extent(count, size, depth)

    def called(key: tuple[str, str], above: tuple[tuple[str, str], ...], level: int) -> _Extent:
        if key in above:
            raise InputError(f"{path}: function `{key[1]}` calls itself; export the model without it")
        if key not in measured:
            measured[key] = extent_of(bodies[key], (*above, key), level)
        if level + measured[key].depth > _DEEPEST:
            raise InputError(
                f"{path}: function `{key[1]}` calls others more than {_DEEPEST} deep; export the model without it"
            )
        return measured[key]

    for key in bodies:
        called(key, (), 1)
    extent_of(proto.graph.node, (), 0)


class _Extent(NamedTuple):
    """What nodes are once all functions that they call are written out."""

    nodes: int
    size: int  # in bytes, roughly
    depth: int  # of graphs and functions in one another


def _sort(graph: onnx.GraphProto, path: Path, above: Sequence[str]) -> None:
    """Put the nodes of a graph, and of those inside it, into an order in which each finds its inputs computed.

    Raises:
        InputError: there is none, because some compute what they need themselves; or a tensor is written twice.
    """
    if len(above) > _DEEPEST:
        raise InputError(f"{path}: graphs lie more than {_DEEPEST} deep in one another; export the model without loops")
    writers: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in writers:
                raise InputError(f"{path}: tensor `{name}` is computed twice; export the model again")
            writers[name] = index
        for inner in graphs_of(node):
            _sort(inner, path, (*above, node.name))
    needs = [{writers[name] for name in reads(node) if name in writers} for node in graph.node]
    if all(max(each, default=-1) < index for index, each in enumerate(needs)):
        return
    readers: list[list[int]] = [[] for _ in needs]
    for index, each in enumerate(needs):
        for writer in each:
            readers[writer].append(index)
    waiting = [len(each) for each in needs]
    order = [index for index, count in enumerate(waiting) if count == 0]
    for index in order:
        for reader in readers[index]:
            waiting[reader] -= 1
            if waiting[reader] == 0:
                order.append(reader)
    if len(order) < len(needs):
        stuck = next(graph.node[index] for index, count in enumerate(waiting) if count > 0)
        label = stuck.name or next(iter(stuck.output), "")
        raise InputError(
            f"{path}: node `{label}` ({stuck.op_type}) needs what it computes itself; export the model again"
        )
    nodes = [graph.node[index] for index in order]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, those that its graphs read too."""
    yield from filter(None, node.input)
    for graph in graphs_of(node):
        for inner in graph.node:
            yield from reads(inner)
        yield from (value.name for value in graph.output)


def _all_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    def of(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
        for node in nodes:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
            for graph in graphs_of(node):
                yield from graph.initializer
                yield from of(graph.node)

    yield from proto.graph.initializer
    yield from of(proto.graph.node)
    for function in proto.functions:
        yield from of(function.node)


def without_values(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model of the same shapes in which large tensors have no values, so that it is small.

    Nothing is left of what the file says of the shapes of tensors, but for those of its inputs.
    """
    result = onnx.ModelProto(ir_version=max(proto.ir_version, 4))
    result.opset_import.extend(proto.opset_import)
    graph = result.graph
    _copy_small(proto.graph, graph)
    given = {tensor.name for tensor in proto.graph.initializer}
    graph.input.extend(value for value in proto.graph.input if value.name not in given)
    return result


def _copy_small(source: onnx.GraphProto, target: onnx.GraphProto) -> None:
    """Copy all of a graph but its inputs and shapes; large tensors become nodes that fill their shape."""
    target.name = "shapes"
    for value in source.output:
        _copy_without_shape(value, target.output.add())
    for tensor in source.initializer:
        if _is_large(tensor):
            _add_filled(tensor.name, tensor, target)
        else:
            target.initializer.add().CopyFrom(tensor)
    for node in source.node:
        large = next((each.t for each in node.attribute if each.name == "value" and _is_large(each.t)), None)
        if node.op_type == "Constant" and large is not None and node.output:
            _add_filled(node.output[0], large, target)
        elif not any(True for _ in graphs_of(node)):
            target.node.add().CopyFrom(node)
        else:
            copied = target.node.add(op_type=node.op_type, domain=node.domain, input=node.input, output=node.output)
            for attribute in node.attribute:
                inner = copied.attribute.add(name=attribute.name, type=attribute.type)
                if attribute.HasField("g"):
                    _copy_small(attribute.g, inner.g)
                    for value in attribute.g.input:
                        _copy_without_shape(value, inner.g.input.add())
                else:
                    inner.CopyFrom(attribute)


def _copy_without_shape(source: onnx.ValueInfoProto, target: onnx.ValueInfoProto) -> None:
    target.CopyFrom(source)
    if target.type.HasField("tensor_type"):
        target.type.tensor_type.ClearField("shape")


def _is_large(tensor: onnx.TensorProto) -> bool:
    return bool(np.prod(tensor.dims, dtype=np.float64) > _LARGEST_INFERRED)


def _add_filled(name: str, tensor: onnx.TensorProto, target: onnx.GraphProto) -> None:
    """Add nodes that make a tensor of the same shape and dtype."""
    shape = target.initializer.add(name=f"{name} shape", data_type=onnx.TensorProto.INT64, dims=[len(tensor.dims)])
    shape.int64_data.extend(tensor.dims)
    filled = target.node.add(op_type="ConstantOfShape", input=[shape.name], output=[name])
    value = filled.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
    value.t.CopyFrom(onnx.TensorProto(data_type=tensor.data_type, dims=[1], raw_data=b"\0" * 16))


def _domain(name: str) -> str:
    return "" if name in DOMAINS else name
