"""The table of a model's operators: parameters, MACs, and each one's share of the latency."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from act.program.costs import macs
from act.program.graph import Graph, Tensor
from act.program.layers import quantizable_layers
from act.program.model import InferenceModel
from act.results.analyze import Operator

# OpenVINO's and ONNX Runtime's names of the kernels that run a layer with a weight.
_LAYER_KERNELS = (
    *("Convolution", "GroupConvolution", "Deconvolution", "FullyConnected"),
    *("Conv", "FusedConv", "ConvTranspose", "MatMul", "Gemm"),
)


def list_operators(model: InferenceModel, graph: Graph, tensors: Mapping[str, Tensor]) -> list[Operator]:
    """Return the operators of the model in program order, with the shapes that `observe` saw for one sample."""
    # A branch that this sample does not take gives no value.
    shapes: dict[str, tuple[int, ...]] = {name: () for node in graph.nodes for name in node.makes}
    shapes |= {name: tensor.shape for name, tensor in tensors.items()} | graph.weights
    quantizable = {layer.name for layer in quantizable_layers(model)}
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
