"""What a model holds and costs for one sample: parameters, MACs, shares of the latency, memory of the activations."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from act.program.costs import macs
from act.program.graph import Graph
from act.program.layers import quantizable_layers
from act.results.analyze import AliveTensor, Memory, Operator, TypeCount

# OpenVINO's and ONNX Runtime's names of the kernels that run a layer with a weight.
_LAYER_KERNELS = (
    *("Convolution", "GroupConvolution", "Deconvolution", "FullyConnected"),
    *("Conv", "FusedConv", "ConvTranspose", "MatMul", "Gemm"),
)
_VIEWS = ("reshape2", "reshape", "flatten_contiguous_range", "flatten2", "squeeze2", "unsqueeze2", "assign")
_LARGEST = 5


def list_operators(graph: Graph) -> list[Operator]:
    """Return the operators in program order."""
    # A branch that this sample does not take gives no value.
    shapes: dict[str, tuple[int, ...]] = {name: () for node in graph.nodes for name in node.makes}
    shapes |= {name: tensor.shape for name, tensor in graph.tensors.items()} | graph.weights
    quantizable = {layer.name for layer in quantizable_layers(graph.model)}
    return [
        Operator(
            name=node.name,
            type=node.type,
            shape=list(shapes[node.name]),
            weights=[list(graph.weights[name]) for name in node.weights],
            parameters=sum(math.prod(graph.weights[name]) for name in node.weights),
            macs=macs(node.op, shapes),
            quantizable=node.name in quantizable,
            latency_share=None,
        )
        for node in graph.nodes
    ]


def count_types(operators: Sequence[Operator]) -> list[TypeCount]:
    """Count the operators of each type, with what they hold and cost; most frequent first."""
    by_type: dict[str, list[Operator]] = defaultdict(list)
    for operator in operators:
        by_type[operator.type].append(operator)
    rows = [
        TypeCount(
            type=name, count=len(those), parameters=sum(o.parameters for o in those), macs=sum(o.macs for o in those)
        )
        for name, those in by_type.items()
    ]
    return sorted(rows, key=lambda row: -row.count)


def assign_latency(operators: Sequence[Operator], kernels: Sequence[Mapping[str, Any]]) -> tuple[list[Operator], str]:
    """Return the operators with their latency shares, and where those come from.

    Kernels run in the program's order. Where they cannot be matched to the layers, the share of MACs stands in.

    Args:
        kernels: of the fp32 model, as `EngineProcess.profile` gives them; may be empty.
    """
    layers = [number for number, o in enumerate(operators) if o.macs and o.parameters]
    sizes = [math.prod(operators[number].shape) for number in layers]
    found = [kernel for kernel in kernels if kernel["kind"] in _LAYER_KERNELS]
    total = sum(kernel["seconds"] for kernel in kernels)
    if total > 0 and sizes == [math.prod(kernel["shape"]) for kernel in found]:
        shares = {number: kernel["seconds"] / total for number, kernel in zip(layers, found)}
        source = "measured: the engine's kernel times; a layer's kernel includes what is fused into it"
    else:
        everything = sum(o.macs for o in operators) or 1
        shares = {number: o.macs / everything for number, o in enumerate(operators)}
        source = "derived: share of MACs, because the engine's kernels could not be matched to the layers"
    return [o.model_copy(update={"latency_share": shares.get(n)}) for n, o in enumerate(operators)], source


def activation_memory(graph: Graph) -> Memory:
    """Return the memory of the activations, with nothing fused and nothing computed in place.

    A tensor is alive from the operator that makes it to the last that reads it, an input from the beginning, an output
    to the end. What gives the same values another shape takes no memory of its own but keeps its source alive.
    """
    owner = _owners(graph)
    last = {
        owner[name]: node.number
        for node in graph.nodes
        for name in (*node.reads, *node.sizes, *node.makes)
        if name in owner
    }
    last |= {owner[name]: len(graph.nodes) for name in graph.fetches if name in owner}
    sizes = {name: graph.tensors[name].bytes for name in dict.fromkeys(owner.values())}
    alive = {name: sizes[name] for name in graph.feeds if name in sizes}
    peak, at, largest = sum(alive.values()), "", dict(alive)
    for node in graph.nodes:
        alive |= {name: sizes[name] for name in node.makes if owner.get(name) == name}
        now = sum(alive.values())
        if now > peak:
            peak, at, largest = now, node.name, dict(alive)
        alive = {name: size for name, size in alive.items() if last.get(name, -1) > node.number}
    ranked = sorted(largest.items(), key=lambda item: -item[1])[:_LARGEST]
    return Memory(
        total_bytes=sum(sizes.values()),
        peak_bytes=peak,
        peak_at=at,
        alive_at_peak=[AliveTensor(name=name, bytes=size) for name, size in ranked],
    )


def _owners(graph: Graph) -> dict[str, str]:
    """Return for each tensor the one whose memory it is; a view of a weight needs none."""
    owner = {name: name for name in graph.feeds if name in graph.tensors}
    for node in graph.nodes:
        source = node.reads[0] if node.reads else None
        for name in (name for name in node.makes if name in graph.tensors):
            if node.type in _VIEWS and source in owner:
                owner[name] = owner[source]
            elif node.type not in _VIEWS or not node.weights:
                owner[name] = name
    return owner
