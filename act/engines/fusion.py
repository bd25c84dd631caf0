"""What an engine makes of the program: how many kernels, and which operators have none of their own any more.

Names of ONNX tensors are the program's only in part, for Paddle2ONNX splits some operators, joins others and names what
it adds. So the ONNX model is run once on a sample, and its tensors are known again by their values and shapes.

An operator whose tensor no kernel makes has vanished: one that multiplies into the next kernel behind it, any other
into the kernel of the layer ahead of it, else into the next behind. Where a kernel stands for several operators, it is
the own one of that which multiplies, or else of the last.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from act.engines.check import open_session
from act.program.foldable import constants
from act.program.graph import Graph, Node, Tensor, alike, sketch
from act.results.analyze import Fusion, KernelCount, TypeFusion
from act.samples.dataset import Array


def named_by_outputs(fp32: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with each node bearing the name of its first output, as `Engine.kernels` wants it."""
    result = deepcopy(fp32)
    for node in result.graph.node:
        node.name = node.output[0]
    return result


def onnx_twins(fp32: onnx.ModelProto, graph: Graph) -> dict[str, int]:
    """Return the number of the operator that makes what an ONNX tensor holds, by the tensor's name.

    Args:
        fp32: what `to_onnx` made of the model.
    """
    tensors = graph.tensors

    def same(name: str, value: Tensor) -> bool:
        return tensors[name].shape == value.shape and alike(tensors[name], value)

    values = _run_all(fp32, graph.sample)
    producers = {name: number for name, number in graph.producers.items() if name in tensors}
    found = {name: producers[name] for name, value in values.items() if name in producers and same(name, value)}
    taken = set(found.values())
    by_shape: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name, number in producers.items():
        if number not in taken:
            by_shape[tensors[name].shape].append(name)
    for name in [name for name in values if name not in found]:
        twin = next((other for other in by_shape[values[name].shape] if same(other, values[name])), None)
        if twin is not None:
            found[name] = producers[twin]
    return found


def _run_all(fp32: onnx.ModelProto, batch: Mapping[str, Array]) -> dict[str, Tensor]:
    """Return every tensor of the ONNX model's main graph."""
    twin = deepcopy(fp32)
    known = {output.name for output in twin.graph.output}
    names = [name for node in twin.graph.node for name in node.output if name and name not in known]
    twin.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = open_session(twin, literally=True)
    wanted = [output.name for output in session.get_outputs()]
    return {
        name: Tensor(tuple(value.shape), value.dtype.name, sketch(value))
        for name, value in zip(wanted, session.run(wanted, dict(batch)))
        if isinstance(value, np.ndarray)
    }


@dataclass
class _Kernel:
    kind: str
    operators: set[int] = field(default_factory=set)


def describe(graph: Graph, kernels: Sequence[Mapping[str, Any]], known: Mapping[str, int]) -> Fusion:
    """Describe one engine's kernels, as `Engine.kernels` gives them.

    Args:
        known: the operator of each tensor that kernels can name: what `onnx_twins` found for engines that read ONNX,
            the graph's `producers` for others.
    """
    made = [_Kernel(str(kernel["kind"])) for kernel in kernels]
    home: dict[int, _Kernel] = {}
    # Kernels that only bring a tensor into another layout bear its name, too: the first to bear it makes it.
    for kernel, told in zip(made, kernels):
        for name in told["names"]:
            if name in known and known[name] not in home:
                home[known[name]] = kernel
                kernel.operators.add(known[name])
    helpers = Counter(kernel.kind for kernel in made if not kernel.operators)
    gone = constants(graph) | computing_sizes(graph)
    _place_vanished(graph, home, gone)
    own = {_head(graph, kernel.operators) for kernel in made if kernel.operators}
    return Fusion(
        operators=len(graph.nodes),
        kernels=len(made),
        kinds=_kinds(kernels),
        helpers=dict(helpers.most_common()),
        types=_types(graph, home, own, gone),
    )


def computing_sizes(graph: Graph) -> set[int]:
    """Return the operators whose results only tell others a size."""
    found: set[int] = set()
    for node in reversed(graph.nodes):
        if any(name in graph.fetches for name in node.makes):
            continue
        consumers = [(consumer, name) for name in node.makes for consumer in graph.consumers_of(name)]
        only = all(consumer.number in found or name not in consumer.reads for consumer, name in consumers)
        if node.type in ("shape", "size", "numel") or (consumers and only):
            found.add(node.number)
    return found


def _place_vanished(graph: Graph, home: dict[int, _Kernel], gone: Collection[int]) -> None:
    """Find the kernel of each operator whose tensor no kernel makes."""
    vanished = [node for node in graph.nodes if node.number not in home and node.number not in gone]
    behind = {node.number: _kernel_behind(graph, node, home) for node in vanished}
    places: dict[int, _Kernel] = {}
    for node in vanished:
        producer = graph.producer(node.reads[0]) if node.reads else None
        kernel = behind[node.number]
        if producer is not None and not (node.is_layer or node.is_product):
            ahead = places.get(producer.number) or home.get(producer.number)
            if ahead is not None and any(_multiplies(graph.nodes[n]) for n in (*ahead.operators, producer.number)):
                kernel = ahead
            kernel = kernel or ahead
        if kernel is not None:
            places[node.number] = kernel
            kernel.operators.add(node.number)
    home |= places


def _kernel_behind(graph: Graph, node: Node, home: Mapping[int, _Kernel]) -> _Kernel | None:
    """Return the kernel of the first operator behind one that has a kernel."""
    seen, waiting = {node.number}, [node]
    while waiting:
        current = waiting.pop(0)
        for name in current.makes:
            for reader in graph.consumers_of(name):
                if reader.number in home:
                    return home[reader.number]
                if reader.number not in seen:
                    seen.add(reader.number)
                    waiting.append(reader)
    return None


def _multiplies(node: Node) -> bool:
    return node.is_layer or node.is_product


def _head(graph: Graph, operators: Collection[int]) -> int:
    multiplying = [number for number in operators if _multiplies(graph.nodes[number])]
    return max(multiplying or operators)


def _kinds(kernels: Sequence[Mapping[str, Any]]) -> list[KernelCount]:
    counts = Counter((str(kernel["kind"]), str(kernel["precision"])) for kernel in kernels)
    return [KernelCount(kind=kind, precision=precision, count=n) for (kind, precision), n in counts.most_common()]


def _types(graph: Graph, home: Mapping[int, _Kernel], own: Collection[int], gone: Collection[int]) -> list[TypeFusion]:
    counts = Counter(node.type for node in graph.nodes)
    rows = []
    for kind, count in counts.most_common():
        numbers = [node.number for node in graph.nodes if node.type == kind]
        alone = [number for number in numbers if number in own]
        into = Counter(home[number].kind for number in numbers if number in home and number not in own)
        rows.append(
            TypeFusion(
                type=kind,
                count=count,
                own=len(alone),
                own_kinds=dict(Counter(home[number].kind for number in alone).most_common()),
                into=dict(into.most_common()),
                beforehand=sum(number in gone and number not in home for number in numbers),
            )
        )
    return rows
