"""The table of a model's operators: parameters, MACs, and each one's share of the latency.

Shapes are those of one real sample. The latency of each layer is measured by the kernel counters of the first engine
that has some, whose kernels run in the program's order; where they cannot be told apart, the share of MACs stands in
for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from act.program.costs import macs
from act.program.graph import Graph, Tensor
from act.program.layers import quantizable_layers
from act.program.model import InferenceModel

# OpenVINO's and ONNX Runtime's names of the kernels that run a layer with a weight.
_LAYER_KERNELS = (
    *("Convolution", "GroupConvolution", "Deconvolution", "FullyConnected"),
    *("Conv", "FusedConv", "ConvTranspose", "MatMul", "Gemm"),
)


@dataclass
class Operator:
    """One operator of the program.

    Attributes:
        name: its first output.
        type: Paddle's operator type.
        shape: of that output for one sample, batch axis first.
        weights: the shape of each of its weights.
        parameters: number of values in its weights; a weight that several operators share counts for each of them.
        macs: for one sample.
        quantizable: whether our quantizer can run it in int8.
        latency_share: of the whole model's latency, in [0, 1]; None where it was not told apart.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    weights: tuple[tuple[int, ...], ...]
    parameters: int
    macs: int
    quantizable: bool
    latency_share: float | None = None


def list_operators(model: InferenceModel, graph: Graph, tensors: Mapping[str, Tensor]) -> list[Operator]:
    """Return the operators of the model in program order.

    Args:
        tensors: what `observe` saw for one sample.
    """
    # A branch that this sample does not take gives no value.
    shapes: dict[str, tuple[int, ...]] = {name: () for node in graph.nodes for name in node.makes}
    shapes |= {name: tensor.shape for name, tensor in tensors.items()} | graph.weights
    quantizable = {layer.name for layer in quantizable_layers(model)}
    return [
        Operator(
            node.name,
            node.type,
            shapes[node.name],
            tuple(graph.weights[name] for name in node.weights),
            sum(int(np.prod(graph.weights[name])) for name in node.weights),
            macs(node.op, shapes),
            node.name in quantizable,
        )
        for node in graph.nodes
    ]


def assign_latency(operators: Sequence[Operator], kernels: Sequence[Mapping[str, Any]]) -> str:
    """Fill in the latency shares, and say where they come from.

    Args:
        operators: changed in place.
        kernels: of the fp32 model, as `EngineProcess.profile` gives them; may be empty.
    """
    layers = [o for o in operators if o.macs and o.parameters]
    found = [kernel for kernel in kernels if kernel["kind"] in _LAYER_KERNELS]
    total = sum(kernel["seconds"] for kernel in kernels)
    if total > 0 and len(found) == len(layers) and all(_same(o, k) for o, k in zip(layers, found)):
        for operator, kernel in zip(layers, found):
            operator.latency_share = kernel["seconds"] / total
        return "measured: the engine's kernel times; a layer's kernel includes what is fused into it"
    everything = sum(operator.macs for operator in operators) or 1
    for operator in operators:
        operator.latency_share = operator.macs / everything
    return "derived: share of MACs, because the engine's kernels could not be matched to the layers"


def _same(operator: Operator, kernel: Mapping[str, Any]) -> bool:
    return int(np.prod(operator.shape)) == int(np.prod(kernel["shape"]))
