"""One ONNX model put behind another, whose outputs and inputs it reads by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy

import onnx
from onnx import version_converter

from act.errors import InputError
from act.onnx_graph.nested import graphs_of, nodes_of

_PREFIX = "tail."
_OWN_DOMAINS = ("", "ai.onnx")


def append(body: onnx.ModelProto, tail: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """Return a model that computes the body and then the tail; neither is changed.

    The body's inputs are its inputs. Opsets are reconciled: where an operator means the same in both, by the number
    alone. What the tail computes is renamed where the body has that name; so is what the body computes on the way,
    where it has the name of an output.

    Args:
        outputs: of either, in the order in which the result has them; the body's where both have one.

    Raises:
        InputError: the two are of opsets that cannot be reconciled.
    """
    body, tail = _of_one_opset(deepcopy(body), deepcopy(tail))
    ends = {value.name: value for value in (*tail.graph.output, *body.graph.output)}
    from_body = {value.name for value in (*body.graph.input, *body.graph.output)}
    joints = {value.name for value in tail.graph.input}
    own = {name for name in outputs if name not in from_body}
    _rename(body.graph, {name: f"{name}.body" for name in _names(body.graph) & own})
    taken = _names(body.graph)
    clashing = (_names(tail.graph) & taken) - joints
    _rename(tail.graph, {name: _free(name, taken) for name in clashing})
    result = body.graph
    kept = {each.name for each in result.node if each.name}
    for node in filter(lambda each: each.name, nodes_of(tail.graph)):
        node.name = _free(node.name, kept)
        kept.add(node.name)
    result.node.extend(tail.graph.node)
    result.initializer.extend(tail.graph.initializer)
    del result.output[:]
    result.output.extend(ends[name] for name in outputs)
    return body


def _of_one_opset(body: onnx.ModelProto, tail: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Return both with the same version of ONNX's operators, and with all domains of either."""
    mine, theirs = _opset(body), _opset(tail)
    if mine != theirs:
        if _means_the_same(tail.graph, theirs, mine):
            theirs = mine
        elif _means_the_same(body.graph, mine, theirs):
            mine = theirs
        else:
            body, tail = _converted(body, mine, max(mine, theirs)), _converted(tail, theirs, max(mine, theirs))
            mine = theirs = max(mine, theirs)
    domains = {each.domain: each.version for each in (*tail.opset_import, *body.opset_import)}
    versions = {name: version for name, version in domains.items() if name not in _OWN_DOMAINS} | {"": mine}
    for model in (body, tail):
        del model.opset_import[:]
        model.opset_import.extend(onnx.helper.make_opsetid(name, number) for name, number in sorted(versions.items()))
    body.ir_version = max(body.ir_version, tail.ir_version)
    return body, tail


def _opset(model: onnx.ModelProto) -> int:
    return next(each.version for each in model.opset_import if each.domain in _OWN_DOMAINS)


def _means_the_same(graph: onnx.GraphProto, first: int, second: int) -> bool:
    """Tell whether all operators of a graph are of one definition in two opsets."""
    kinds = {node.op_type for node in nodes_of(graph) if node.domain in _OWN_DOMAINS}
    return all(_since(kind, first) == _since(kind, second) for kind in kinds)


def _since(kind: str, opset: int) -> int:
    try:
        return int(onnx.defs.get_schema(kind, opset, "").since_version)
    except onnx.defs.SchemaError:  # not in that opset
        return -1


def _converted(model: onnx.ModelProto, opset: int, wanted: int) -> onnx.ModelProto:
    """Return the model in a later opset; graphs inside nodes must mean the same in both, for they are not converted."""
    if opset == wanted:
        return model
    inner = [graph for node in model.graph.node for graph in graphs_of(node)]
    try:
        if all(_means_the_same(graph, opset, wanted) for graph in inner):
            return version_converter.convert_version(model, wanted)
        cause = "it has graphs inside its nodes"
    except Exception as error:  # native code, which raises its own kinds
        cause = " ".join(str(error).split())
    raise InputError(f"a part of opset {opset} cannot be put together with one of opset {wanted}: {cause}")


def _names(graph: onnx.GraphProto) -> set[str]:
    """Return the names of all tensors of a graph and of those inside it."""
    found = {value.name for value in (*graph.input, *graph.output)} | {each.name for each in graph.initializer}
    for node in graph.node:
        found.update(filter(None, (*node.input, *node.output)))
        for inner in graphs_of(node):
            found |= _names(inner)
    return found


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors, in graphs inside nodes too: they see those around them, and have no name twice."""
    if not names:
        return
    for each in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        each.name = names.get(each.name, each.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for inner in graphs_of(node):
            _rename(inner, names)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name = f"{_PREFIX}{name}"
    return name
