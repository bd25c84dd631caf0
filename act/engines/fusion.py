"""What an engine makes of the program: how many kernels, and which operators have none of their own any more.

Names of ONNX tensors are the program's only in part, for Paddle2ONNX splits some operators, joins others and names what
it adds. So the ONNX model is run once on a sample, and its tensors are known again by their values and shapes.

An operator whose tensor no kernel makes has vanished: one that multiplies into the next kernel behind it, any other
into the kernel of the layer ahead of it, else into the next behind. Where a kernel stands for several operators, it is
the own one of that which multiplies, or else of the last.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import deepcopy

import numpy as np
import onnx

from act.engines.base import ExecutedKernel
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
    for name, value in values.items():
        if name not in found:
            twin = next((other for other in by_shape[value.shape] if same(other, value)), None)
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


def describe(graph: Graph, kernels: Sequence[ExecutedKernel], known: Mapping[str, int]) -> Fusion:
    """Describe one engine's kernels, as `Engine.kernels` gives them.

    Args:
        known: the operator of each tensor that kernels can name: what `onnx_twins` found for engines that read ONNX,
            the graph's `producers` for others.
    """
    home: dict[int, int] = {}  # by operator, the kernel that makes its tensor or that it has vanished into
    members: list[set[int]] = [set() for _ in kernels]
    # Kernels that only bring a tensor into another layout bear its name, too: the first to bear it makes it.
    for index, kernel in enumerate(kernels):
        for number in (known[name] for name in kernel.names if name in known):
            if home.setdefault(number, index) == index:
                members[index].add(number)
    helpers = Counter(kernel.kind for kernel, operators in zip(kernels, members) if not operators)
    gone = constants(graph) | computing_sizes(graph)
    _place_vanished(graph, home, members, gone)
    kinds = Counter((kernel.kind, kernel.precision) for kernel in kernels)
    multiplying = {node.number for node in graph.nodes if _multiplies(node)}
    own = {max(filter(multiplying.__contains__, each), default=max(each)) for each in members if each}
    types: dict[str, list[int]] = {}
    for node in graph.nodes:
        types.setdefault(node.type, []).append(node.number)
    return Fusion(
        operators=len(graph.nodes),
        kernels=len(kernels),
        kinds=[KernelCount(kind=kind, precision=how, count=count) for (kind, how), count in kinds.most_common()],
        helpers=dict(helpers.most_common()),
        types=[
            TypeFusion(
                type=kind,
                count=len(numbers),
                own=len(own.intersection(numbers)),
                own_kinds=_count(kernels[home[number]].kind for number in numbers if number in own),
                into=_count(kernels[home[number]].kind for number in numbers if number in home and number not in own),
                beforehand=sum(number in gone and number not in home for number in numbers),
            )
            for kind, numbers in sorted(types.items(), key=lambda each: -len(each[1]))
        ],
    )


def _count(kinds: Iterable[str]) -> dict[str, int]:
    return dict(Counter(kinds).most_common())


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


def _place_vanished(graph: Graph, home: dict[int, int], members: Sequence[set[int]], gone: Collection[int]) -> None:
    """Find the kernel of each operator whose tensor no kernel makes."""
    vanished = [node for node in graph.nodes if node.number not in home and node.number not in gone]
    behind = [_kernel_behind(graph, node, home) for node in vanished]
    for node, place in zip(vanished, behind):
        producer = graph.producer(node.reads[0]) if node.reads else None
        if producer is not None and not _multiplies(node):
            ahead = home.get(producer.number)
            if ahead is not None and any(_multiplies(graph.nodes[n]) for n in (*members[ahead], producer.number)):
                place = ahead
            place = ahead if place is None else place
        if place is not None:
            home[node.number] = place
            members[place].add(node.number)


def _kernel_behind(graph: Graph, node: Node, home: Mapping[int, int]) -> int | None:
    """Return the kernel of the first operator behind one that has a kernel."""
    waiting, seen = [node], {node.number}
    for current in waiting:
        for consumer in (each for name in current.makes for each in graph.consumers_of(name)):
            if consumer.number in home:
                return home[consumer.number]
            if consumer.number not in seen:
                seen.add(consumer.number)
                waiting.append(consumer)
    return None


def _multiplies(node: Node) -> bool:
    return node.is_layer or node.is_product
