"""Attention and its rotary embedding, as the operators that exporters write for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from act.formats.onnx.dimension import Dimension, Number
from act.formats.onnx.node import Node, Refused, Variable, dtype_of
from act.formats.onnx.operators.dtypes import FLOATS
from act.formats.onnx.operators.registry import operator
from act.formats.onnx.operators.shape import END, counted, joined, reshaped, sliced, transposed
from act.program.paddle_setup import paddle

F = paddle.nn.functional


@dataclass
class _Heads:
    """Vectors by image, head and position, with the lengths of these four axes."""

    value: Variable
    shape: list[Number]


@operator("Attention", since=23)
def attention(node: Node) -> tuple[Variable | None, ...]:
    query = _heads(node, 0, node.attribute("q_num_heads"))
    key = _with_past(node, _heads(node, 1, node.attribute("kv_num_heads")), 4)
    value = _with_past(node, _heads(node, 2, node.attribute("kv_num_heads")), 5)
    present = key.value, value.value
    if query.shape[1] != key.shape[1]:
        times = int(query.shape[1]) // int(key.shape[1])
        key, value = _repeated(node, key, times), _repeated(node, value, times)
    scale = node.attribute("scale")
    if scale is None:
        if isinstance(query.shape[3], Dimension):
            raise Refused("the size of its heads is not known; export the model with a fixed one")
        scale = 1 / float(np.sqrt(query.shape[3]))
    scores = paddle.matmul(paddle.scale(query.value, scale), key.value, transpose_y=True)
    steps = [scores]
    for mask in _masks(node, query, key):
        scores = paddle.add(scores, mask)
    steps.append(scores)
    if cap := node.attribute("softcap", 0.0):
        scores = paddle.scale(paddle.tanh(paddle.scale(scores, 1 / cap)), cap)
    steps.append(scores)
    weights = F.softmax(scores, axis=-1)
    steps.append(weights)
    result = paddle.matmul(weights, value.value)
    if node.rank(0) == 3:
        batch, heads, length, _ = query.shape
        result = transposed(node, result, [0, 2, 1, 3])
        before = [batch, length, heads, value.shape[3]]
        result = reshaped(node, result, before, [batch, length, heads * value.shape[3]])
    return result, *present, steps[node.attribute("qk_matmul_output_mode", 0)]


def _heads(node: Node, index: int, count: int | None) -> _Heads:
    variable, shape = node.tensor(index), node.shape(index)
    if len(shape) == 4:
        return _Heads(variable, shape)
    if not count or isinstance(shape[2], Dimension):
        raise Refused("its number of heads or their size is not known; export the model again")
    batch, length, width = shape
    cut = [batch, length, count, width // count]
    return _Heads(
        transposed(node, reshaped(node, variable, shape, cut), [0, 2, 1, 3]), [batch, count, length, width // count]
    )


def _with_past(node: Node, heads: _Heads, index: int) -> _Heads:
    if not node.has(index):
        return heads
    past = node.shape(index)[2]
    batch, count, length, width = heads.shape
    return _Heads(joined(node, [node.tensor(index), heads.value], 2), [batch, count, past + length, width])


def _repeated(node: Node, heads: _Heads, times: int) -> _Heads:
    """Repeat each head of keys or values for the heads of queries that share it."""
    batch, count, length, width = heads.shape
    value = paddle.tile(paddle.unsqueeze(heads.value, [2]), [1, 1, times, 1, 1])
    after = [batch, count * times, length, width]
    return _Heads(reshaped(node, value, [batch, count, times, length, width], after), after)


def _masks(node: Node, query: _Heads, key: _Heads) -> list[Variable]:
    """Return what is added to the scores: 0 where a position is seen, else minus infinity, or what a mask says."""
    dtype, rows, columns = dtype_of(query.value), query.shape[2], key.shape[2]
    masks = []
    if node.has(3):
        mask = node.tensor(3) if dtype_of(node.tensor(3)) in FLOATS else _hidden(node, node.tensor(3), dtype)
        width = node.shape(3)[-1]
        if width != columns and not isinstance(width, Dimension) and not isinstance(columns, Dimension):
            amounts = [0] * (2 * node.rank(3))
            amounts[-1] = columns - width
            mask = F.pad(mask, amounts, value=float("-inf"))
        masks.append(mask)
    if node.attribute("is_causal", 0):
        past = node.shape(4)[2] if node.has(4) else 0
        masks.append(_causal(node, rows, columns, past, dtype))
    if node.has(6):
        ends = paddle.unsqueeze(paddle.cast(node.tensor(6), "int64"), [1, 2, 3])
        masks.append(_hidden(node, paddle.less_than(counted(node, columns), ends), dtype))
    return masks


def _causal(node: Node, rows: Number, columns: Number, past: Number, dtype: str) -> Variable:
    if not any(isinstance(each, Dimension) for each in (rows, columns, past)):
        allowed = np.arange(columns)[None, :] <= np.arange(rows)[:, None] + past
        return node.graph.weight(np.where(allowed, 0, -np.inf).astype(dtype))
    first = paddle.unsqueeze(counted(node, rows), [1])
    if isinstance(past, Dimension) or past:
        first = paddle.add(first, node.graph.length(past, "int64"))
    return _hidden(node, paddle.less_equal(counted(node, columns), first), dtype)


def _hidden(node: Node, seen: Variable, dtype: str) -> Variable:
    """Return 0 where a position is seen, else minus infinity."""
    return paddle.log(paddle.cast(seen, dtype))


@operator("RotaryEmbedding", since=23)
def rotary_embedding(node: Node) -> Variable:
    variable, shape = node.tensor(0), node.shape(0)
    count, interleaved = node.attribute("num_heads", 0), bool(node.attribute("interleaved", 0))
    before = shape
    if len(shape) == 3:
        if not count or isinstance(shape[2], Dimension):
            raise Refused("its number of heads or their size is not known; export the model again")
        before = [*shape[:2], count, shape[2] // count]
        variable = reshaped(node, variable, shape, before)
    turned = node.attribute("rotary_embedding_dim", 0) or before[3]
    if isinstance(turned, Dimension):
        raise Refused("the size of its heads is not known; export the model with a fixed one")
    heads = 2 if len(shape) == 3 else 1
    cosine, sine = (paddle.unsqueeze(_angles(node, index), [heads]) for index in (1, 2))
    rest = sliced(node, variable, [3], [turned], [END]) if turned != before[3] else None
    part = variable if rest is None else sliced(node, variable, [3], [0], [turned])
    half = int(turned) // 2
    lengths = [*before[:3], half, 2]
    if interleaved:
        pairs = reshaped(node, part, [*before[:3], turned], lengths)
        real, imaginary = (sliced(node, pairs, [4], [index], [index + 1], [4]) for index in (0, 1))
    else:
        real, imaginary = (sliced(node, part, [3], [index * half], [index * half + half]) for index in (0, 1))
    turns = [
        paddle.subtract(paddle.multiply(cosine, real), paddle.multiply(sine, imaginary)),
        paddle.add(paddle.multiply(sine, real), paddle.multiply(cosine, imaginary)),
    ]
    if interleaved:
        result = reshaped(node, paddle.stack(turns, axis=4), lengths, [*before[:3], turned])
    else:
        result = joined(node, turns, 3)
    if rest is not None:
        result = joined(node, [result, rest], 3)
    return reshaped(node, result, before, shape) if len(shape) == 3 else result


def _angles(node: Node, index: int) -> Variable:
    """Return cosines or sines by image and position."""
    table = node.tensor(index)
    if not node.has(3):
        return table
    return F.embedding(node.tensor(3), table)
