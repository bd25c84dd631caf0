"""What kind of network a program is, and of which parts it is built: backbone, repeated blocks, joins, heads.

Nothing goes by names; each part has a rule.

- A layer is a convolution or a matrix product with a weight. An attention is a softmax that reads, through operators
  without a weight, a product of two activations, and is read, likewise, by another such product (Vaswani et al.,
  2017); Paddle's fused attention operators are one each.
- Kind: `cnn` with convolutions, `transformer` with attention, `recurrent` with recurrent operators, `mixed` with two of
  them, `dense` with matrix products only, `other` without layers. Convolutions whose stride is their kernel and that
  read an input cut it into patches and do not make a transformer a mixed one (Dosovitskiy et al., 2021).
- Join: an addition of two activations of one shape that come from one tensor. `residual` where one way from that tensor
  has no layer and the other has some (He et al., 2016), or one layer, a projection, and the other more; `pyramid` where
  a way holds an upsampling (Lin et al., 2017); else `parallel`. Beside these there are `gates` (a product of two
  activations, one of which comes from the other through a layer, as in squeeze-and-excitation, Hu et al., 2018) and
  `concatenations`.
- Block: what lies between the tensor and a residual join, and holds no other residual join; a projection counts as part
  of it, but two blocks may differ by one. Blocks, and layers, joins and attentions outside of them, are a sequence in
  the program's order. A stretch of it that repeats itself at once, with the same kernels and joins and any numbers of
  channels, is a group of repeated blocks, where it holds no repeats itself; of single layers three must stand in a row.
- Head of an output: what only it needs and no other output, and what comes after all blocks, joins and attentions, at
  the latest its last layer. Backbone: all operators that are in no head.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property, reduce
from operator import or_
from typing import Any, Literal, NamedTuple

from act.program.graph import TRANSPOSED_CONVOLUTIONS, Graph, Node, Tensor
from act.results.analyze import Operator, TypeCount

Kind = Literal["cnn", "transformer", "recurrent", "mixed", "dense", "other"]
JoinKind = Literal["residual", "pyramid", "parallel"]
_JOIN_KINDS: tuple[JoinKind, ...] = ("residual", "pyramid", "parallel")

_FUSED_ATTENTION = (
    *("fused_attention", "flash_attn", "multihead_matmul", "fused_multi_transformer", "memory_efficient_attention"),
    "fused_dot_product_attention",
)
_RECURRENT = ("rnn", "lstm", "gru", "lstmp", "cudnn_lstm", "fusion_gru", "fusion_lstm", "gru_unit", "lstm_unit")
_UPSAMPLING = ("nearest_interp", "nearest_interp_v2", "bilinear_interp", "bilinear_interp_v2", "bicubic_interp_v2")
_LONGEST_PERIOD = 24
_GIVES = {1: "one number a sample", 2: "a vector a sample", 3: "a table a sample", 4: "maps"}


class Attention(NamedTuple):
    """One attention: its operators from the first product to the second, in order."""

    softmax: int
    members: tuple[int, ...]


class Join(NamedTuple):
    """An addition of two activations that come from one tensor.

    Attributes:
        number: of the addition.
        members: numbers of the operators on both ways, the addition included, in order.
        short: members on the way with fewer layers.
    """

    number: int
    kind: JoinKind
    members: tuple[int, ...]
    short: tuple[int, ...]


class _Token(NamedTuple):
    """A piece of the sequence: what it looks like, and the operators that it stands for."""

    signature: tuple[str, ...]
    members: tuple[int, ...]
    residual: bool = False


class Blocks(NamedTuple):
    """Blocks that repeat one another: what one holds, in words, how many there are, operators of all of them."""

    layers: tuple[str, ...]
    repeats: int
    residual: bool
    members: tuple[int, ...]


class Structure:
    """The structure of a graph, found when it is asked for, with what was seen of its tensors for one sample."""

    def __init__(self, graph: Graph, tensors: Mapping[str, Tensor]) -> None:
        self.graph = graph
        self.tensors = tensors
        self._before = graph.ancestors()
        self._sources: list[frozenset[str]] = []
        for node in self.graph.nodes:
            given = frozenset(node.reads).intersection(self.graph.feeds)
            self._sources.append(given.union(*(self._sources[n] for n in self.graph.producers_before(node))))

    @cached_property
    def attentions(self) -> list[Attention]:
        """List all attentions, in order."""
        found = []
        for node in self.graph.nodes:
            if node.type in _FUSED_ATTENTION:
                found.append(Attention(node.number, (node.number,)))
            elif node.type == "softmax":
                before = self._nearest_product(node, self.graph.producers_before)
                after = self._nearest_product(node, lambda each: self.graph.consumers.get(each.name, []))
                if before is not None and after is not None:
                    found.append(Attention(node.number, self._between(before, after)))
        return found

    def _nearest_product(self, start: Node, neighbours: Callable[[Node], Collection[int]]) -> int | None:
        """Return a product of two activations that is reached without crossing a layer."""
        seen: set[int] = set()
        waiting = [*neighbours(start)]
        while waiting:
            number = waiting.pop()
            node = self.graph.nodes[number]
            if node.is_product:
                return number
            if number not in seen and not node.is_layer:
                seen.add(number)
                waiting += neighbours(node)
        return None

    def _between(self, first: int, last: int) -> tuple[int, ...]:
        """Return the operators on any way from one operator to another, both included."""
        bits = self._before[last]
        return tuple(n for n in range(first, last + 1) if bits >> n & 1 and self._before[n] >> first & 1)

    @cached_property
    def kind(self) -> Kind:
        nodes = self.graph.nodes
        kinds: list[Kind] = ["transformer"] if self.attentions else []
        kinds += ["recurrent"] if any(node.type in _RECURRENT for node in nodes) else []
        convolutions = [node for node in nodes if node.is_convolution]
        patches = [node for node in convolutions if self._cuts_patches(node)] if kinds else []
        kinds += ["cnn"] if len(convolutions) > len(patches) else []
        if kinds:
            return kinds[0] if len(kinds) == 1 else "mixed"
        return "dense" if any(node.is_layer for node in nodes) else "other"

    def _cuts_patches(self, node: Node) -> bool:
        """Tell whether a convolution reads an input and steps by its whole kernel."""
        shape = self._kernel(node)
        first = not any(self.graph.nodes[n].is_layer for n in _numbers(self._before[node.number]) if n != node.number)
        return first and bool(shape) and tuple(node.attribute("strides", [])) == shape and min(shape) > 1

    def _kernel(self, node: Node) -> tuple[int, ...]:
        return self.graph.weights[node.weights[0]][2:] if node.weights else ()

    @cached_property
    def joins(self) -> list[Join]:
        """List all additions of two activations that come from one tensor, in order."""
        return [join for node in self.graph.nodes if (join := self._join(node)) is not None]

    def _join(self, node: Node) -> Join | None:
        if node.type not in ("elementwise_add", "sum") or len(node.reads) != 2 or node.weights:
            return None
        shapes = [self.tensors[name].shape for name in node.reads if name in self.tensors]
        if len(shapes) != 2 or shapes[0] != shapes[1]:
            return None
        paths = self._paths(node)
        if paths is None:
            return None
        ways, depths = paths
        short, long = sorted(depths)
        members = tuple(sorted({*ways[0], *ways[1], node.number}))
        if any(self._upsamples(number) for number in members):
            kind: JoinKind = "pyramid"
        elif (short == 0 and long > 0) or (short == 1 and long > 1):
            kind = "residual"
        elif long == 0:
            return None
        else:
            kind = "parallel"
        return Join(node.number, kind, members, ways[0] if depths[0] == short else ways[1])

    def _paths(self, node: Node) -> tuple[list[tuple[int, ...]], list[int]] | None:
        """Return the ways to both tensors that a node reads from the last tensor that they come from, and their depths;
        None where they share nothing."""
        producers = [self.graph.producers.get(name, -1) for name in node.reads]
        before = [self._before[number] if number >= 0 else 0 for number in producers]
        start = (before[0] & before[1]).bit_length() - 1  # -1: an input
        inputs = [self._sources[n] if n >= 0 else {name} for name, n in zip(node.reads, producers)]
        if start < 0 and not inputs[0] & inputs[1] & set(self.graph.feeds):
            return None
        ways = [self._way(start, producer) for producer in producers]
        return ways, [self._depth(start, producer, way) for producer, way in zip(producers, ways)]

    def _way(self, start: int, end: int) -> tuple[int, ...]:
        """Return the operators on the ways from a tensor to another, without the one that makes the first."""
        if end < 0 or end == start:
            return ()
        if start < 0:
            return tuple(_numbers(self._before[end]))
        return tuple(n for n in self._between(start, end) if n != start)

    def _depth(self, start: int, end: int, way: Collection[int]) -> int:
        """Count the layers and attentions on the longest way."""
        deepest: dict[int, int] = {start: 0}
        for number in way:
            node = self.graph.nodes[number]
            counts = node.is_layer or node.type in (*_RECURRENT, *_FUSED_ATTENTION)
            before = max((deepest.get(n, 0) for n in self.graph.producers_before(node)), default=0)
            deepest[number] = before + int(counts)
        return deepest.get(end, 0)

    def _upsamples(self, number: int) -> bool:
        node = self.graph.nodes[number]
        strides = node.attribute("strides", [1])
        return node.type in _UPSAMPLING or (node.type in TRANSPOSED_CONVOLUTIONS and max(strides) > 1)

    @cached_property
    def gates(self) -> list[int]:
        """List the products of two activations, one of which comes from the other through a layer."""
        products = [node for node in self.graph.nodes if node.type == "elementwise_mul" and len(node.reads) == 2]
        found = [(node.number, paths) for node in products if (paths := self._paths(node)) is not None]
        return [number for number, (ways, depths) in found if () in ways and min(depths) == 0 < max(depths)]

    @cached_property
    def groups(self) -> list[Blocks]:
        """List the blocks, those that repeat one another as one, and single residual blocks."""
        tokens = self._tokens()
        found, place = [], 0
        while place < len(tokens):
            period, count = _repeats(tokens, place)
            stretch = tokens[place : place + period * count]
            residual = any(token.residual for token in stretch)
            if count > 1 or residual:
                layers = tuple(word for token in stretch[:period] for word in token.signature)
                members = sorted(number for token in stretch for number in token.members)
                found.append(Blocks(layers, count, residual, tuple(members)))
            place += len(stretch)
        return found

    def _tokens(self) -> list[_Token]:
        """Return the sequence: blocks, and what stands outside of them, each where its last operator stands."""
        residual = {join.number: join for join in self.joins if join.kind == "residual"}
        blocks = {n: join for n, join in residual.items() if residual.keys() & join.members == {n}}
        inside = {number for block in blocks.values() for number in block.members}
        last = {self._last_layer(name) for name in self.graph.fetches}
        tokens = []
        for node in self.graph.nodes:
            words = self._words(node)
            if node.number in blocks:
                tokens.append(self._block_token(blocks[node.number]))
            elif words and node.number not in last and node.number not in inside:
                tokens.append(_Token(words, (node.number,)))
        return tokens

    def _block_token(self, block: Join) -> _Token:
        projection = {*block.short, block.number}
        nodes = [self.graph.nodes[number] for number in block.members if number not in projection]
        words = tuple(word for node in nodes for word in self._words(node))
        return _Token((*words, "residual join"), block.members, residual=True)

    def _words(self, node: Node) -> tuple[str, ...]:
        """Name an operator as a part of a block; nothing for those that blocks do not differ by."""
        if node.number in self._marks:
            return (self._marks[node.number],)
        if node.is_layer and node.is_convolution:
            sides = "x".join(map(str, self._kernel(node)))
            groups, weight = int(node.attribute("groups", 1)), self.graph.weights[node.weights[0]]
            apart = "" if groups == 1 else "depthwise " if weight[1] == 1 else "grouped "
            transposed = "transposed " if node.type in TRANSPOSED_CONVOLUTIONS else ""
            return (f"{transposed}{apart}convolution {sides}",)
        if node.is_layer:
            return ("matrix product",)
        if _concatenates(node):
            return ("concatenation",)
        return ("recurrence",) if node.type in _RECURRENT else ()

    @cached_property
    def _marks(self) -> dict[int, str]:
        """Name attentions, gates and joins."""
        words = {join.number: f"{join.kind} join" for join in self.joins}
        words |= dict.fromkeys(self.gates, "gate")
        return words | {attention.softmax: "attention" for attention in self.attentions}

    def _last_layer(self, output: str) -> int:
        """Return the number of the last layer that an output depends on; -1 where there is none."""
        before = self._before_output(output)
        return max((n for n in _numbers(before) if self.graph.nodes[n].is_layer), default=-1)

    def _before_output(self, output: str) -> int:
        producer = self.graph.producers.get(output)
        return 0 if producer is None else self._before[producer]

    @cached_property
    def heads(self) -> list[tuple[str, tuple[int, ...]]]:
        """List the heads: for each output in order its name, and the numbers of its operators."""
        needs = [self._before_output(name) for name in self.graph.fetches]
        marks = [number for group in self.groups for number in group.members]
        marks += [join.number for join in self.joins] + [a.members[-1] for a in self.attentions] + self.gates
        marks += [node.number for node in self.graph.nodes if _concatenates(node)]
        ahead = reduce(or_, (self._before[number] for number in marks), 0)  # of the marks, themselves included
        heads = []
        for place, (name, needed) in enumerate(zip(self.graph.fetches, needs)):
            shared = reduce(or_, needs[:place] + needs[place + 1 :], 0)
            own = [n for n in _numbers(needed & ~shared) if self._sources[n]]
            last = self._last_layer(name)
            after = [n for n in own if not ahead >> n & 1] if marks else []
            since = [n for n in own if last >= 0 and self._before[n] >> last & 1]
            heads.append((name, tuple(sorted({*after, *since}) if last >= 0 else own)))
        return heads

    @cached_property
    def backbone(self) -> tuple[int, ...]:
        """List all operators that are in no head."""
        inside = {number for _, members in self.heads for number in members}
        return tuple(node.number for node in self.graph.nodes if node.number not in inside)


def _concatenates(node: Node) -> bool:
    return node.type == "concat" and len(node.reads) > 1


def _numbers(bits: int) -> Iterator[int]:
    """Return the places of the ones, ascending."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def _repeats(tokens: Sequence[_Token], start: int) -> tuple[int, int]:
    """Return length and number of the stretches from a place on that repeat the first, as many as can be, the shortest
    of them; one token alone where nothing repeats."""
    best = (1, 1)
    for period in range(1, min(_LONGEST_PERIOD, (len(tokens) - start) // 2) + 1):
        stretch = tokens[start : start + period]
        first = [token.signature for token in stretch]
        count = 1
        while [t.signature for t in tokens[start + count * period : start + (count + 1) * period]] == first:
            count += 1
        # Two layers of one kind in a row are no blocks yet, and what holds repeats is not one block.
        enough = 2 if period > 1 or stretch[0].residual else 3
        longer = count >= max(enough, best[1] + 1) and _holds_layers(stretch)
        if longer and all(_repeats(stretch, place) == (1, 1) for place in range(period - 1)):
            best = (period, count)
    return best


def _holds_layers(stretch: Sequence[_Token]) -> bool:
    return any(not word.endswith(("join", "concatenation", "gate")) for token in stretch for word in token.signature)


def describe(structure: Structure, operators: Sequence[Operator]) -> dict[str, Any]:
    """Describe the structure for `analysis.json`, given the table of operators in the order of the graph's nodes."""
    nodes = structure.graph.nodes
    joins = {kind: [nodes[join.number].name for join in structure.joins if join.kind == kind] for kind in _JOIN_KINDS}
    return {
        "kind": structure.kind,
        "backbone": {**_costs(structure.backbone, structure, operators), "stages": _stages(structure, operators)},
        "blocks": [
            {
                "layers": list(group.layers),
                "count": group.repeats,
                "residual": group.residual,
                "first": nodes[group.members[0]].name,
                "last": nodes[group.members[-1]].name,
                **_costs(group.members, structure, operators),
            }
            for group in structure.groups
        ],
        **{f"{kind}_joins": names for kind, names in joins.items()},
        "gates": [nodes[number].name for number in structure.gates],
        "concatenations": sum(map(_concatenates, nodes)),
        "attentions": [nodes[attention.softmax].name for attention in structure.attentions],
        "heads": [
            {
                "output": output,
                "gives": _gives(structure.tensors.get(output)),
                "types": [nodes[number].type for number in members],
                **_costs(members, structure, operators),
            }
            for output, members in structure.heads
        ],
    }


def _gives(tensor: Tensor | None) -> str:
    if tensor is None:
        return "nothing for this sample"
    return _GIVES.get(len(tensor.shape), f"a tensor of rank {len(tensor.shape)}")


def _costs(members: Collection[int], structure: Structure, operators: Sequence[Operator]) -> dict[str, int]:
    chosen = [operators[number] for number in members]
    return {
        "operators": len(chosen),
        "layer_count": sum(structure.graph.nodes[number].is_layer for number in members),
        "parameters": sum(operator.parameters for operator in chosen),
        "macs": sum(operator.macs for operator in chosen),
    }


def _stages(structure: Structure, operators: Sequence[Operator]) -> list[dict[str, Any]]:
    """Group the backbone's layers by the size of their output, height and width or length, in order of appearance."""
    stages: dict[tuple[int, ...], dict[str, Any]] = {}
    for number in structure.backbone:
        node, operator = structure.graph.nodes[number], operators[number]
        if not node.is_layer or len(operator.shape) < 2:
            continue
        channels_first = node.is_convolution and node.attribute("data_format", "NCHW") in ("NCHW", "NCDHW", "AnyLayout")
        places = tuple(operator.shape[2:] if channels_first else operator.shape[1:-1])
        if node.is_convolution and set(places) == {1}:  # of a gate, between two stages
            continue
        channels = operator.shape[1] if channels_first else operator.shape[-1]
        stage = stages.setdefault(places, {"size": list(places), "layers": 0, "channels": 0, "macs": 0})
        stage["layers"] += 1
        stage["channels"] = max(stage["channels"], channels)
        stage["macs"] += operator.macs
    return list(stages.values())


def census(operators: Sequence[Operator]) -> list[TypeCount]:
    """Count the operators of each type, with what they hold and cost; most frequent first."""
    by_type: dict[str, list[Operator]] = {}
    for operator in operators:
        by_type.setdefault(operator.type, []).append(operator)
    rows = [
        TypeCount(
            type=name, count=len(those), parameters=sum(o.parameters for o in those), macs=sum(o.macs for o in those)
        )
        for name, those in by_type.items()
    ]
    return sorted(rows, key=lambda row: -row.count)
