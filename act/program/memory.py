"""Memory of a model's activations, with nothing fused and nothing computed in place.

A tensor is alive from the operator that makes it to the last that reads it, an input from the beginning, an output to
the end. What gives the same values another shape takes no memory of its own but keeps its source alive.
"""

from __future__ import annotations

from collections.abc import Mapping

from act.program.graph import Graph, Tensor
from act.results.analyze import AliveTensor, Memory

VIEWS = ("reshape2", "reshape", "flatten_contiguous_range", "flatten2", "squeeze2", "unsqueeze2", "assign")
_LARGEST = 5


def activation_memory(graph: Graph, tensors: Mapping[str, Tensor]) -> Memory:
    """Return the memory of the activations of a graph, given what `observe` saw for one sample."""
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
    return Memory(
        total_bytes=total,
        peak_bytes=peak,
        peak_at=at,
        alive_at_peak=[AliveTensor(name=name, bytes=size) for name, size in ranked],
    )


def _owners(graph: Graph, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return for each tensor the one whose memory it is; a view of a weight needs none."""
    owner = {name: name for name in graph.feeds if name in tensors}
    for node in graph.nodes:
        source = node.reads[0] if node.reads else None
        for name in (name for name in node.makes if name in tensors):
            if node.type in VIEWS and source in owner:
                owner[name] = owner[source]
            elif node.type not in VIEWS or not node.weights:
                owner[name] = name
    return owner


def _last_consumers(graph: Graph, owner: Mapping[str, str]) -> dict[str, int]:
    """Return the last operator that reads each owner or a view of it; beyond the last one for outputs."""
    last: dict[str, int] = {}
    for node in graph.nodes:
        last |= {owner[name]: node.number for name in (*node.reads, *node.sizes, *node.makes) if name in owner}
    return last | {owner[name]: len(graph.nodes) for name in graph.fetches if name in owner}
