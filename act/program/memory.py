"""How much memory a model's activations take: all together, and those that are alive at the same time.

Operators run in the program's order. A tensor is alive from the operator that makes it to the last that reads it, an
input from the beginning, an output to the end. What only gives the same values another shape (reshape, flatten,
squeeze, assign) takes no memory of its own but keeps its source alive. Nothing is fused and nothing is computed in
place, so that an engine needs less for its activations; its weights and scratch memory come on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from act.program.graph import Graph, Tensor

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
        """As it stands in `analysis.json`."""
        return {
            "total_bytes": self.total_bytes,
            "peak_bytes": self.peak_bytes,
            "peak_at": self.peak_at,
            "alive_at_peak": [{"name": name, "bytes": size} for name, size in self.alive_at_peak],
        }


def measure(graph: Graph, tensors: Mapping[str, Tensor]) -> Memory:
    """The memory of the activations of a graph.

    Args:
        tensors: what `observe` saw for one sample.
    """
    owner = _owners(graph, tensors)
    last = _last_readings(graph, owner)
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
    """For each tensor the one whose memory it is; a view of a weight needs none."""
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


def _last_readings(graph: Graph, owner: Mapping[str, str]) -> dict[str, int]:
    """The number of the last operator that reads each owner or a view of it; beyond the last one for outputs."""
    last: dict[str, int] = {}
    for node in graph.nodes:
        for name in (*node.reads, *node.sizes, *node.makes):
            if name in owner:
                last[owner[name]] = max(last.get(owner[name], -1), node.number)
    for name in graph.fetches:
        if name in owner:
            last[owner[name]] = len(graph.nodes)
    return last
