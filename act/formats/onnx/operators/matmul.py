"""Products of matrices: the layers that are quantized and pruned, so their weights stay weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from act.formats.onnx.dimension import Dimension, Number
from act.formats.onnx.lengths import product
from act.formats.onnx.node import Node, Refused, Variable, dtype_of
from act.formats.onnx.operators.dtypes import FLOATS, computed
from act.formats.onnx.operators.registry import operator
from act.formats.onnx.operators.shape import END, reshaped, strided, transposed
from act.program.paddle_setup import paddle
from act.samples.dataset import Array


def multiplied(node: Node, first: Variable, second: Variable) -> Variable:
    """Multiply matrices; whole numbers, which Paddle's kernel lacks on the CPU, as float64."""
    return computed(node, paddle.matmul, [first, second], FLOATS if dtype_of(first) in FLOATS else {"float64"})


@operator("MatMul")
def matmul(node: Node) -> Variable:
    return multiplied(node, node.tensor(0), node.tensor(1))


@operator("Gemm")
def gemm(node: Node) -> Variable:
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    swaps = [bool(node.attribute("transA", 0)), bool(node.attribute("transB", 0))]
    constant = [node.is_constant(0), node.is_constant(1)]
    scaled = next((index for index in (1, 0) if constant[index]), None)
    operands = []
    for index in (0, 1):
        if not constant[index]:
            operands.append(node.tensor(index))
            continue
        value = node.value(index).T if swaps[index] else node.value(index)
        factor = alpha if index == scaled else 1.0
        if swaps[index] or factor != 1.0:
            value = np.ascontiguousarray(value * factor if factor != 1.0 else value).astype(value.dtype)
            operands.append(node.graph.weight(value, node.name(index)))
        else:
            operands.append(node.tensor(index))
        swaps[index] = False
    whole = dtype_of(operands[0]) not in FLOATS
    result = computed(node, lambda a, b: paddle.matmul(a, b, *swaps), operands, {"float64"} if whole else FLOATS)
    if scaled is None and alpha != 1.0:
        result = paddle.scale(result, alpha)
    if not node.has(2) or beta == 0.0:
        return result
    if not node.is_constant(2):
        bias = node.tensor(2) if beta == 1.0 else paddle.scale(node.tensor(2), beta)
        return paddle.add(result, bias)
    value = node.value(2) if beta == 1.0 else (node.value(2) * beta).astype(node.value(2).dtype)
    width = node.graph.shape(result)[-1]
    if (value.ndim < 2 or value.shape[0] == 1) and not isinstance(width, Dimension):
        # The bias of a layer: one number for each of its outputs.
        value = np.ascontiguousarray(np.broadcast_to(value.reshape(-1), [int(width)]))
    bias = node.tensor(2) if value is node.value(2) else node.graph.weight(value, node.name(2))
    return paddle.add(result, bias)


# Einsum.


@dataclass
class _Term:
    """An operand of an einsum: a variable, or a constant, and the label and length of each axis."""

    value: Variable | Array
    labels: list[str]
    lengths: list[Number]
    name: str = ""

    @property
    def is_constant(self) -> bool:
        return isinstance(self.value, np.ndarray)


@operator("Einsum")
def einsum(node: Node) -> Variable:
    sources, target = _equation(node)
    terms = [
        _Term(
            node.value(index) if node.is_constant(index) else node.tensor(index),
            labels,
            node.shape(index),
            node.name(index),
        )
        for index, labels in enumerate(sources)
    ]
    for index, term in enumerate(terms):
        terms[index] = _without_diagonals(node, term)
    while len(terms) > 1:
        first, second = terms.pop(0), terms.pop(0)
        needed = set(target).union(*(term.labels for term in terms))
        terms.insert(0, _contracted(node, first, second, needed))
    last = _summed(node, terms[0], set(target))
    return _arranged(node, last, target).value


def _equation(node: Node) -> tuple[list[list[str]], list[str]]:
    """Return the labels of each operand's axes and of the result's; axes under `...` have numbers."""
    text = node.attribute("equation").replace(" ", "")
    left, arrow, right = text.partition("->")
    operands = left.split(",")
    if len(operands) != len(node):
        raise Refused(f"its equation `{text}` names {len(operands)} operands, not {len(node)}; export the model again")
    ranks = [node.rank(index) - len(each.replace("...", "")) for index, each in enumerate(operands)]
    most = max((rank for rank, each in zip(ranks, operands) if "..." in each), default=0)
    sources = [
        _labels(each, [str(most - rank + index) for index in range(rank)]) for each, rank in zip(operands, ranks)
    ]
    shared = [str(index) for index in range(most)]
    if arrow:
        return sources, _labels(right, shared)
    letters = [each for labels in sources for each in labels if not each.isdigit()]
    return sources, [*shared, *sorted(each for each in set(letters) if letters.count(each) == 1)]


def _labels(text: str, inner: Sequence[str]) -> list[str]:
    before, dots, behind = text.partition("...")
    return [*before, *(inner if dots else ()), *behind]


def _without_diagonals(node: Node, term: _Term) -> _Term:
    """Return a term in which each label occurs once."""
    repeated = next((each for each in term.labels if term.labels.count(each) > 1), None)
    if repeated is None:
        return term
    first = term.labels.index(repeated)
    second = term.labels.index(repeated, first + 1)
    length = term.lengths[first]
    if isinstance(length, Dimension) or term.lengths[second] != length:
        raise Refused("it takes the diagonal of axes of unknown length; export the model with fixed ones")
    rest = [axis for axis in range(len(term.labels)) if axis not in (first, second)]
    term = _moved(node, term, [*rest, first, second])
    lengths = term.lengths[:-2]
    # The elements of the diagonal lie at even steps in the flat matrix.
    value = _with_lengths(node, term, [*lengths, length * length]).value
    step = length + 1
    value = value[..., ::step] if term.is_constant else strided(node, value, [len(lengths)], [0], [END], [step])
    return _without_diagonals(node, _Term(value, term.labels[:-1], [*lengths, length], term.name))


def _moved(node: Node, term: _Term, order: Sequence[int]) -> _Term:
    value = np.transpose(term.value, order) if term.is_constant else transposed(node, term.value, order)
    return _Term(value, [term.labels[axis] for axis in order], [term.lengths[axis] for axis in order], term.name)


def _with_lengths(node: Node, term: _Term, lengths: list[Number]) -> _Term:
    if lengths == term.lengths:
        return term
    if term.is_constant:
        value = term.value.reshape([int(each) for each in lengths])
    else:
        value = reshaped(node, term.value, term.lengths, lengths)
    return _Term(value, term.labels, lengths, term.name)


def _arranged(node: Node, term: _Term, labels: Sequence[str]) -> _Term:
    return _moved(node, term, [term.labels.index(each) for each in labels])


def _summed(node: Node, term: _Term, needed: set[str]) -> _Term:
    """Sum over the axes that nobody needs."""
    axes = [axis for axis, each in enumerate(term.labels) if each not in needed]
    if not axes:
        return term
    if term.is_constant:
        value = np.asarray(term.value.sum(axis=tuple(axes), dtype=term.value.dtype))
    else:
        # What loses all its axes does so by a reshape: the exporter to ONNX leaves one axis to reductions.
        bare = len(axes) == len(term.labels)
        numbers = FLOATS | {"int32", "int64"}
        value = computed(node, lambda each: paddle.sum(each, axes, keepdim=bare), [term.value], numbers)
        value = paddle.reshape(value, []) if bare else value
    kept = [axis for axis in range(len(term.labels)) if axis not in axes]
    return _Term(value, [term.labels[axis] for axis in kept], [term.lengths[axis] for axis in kept], term.name)


def _contracted(node: Node, first: _Term, second: _Term, needed: set[str]) -> _Term:
    """Return the product of two terms, summed over what they share and nobody needs, as one product of matrices."""
    first = _summed(node, first, needed | set(second.labels))
    second = _summed(node, second, needed | set(first.labels))
    both = [each for each in first.labels if each in second.labels]
    batch, inner = [each for each in both if each in needed], [each for each in both if each not in needed]
    rows = [each for each in first.labels if each not in both]
    columns = [each for each in second.labels if each not in both]
    length = dict(zip(second.labels, second.lengths))
    for label, each in zip(first.labels, first.lengths):
        other = length.get(label, each)
        length[label] = other if each == 1 or isinstance(each, Dimension) else each
    depth = product([length[each] for each in inner])
    left = _arranged(node, first, [*batch, *rows, *inner])
    right = _arranged(node, second, [*batch, *inner, *columns])
    # Without shared axes the first operand keeps its rows apart: Paddle multiplies each with the same weight.
    apart = not batch and len(rows) > 0
    height = [length[each] for each in rows] if apart else [product([length[each] for each in rows])]
    width = product([length[each] for each in columns])
    count = len(batch)
    left = _with_lengths(node, left, [*left.lengths[:count], *height, depth])
    right = _with_lengths(node, right, [*right.lengths[:count], depth, width])
    operands = [
        node.graph.weight(np.ascontiguousarray(each.value), each.name) if each.is_constant else each.value
        for each in (left, right)
    ]
    value = multiplied(node, *operands)
    outer = [length[each] for each in batch]
    labels = [*batch, *rows, *columns]
    result = _Term(value, labels, [*outer, *height, width])
    return _with_lengths(node, result, [length[each] for each in labels])
