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

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property, reduce
from operator import or_
from typing import NamedTuple

from act.program.graph import TRANSPOSED_CONVOLUTIONS, Graph, Node, Tensor
from act.results.analyze import Backbone, BackboneStage, Blocks, Head, Operator, Structure

_FUSED_ATTENTION = (
    *("fused_attention", "flash_attn", "multihead_matmul", "fused_multi_transformer", "memory_efficient_attention"),
    "fused_dot_product_attention",
)
_RECURRENT = ("rnn", "lstm", "gru", "lstmp", "cudnn_lstm", "fusion_gru", "fusion_lstm", "gru_unit", "lstm_unit")
_UPSAMPLING = ("nearest_interp", "nearest_interp_v2", "bilinear_interp", "bilinear_interp_v2", "bicubic_interp_v2")
_LONGEST_PERIOD = 24
_JOIN_KINDS = ("residual", "pyramid", "parallel")
_GIVES = {1: "one number a sample", 2: "a vector a sample", 3: "a table a sample", 4: "maps"}


class _Join(NamedTuple):
    """An addition of two activations that come from one tensor.

    Attributes:
        number: of the addition.
        members: numbers of the operators on both ways, the addition included, in order.
        short: members on the way with fewer layers.
    """

    number: int
    kind: str
    members: tuple[int, ...]
    short: tuple[int, ...]


class _Token(NamedTuple):
    """A piece of the sequence: what it looks like, and the operators that it stands for."""

    signature: tuple[str, ...]
    members: tuple[int, ...]
    residual: bool = False


def describe(graph: Graph, operators: Sequence[Operator]) -> Structure:
    """Describe the structure of a graph.

    Args:
        operators: the table of them, in the order of the graph's nodes.
    """

    def costs(members: Collection[int]) -> dict[str, int]:
        return {
            "operators": len(members),
            "layer_count": sum(graph.nodes[number].is_layer for number in members),
            "parameters": sum(operators[number].parameters for number in members),
            "macs": sum(operators[number].macs for number in members),
        }

    def names(numbers: Collection[int]) -> list[str]:
        return [graph.nodes[number].name for number in numbers]

    parts = _Parts(graph)
    heads = parts.heads()
    backbone = sorted({node.number for node in graph.nodes}.difference(*(members for _, members in heads)))
    return Structure(
        kind=parts.kind(),
        backbone=Backbone(**costs(backbone), stages=_stages(graph, backbone, operators)),
        blocks=[
            Blocks(
                **costs(members),
                layers=layers,
                count=count,
                residual=residual,
                first=graph.nodes[members[0]].name,
                last=graph.nodes[members[-1]].name,
            )
            for layers, count, residual, members in parts.groups
        ],
        **{f"{kind}_joins": names([each.number for each in parts.joins if each.kind == kind]) for kind in _JOIN_KINDS},
        gates=names(parts.gates),
        concatenations=sum(map(_concatenates, graph.nodes)),
        attentions=names(parts.attentions),
        heads=[
            Head(
                **costs(members),
                output=output,
                gives=_gives(graph.tensors.get(output)),
                types=[graph.nodes[number].type for number in members],
            )
            for output, members in heads
        ],
    )


class _Parts:
    """The parts of a graph, by the numbers of their operators."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        # Of each operator a set of bits, those that it depends on, itself included; and the inputs that it depends on.
        self._before: list[int] = []
        self._sources: list[frozenset[str]] = []
        for node in graph.nodes:
            ahead = graph.producers_before(node)
            self._before.append(reduce(or_, (self._before[number] for number in ahead), 1 << node.number))
            given = frozenset(node.reads).intersection(graph.feeds)
            self._sources.append(given.union(*(self._sources[number] for number in ahead)))

    @cached_property
    def attentions(self) -> dict[int, int]:
        """Map the softmax of each attention to the product behind it; a fused one stands for both."""
        found = {}
        for node in self._graph.nodes:
            if node.type in _FUSED_ATTENTION:
                found[node.number] = node.number
            elif node.type == "softmax":
                before = self._nearest_product(node, self._graph.producers_before)
                after = self._nearest_product(node, lambda each: self._graph.consumers.get(each.name, []))
                if before is not None and after is not None:
                    found[node.number] = after
        return found

    def _nearest_product(self, start: Node, neighbours: Callable[[Node], Collection[int]]) -> int | None:
        """Return a product of two activations that is reached without crossing a layer."""
        seen: set[int] = set()
        waiting = [*neighbours(start)]
        while waiting:
            number = waiting.pop()
            node = self._graph.nodes[number]
            if node.is_product:
                return number
            if number not in seen and not node.is_layer:
                seen.add(number)
                waiting += neighbours(node)
        return None

    def kind(self) -> str:
        nodes = self._graph.nodes
        kinds = ["transformer"] if self.attentions else []
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
        first = not any(self._graph.nodes[n].is_layer for n in _numbers(self._before[node.number]) if n != node.number)
        return first and bool(shape) and tuple(node.attribute("strides", [])) == shape and min(shape) > 1

    def _kernel(self, node: Node) -> tuple[int, ...]:
        return self._graph.weights[node.weights[0]][2:] if node.weights else ()

    @cached_property
    def joins(self) -> list[_Join]:
        return [join for node in self._graph.nodes if (join := self._join(node)) is not None]

    def _join(self, node: Node) -> _Join | None:
        if node.type not in ("elementwise_add", "sum") or len(node.reads) != 2 or node.weights:
            return None
        shapes = [self._graph.tensors[name].shape for name in node.reads if name in self._graph.tensors]
        paths = self._paths(node) if len(shapes) == 2 and shapes[0] == shapes[1] else None
        if paths is None:
            return None
        (short, fewer), (long, more) = sorted(paths, key=lambda path: path[1])
        members = tuple(sorted({*short, *long, node.number}))
        if any(self._upsamples(number) for number in members):
            kind = "pyramid"
        elif more == 0:
            return None
        else:
            kind = "residual" if fewer == 0 or (fewer == 1 and more > 1) else "parallel"
        return _Join(node.number, kind, members, short)

    def _paths(self, node: Node) -> list[tuple[tuple[int, ...], int]] | None:
        """Return the ways to both tensors that a node reads from the last tensor that they come from, each with the
        layers and attentions on the longest of it; None where they share nothing."""
        producers = [self._graph.producers.get(name, -1) for name in node.reads]
        before = [self._before[number] if number >= 0 else 0 for number in producers]
        start = (before[0] & before[1]).bit_length() - 1  # -1: an input
        inputs = [self._sources[n] if n >= 0 else {name} for name, n in zip(node.reads, producers)]
        if start < 0 and not inputs[0] & inputs[1] & set(self._graph.feeds):
            return None
        ways = [self._way(start, producer) for producer in producers]
        return [(way, self._depth(start, producer, way)) for producer, way in zip(producers, ways)]

    def _way(self, start: int, end: int) -> tuple[int, ...]:
        """Return the operators on the ways from a tensor to another, without the one that makes the first."""
        if end < 0 or end == start:
            return ()
        later = self._before[end] >> (start + 1) << (start + 1)
        return tuple(n for n in _numbers(later) if start < 0 or self._before[n] >> start & 1)

    def _depth(self, start: int, end: int, way: Collection[int]) -> int:
        """Count the layers and attentions on the longest way."""
        deepest: dict[int, int] = {start: 0}
        for number in way:
            node = self._graph.nodes[number]
            counts = node.is_layer or node.type in (*_RECURRENT, *_FUSED_ATTENTION)
            before = max((deepest.get(n, 0) for n in self._graph.producers_before(node)), default=0)
            deepest[number] = before + int(counts)
        return deepest.get(end, 0)

    def _upsamples(self, number: int) -> bool:
        node = self._graph.nodes[number]
        strides = node.attribute("strides", [1])
        return node.type in _UPSAMPLING or (node.type in TRANSPOSED_CONVOLUTIONS and max(strides) > 1)

    @cached_property
    def gates(self) -> list[int]:
        """List the products of two activations, one of which comes from the other through a layer."""
        products = [node for node in self._graph.nodes if node.type == "elementwise_mul" and len(node.reads) == 2]
        found = []
        for node, paths in ((node, self._paths(node)) for node in products):
            depths = [depth for _, depth in paths or ()]
            if paths and any(way == () for way, _ in paths) and min(depths) == 0 < max(depths):
                found.append(node.number)
        return found

    @cached_property
    def groups(self) -> list[tuple[list[str], int, bool, list[int]]]:
        """List the blocks, those that repeat one another as one, and single residual blocks: what one holds, how many
        there are, whether they are residual, the operators of all."""
        tokens = self._tokens()
        found, place = [], 0
        while place < len(tokens):
            period, count = _repeats(tokens, place)
            stretch = tokens[place : place + period * count]
            residual = any(token.residual for token in stretch)
            if count > 1 or residual:
                layers = [word for token in stretch[:period] for word in token.signature]
                found.append((layers, count, residual, sorted(n for token in stretch for n in token.members)))
            place += len(stretch)
        return found

    def _tokens(self) -> list[_Token]:
        """Return the sequence: blocks, and what stands outside of them, each where its last operator stands."""
        residual = {join.number: join for join in self.joins if join.kind == "residual"}
        blocks = {n: join for n, join in residual.items() if residual.keys() & join.members == {n}}
        inside = {number for block in blocks.values() for number in block.members}
        last = {self._last_layer(name) for name in self._graph.fetches}
        tokens = []
        for node in self._graph.nodes:
            if (block := blocks.get(node.number)) is not None:
                projection = {*block.short, block.number}
                words = [self._word(self._graph.nodes[number]) for number in block.members if number not in projection]
                tokens.append(_Token((*filter(None, words), "residual join"), block.members, residual=True))
            elif (word := self._word(node)) and node.number not in last and node.number not in inside:
                tokens.append(_Token((word,), (node.number,)))
        return tokens

    def _word(self, node: Node) -> str:
        """Name an operator as a part of a block; nothing for those that blocks do not differ by."""
        if node.number in self._marks:
            return self._marks[node.number]
        if node.is_layer and node.is_convolution:
            sides = "x".join(map(str, self._kernel(node)))
            groups, weight = int(node.attribute("groups", 1)), self._graph.weights[node.weights[0]]
            apart = "" if groups == 1 else "depthwise " if weight[1] == 1 else "grouped "
            transposed = "transposed " if node.type in TRANSPOSED_CONVOLUTIONS else ""
            return f"{transposed}{apart}convolution {sides}"
        if node.is_layer:
            return "matrix product"
        if _concatenates(node):
            return "concatenation"
        return "recurrence" if node.type in _RECURRENT else ""

    @cached_property
    def _marks(self) -> dict[int, str]:
        """Name attentions, gates and joins."""
        words = {join.number: f"{join.kind} join" for join in self.joins}
        return words | dict.fromkeys(self.gates, "gate") | dict.fromkeys(self.attentions, "attention")

    def _last_layer(self, output: str) -> int:
        """Return the number of the last layer that an output depends on; -1 where there is none."""
        return max((n for n in _numbers(self._before_output(output)) if self._graph.nodes[n].is_layer), default=-1)

    def _before_output(self, output: str) -> int:
        producer = self._graph.producers.get(output)
        return 0 if producer is None else self._before[producer]

    def heads(self) -> list[tuple[str, list[int]]]:
        """List for each output in order its name, and the operators of its head."""
        needs = [self._before_output(name) for name in self._graph.fetches]
        marks = [number for *_, members in self.groups for number in members]
        marks += [*(join.number for join in self.joins), *self.attentions.values(), *self.gates]
        marks += [node.number for node in self._graph.nodes if _concatenates(node)]
        ahead = reduce(or_, (self._before[number] for number in marks), 0)  # of the marks, themselves included
        heads = []
        for place, (name, needed) in enumerate(zip(self._graph.fetches, needs)):
            shared = reduce(or_, needs[:place] + needs[place + 1 :], 0)
            own = [n for n in _numbers(needed & ~shared) if self._sources[n]]
            last = self._last_layer(name)
            if last >= 0:
                own = [n for n in own if (marks and not ahead >> n & 1) or self._before[n] >> last & 1]
            heads.append((name, own))
        return heads


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


def _gives(tensor: Tensor | None) -> str:
    if tensor is None:
        return "nothing for this sample"
    return _GIVES.get(len(tensor.shape), f"a tensor of rank {len(tensor.shape)}")


def _stages(graph: Graph, backbone: Sequence[int], operators: Sequence[Operator]) -> list[BackboneStage]:
    """Group the backbone's layers by the size of their output, height and width or length, in order of appearance."""
    sizes: dict[tuple[int, ...], list[tuple[int, int]]] = defaultdict(list)
    for number in backbone:
        node, operator = graph.nodes[number], operators[number]
        if not node.is_layer or len(operator.shape) < 2:
            continue
        channels_first = node.is_convolution and node.attribute("data_format", "NCHW") in ("NCHW", "NCDHW", "AnyLayout")
        places = tuple(operator.shape[2:] if channels_first else operator.shape[1:-1])
        if not node.is_convolution or set(places) != {1}:  # of a gate, between two stages
            sizes[places].append((operator.shape[1 if channels_first else -1], operator.macs))
    return [
        BackboneStage(size=list(places), layers=len(layers), channels=max(layers)[0], macs=sum(m for _, m in layers))
        for places, layers in sizes.items()
    ]
