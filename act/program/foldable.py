"""Operators that a model could do without, left over when `prepare` has folded what it can with certainty.

- `dead`: no output of the model depends on it. `unused weight`: no operator reads it.
- `identity`: dropout at inference, a scale by 1, a cast to the same type, a reshape or transpose to the same shape or
  order, a sum with zeros, a product with ones, a concatenation of one tensor, a pool over one position, `assign`.
- `cancels`: two transposes that undo each other or could be one; a reshape of a reshape, of which only the last counts.
- `batch norm`: folds into the layer before it, which only it reads (Jacob et al., 2018).
- `scale`: a multiplication by one number right behind a layer and its bias, which only it reads: folds into both.
- `constant`: depends on no input of the model. `repeated`: computes once more what another has computed.
"""

import math
from collections import Counter

import numpy as np

from act.program.graph import Graph, Node
from act.program.passes.normalise import IDENTITIES, is_identity
from act.results.analyze import Foldable

_RANDOM = ("uniform_random", "gaussian_random", "randint", "randperm", "bernoulli", "multinomial", "dropout")
_EFFECTS = ("while", "conditional_block", "select_input", "select_output", "write_to_array", "print", "py_func")
_CONSTANT = ("fill_constant", "assign_value", "fill_any_like", "fill_zeros_like")
_RESHAPES = ("reshape2", "flatten_contiguous_range", "flatten2", "squeeze2", "unsqueeze2")
_NO_ATTRIBUTES = ("op_callstack", "op_namescope", "op_device", "op_role", "op_role_var", "with_quant_attr")
_SUMS, _PRODUCTS = ("elementwise_add", "elementwise_sub"), ("elementwise_mul", "elementwise_div")


def find(graph: Graph) -> list[Foldable]:
    """Return what could go, in the program's order, at most one for each operator; unused weights last."""
    dead, constant, repeated = _dead(graph), constants(graph), _repeated(graph)
    found = []
    for node in graph.nodes:
        what: tuple[str, Node, str] | None = None
        if node.number in dead:
            what = "dead", node, "no output of the model depends on it"
        elif node.number in constant:
            # Of a chain of constant operators the last says it all.
            if node.type not in _CONSTANT and not _only_constants_read(graph, node, constant):
                count = len(_chain(graph, node))
                more = f", like {count - 1} before it" if count > 1 else ""
                what = "constant", node, f"depends on no input of the model{more}"
        elif node.number in repeated:
            what = "repeated", node, f"the same as `{repeated[node.number]}`"
        elif (changes_nothing := _changes_nothing(graph, node)) is not None:
            what = "identity", node, changes_nothing
        else:
            what = _cancels(graph, node) or _folds_into_layer(graph, node)
        if what is not None:
            kind, which, why = what
            found.append(Foldable(kind=kind, name=which.name, type=which.type, why=why))
    read = {name for node in graph.nodes for name in node.weights} | set(graph.fetches)
    read |= {name for block in graph.model.program.blocks for op in block.ops for name in op.input_arg_names}
    unused = sorted(set(graph.weights) - read)
    return found + [Foldable(kind="unused weight", name=n, type="weight", why="no operator reads it") for n in unused]


def _dead(graph: Graph) -> set[int]:
    """Return the operators that no output depends on, not even for a size."""
    needed: set[int] = set()
    waiting = [graph.producers[name] for name in graph.fetches if name in graph.producers]
    waiting += [node.number for node in graph.nodes if node.type in _EFFECTS]
    producers: dict[str, list[int]] = {}
    for node in graph.nodes:
        for name in node.makes:
            producers.setdefault(name, []).append(node.number)
    while waiting:
        number = waiting.pop()
        if number not in needed:
            needed.add(number)
            node = graph.nodes[number]
            waiting += [producer for name in (*node.reads, *node.sizes) for producer in producers.get(name, [])]
    return {node.number for node in graph.nodes} - needed


def constants(graph: Graph) -> set[int]:
    """Return the operators that depend on no input of the model."""
    found: set[int] = set()
    for node in graph.nodes:
        before = [graph.producers.get(name) for name in (*node.reads, *node.sizes)]
        if node.type not in (*_RANDOM, *_EFFECTS) and all(number in found for number in before):
            found.add(node.number)
    return found


def _only_constants_read(graph: Graph, node: Node, constant: set[int]) -> bool:
    consumers = {number for name in node.makes for number in graph.consumers.get(name, ())}
    return bool(consumers) and consumers <= constant and not {*node.makes} & {*graph.fetches}


def _chain(graph: Graph, node: Node) -> set[int]:
    """Return a constant operator and those that it depends on, those that only write a constant left out."""
    found, waiting = set(), [node.number]
    while waiting:
        current = graph.nodes[waiting.pop()]
        if current.type not in _CONSTANT and current.number not in found:
            found.add(current.number)
            waiting += [graph.producers[name] for name in (*current.reads, *current.sizes) if name in graph.producers]
    return found


def _repeated(graph: Graph) -> dict[int, str]:
    """Return the operators that do what one before them did, with the name of that one."""
    seen: dict[str, str] = {}
    found: dict[int, str] = {}
    written = Counter(name for node in graph.nodes for name in node.makes)
    for node in graph.nodes:
        names = (*node.reads, *node.sizes)
        if node.type in (*_RANDOM, *_EFFECTS, *_CONSTANT) or not names or any(written[n] > 1 for n in names):
            continue
        inputs = [(slot, node.op.input(slot)) for slot in sorted(node.op.input_names)]
        attributes = [(name, node.op.attr(name)) for name in sorted(node.op.attr_names) if name not in _NO_ATTRIBUTES]
        first = seen.setdefault(repr((node.type, inputs, attributes)), node.name)
        if first != node.name:
            found[node.number] = first
    return found


def _changes_nothing(graph: Graph, node: Node) -> str | None:
    """Tell why an operator gives what it is given; None where it does not, or not for certain."""
    if node.type in IDENTITIES:
        return IDENTITIES[node.type] if is_identity(node.op) else None
    if node.type == "cast":
        return "to the type that it reads" if node.attribute("in_dtype") == node.attribute("out_dtype") else None
    if node.type == "transpose2":
        order = list(node.attribute("axis"))
        return "keeps the order of the axes" if order == sorted(order) else None
    if node.type == "concat":
        return "of one tensor" if len(node.reads) == 1 and not node.weights else None
    if node.type == "pool2d":
        whole = node.attribute("global_pooling") or node.attribute("adaptive")
        ones = {*node.attribute("ksize", []), *node.attribute("strides", [])} == {1}
        return "over one position" if ones and not whole and not any(node.attribute("paddings", [])) else None
    if node.type in _RESHAPES and node.reads:
        declared = graph.model.shape(node.reads[0])  # for all inputs, not for one sample only
        same = declared == graph.model.shape(node.name) and declared.count(-1) <= 1
        return "to the shape that it reads" if same else None
    if node.type in (*_SUMS, *_PRODUCTS) and len(node.weights) == 1 and len(node.reads) == 1:
        before, after = graph.tensors.get(node.reads[0]), graph.tensors.get(node.name)
        widens = before is None or after is None or before.shape != after.shape
        number, words = (0, "adds zeros") if node.type in _SUMS else (1, "multiplies by ones")
        if not widens and node.op.input("Y")[0] == node.weights[0]:
            return words if np.all(graph.model.weight(node.weights[0]) == number) else None
    return None


def _cancels(graph: Graph, node: Node) -> tuple[str, Node, str] | None:
    producer = graph.producer(node.reads[0]) if node.reads else None
    if producer is None:
        return None
    alone = _only_read(graph, producer)
    if node.type == producer.type == "transpose2":
        first, second = (list(each.attribute("axis")) for each in (producer, node))
        if [first[axis] for axis in second] == sorted(first):
            return "cancels", node, f"undoes `{producer.name}`"
        if alone:
            return "cancels", node, f"could be one with `{producer.name}`"
    if node.type in _RESHAPES and producer.type in _RESHAPES and alone:
        return "cancels", producer, f"`{node.name}` gives it another shape at once"
    return None


def _folds_into_layer(graph: Graph, node: Node) -> tuple[str, Node, str] | None:
    """Tell into which layer, whose output only this operator reads, perhaps through the addition of a bias."""
    by_number = node.type == "scale" and len(node.reads) == 1 and node.attribute("bias") == 0
    by_weight = node.type in _PRODUCTS and len(node.weights) == 1 and math.prod(graph.weights[node.weights[0]]) == 1
    if not (by_number or by_weight or node.type == "batch_norm"):
        return None
    layer = _sole_producer(graph, node)
    if layer is not None and layer.type == "elementwise_add" and layer.weights:
        layer = _sole_producer(graph, layer)
    if layer is None or not layer.is_layer or any(len(graph.consumers_of(name)) > 1 for name in layer.weights):
        return None
    if node.type == "batch_norm":
        return "batch norm", node, f"folds into `{layer.name}`"
    return "scale", node, f"a multiplication by one number, folds into `{layer.name}`"


def _sole_producer(graph: Graph, node: Node) -> Node | None:
    """Return the operator that makes what another reads, where only that one reads it."""
    producer = graph.producer(node.reads[0]) if node.reads else None
    return producer if producer is not None and _only_read(graph, producer) else None


def _only_read(graph: Graph, node: Node) -> bool:
    return len(graph.consumers_of(node.name)) == 1 and node.name not in graph.fetches
