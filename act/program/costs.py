"""What a model costs: multiply-accumulate operations (MACs), and the memory of its activations.

MACs are counted for convolutions and matrix products, as is usual; other operators count as zero.

Operators run in the program's order. A tensor is alive from the operator that makes it to the last that reads it, an
input from the beginning, an output to the end. What only gives the same values another shape (reshape, flatten,
squeeze, assign) takes no memory of its own but keeps its source alive. Nothing is fused and nothing is computed in
place, so that an engine needs less for its activations; its weights and scratch memory come on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from act.program.graph import CONVOLUTIONS, MATRIX_PRODUCTS, TRANSPOSED_CONVOLUTIONS, Graph, Tensor, main_output
from act.program.model import InferenceModel
from act.samples.dataset import Array

VIEWS = ("reshape2", "reshape", "flatten_contiguous_range", "flatten2", "squeeze2", "unsqueeze2", "assign")
_LARGEST = 5


@dataclass(frozen=True)
class Memory:
    """Bytes of activations for one sample in fp32.

    Attributes:
        total_bytes: of all tensors together, views counted once.
        peak_bytes: of those alive at the same time, where they are most.
        peak_at: the operator that runs then.
        alive_at_peak: name and bytes of the largest of them.
    """

    total_bytes: int
    peak_bytes: int
    peak_at: str
    alive_at_peak: tuple[tuple[str, int], ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as it stands in `analysis.json`."""
        return {
            "total_bytes": self.total_bytes,
            "peak_bytes": self.peak_bytes,
            "peak_at": self.peak_at,
            "alive_at_peak": [{"name": name, "bytes": size} for name, size in self.alive_at_peak],
        }


def macs(op: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the MACs of an operator.

    Args:
        shapes: of what it reads and makes for one sample, weights included.
    """
    output = int(np.prod(shapes[main_output(op)]))
    if op.type in CONVOLUTIONS:
        return output * int(np.prod(shapes[op.input("Filter")[0]][1:]))
    if op.type in TRANSPOSED_CONVOLUTIONS:
        return int(np.prod(shapes[op.input("Input")[0]])) * int(np.prod(shapes[op.input("Filter")[0]][1:]))
    if op.type == "mul":
        return output * int(np.prod(shapes[op.input("Y")[0]][: op.attr("y_num_col_dims")]))
    if op.type in MATRIX_PRODUCTS:
        left = shapes[op.input("X")[0]]
        flag = {"matmul_v2": "trans_x", "matmul": "transpose_X"}.get(op.type)
        transposed = flag is not None and op.attr(flag) and len(left) > 1
        return output * int(left[-2] if transposed else left[-1])
    return 0


def layer_macs(model: InferenceModel, batch: Mapping[str, Array]) -> dict[str, int]:
    """Return the MACs of each convolution and matrix product, by its output, in program order.

    Args:
        batch: one sample.
    """
    kinds = (*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS, *MATRIX_PRODUCTS)
    ops = [op for op in model.ops if op.type in kinds]
    names = list(dict.fromkeys(name for op in ops for name in (*op.input_arg_names, main_output(op))))
    shapes = {name: model.shape(name) for name in names if model.is_weight(name)}
    made = [name for name in names if name not in shapes]
    shapes |= {name: tuple(value.shape) for name, value in zip(made, model.run(batch, made) if made else [])}
    return {main_output(op): macs(op, shapes) for op in ops}


def activation_memory(graph: Graph, tensors: Mapping[str, Tensor]) -> Memory:
    """Return the memory of the activations of a graph.

    Args:
        tensors: what `observe` saw for one sample.
    """
    owner = _owners(graph, tensors)
    last = _last_consumers(graph, owner)
    sizes = {name: tensors[name].bytes for name in dict.fromkeys(owner.values())}
    alive = {name: sizes[name] for name in graph.feeds if name in sizes}
    total = sum(sizes.values())
    peak, at, largest = sum(alive.values()), "", dict(alive)
    for node in graph.nodes:
        alive |= {name: sizes[name] for name in node.makes if owner.get(name) == name}
        now = sum(alive.values())
        if now > peak:
            peak, at, largest = now, node.name, dict(alive)
        for name in [name for name in alive if last.get(name, -1) <= node.number]:
            del alive[name]
    ranked = sorted(largest.items(), key=lambda item: -item[1])[:_LARGEST]
    return Memory(total, peak, at, tuple(ranked))


def _owners(graph: Graph, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return for each tensor the one whose memory it is; a view of a weight needs none."""
    owner = {name: name for name in graph.feeds if name in tensors}
    for node in graph.nodes:
        source = node.reads[0] if node.reads else None
        for name in node.makes:
            if name not in tensors:
                continue
            if node.type in VIEWS and source in owner:
                owner[name] = owner[source]
            elif node.type not in VIEWS or not node.weights:
                owner[name] = name
    return owner


def _last_consumers(graph: Graph, owner: Mapping[str, str]) -> dict[str, int]:
    """Return the last operator that reads each owner or a view of it; beyond the last one for outputs."""
    last: dict[str, int] = {}
    for node in graph.nodes:
        for name in (*node.reads, *node.sizes, *node.makes):
            if name in owner:
                last[owner[name]] = max(last.get(owner[name], -1), node.number)
    for name in graph.fetches:
        if name in owner:
            last[owner[name]] = len(graph.nodes)
    return last
