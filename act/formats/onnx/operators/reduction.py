"""Reductions along axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from act.formats.onnx.node import Node, Refused, Variable, axes_of, dtype_of
from act.formats.onnx.operators.dtypes import FLOATS, NUMBERS, computed
from act.formats.onnx.operators.registry import operator
from act.program.paddle_setup import paddle

_MOST_AXES_OF_LOGSUMEXP = 4

Reduce = Callable[..., Variable]


def _unchanged(x: Variable) -> Variable:
    return x


@dataclass(frozen=True)
class _Reduction:
    """A reduction with what is computed of each element before and after it."""

    reduce: Reduce
    before: Callable[[Variable], Variable] = _unchanged
    after: Callable[[Variable], Variable] = _unchanged
    dtypes: frozenset[str] = NUMBERS


def _sum(x: Variable, axes: Sequence[int], keepdim: bool) -> Variable:
    # Paddle would make int64 of a sum of int32.
    return paddle.sum(x, axes, dtype=dtype_of(x), keepdim=keepdim)


def _log_of_sum_of_exponentials(x: Variable, axes: Sequence[int], keepdim: bool) -> Variable:
    if len(x.shape) <= _MOST_AXES_OF_LOGSUMEXP:
        return paddle.logsumexp(x, axes, keepdim=keepdim)
    largest = paddle.max(x, axes, keepdim=True)
    logarithm = paddle.log(_sum(paddle.exp(paddle.subtract(x, largest)), axes, keepdim))
    return paddle.add(logarithm, largest if keepdim else paddle.max(x, axes))


_REDUCTIONS = {
    "ReduceSum": _Reduction(_sum),
    "ReduceMean": _Reduction(paddle.mean, dtypes=FLOATS),
    "ReduceMax": _Reduction(paddle.max),
    "ReduceMin": _Reduction(paddle.min),
    "ReduceProd": _Reduction(paddle.prod),
    "ReduceL1": _Reduction(_sum, before=paddle.abs),
    "ReduceL2": _Reduction(_sum, before=paddle.square, after=paddle.sqrt, dtypes=FLOATS),
    "ReduceLogSum": _Reduction(_sum, after=paddle.log, dtypes=FLOATS),
    "ReduceLogSumExp": _Reduction(_log_of_sum_of_exponentials, dtypes=FLOATS),
    "ReduceSumSquare": _Reduction(_sum, before=paddle.square),
}
_OF_FLAGS = {"ReduceMax": paddle.any, "ReduceMin": paddle.all}


@operator(*_REDUCTIONS)
def reduction(node: Node) -> Variable:
    x, axes, keeps = node.tensor(0), node.axes(1), bool(node.attribute("keepdims", 1))
    kind = _REDUCTIONS[node.type]
    if not axes and node.attribute("noop_with_empty_axes", 0):
        if kind.before is not _unchanged or kind.after is not _unchanged:
            raise Refused("it reduces along no axes, which ONNX and ONNX Runtime do differently; export it with axes")
        return x
    if node.rank(0) == 0:
        return computed(node, lambda each: kind.after(kind.before(each)), [x], kind.dtypes)
    axes = sorted(axes_of(axes or range(node.rank(0)), node.rank(0)))
    # What loses all its axes does so by a reshape: the exporter to ONNX leaves one axis to reductions.
    bare = not keeps and len(axes) == node.rank(0)
    if dtype_of(x) == "bool":
        result = _OF_FLAGS[node.type](x, axes, keepdim=keeps or bare)
    else:
        result = computed(node, _reduced(kind, axes, keeps or bare), [x], kind.dtypes)
    return paddle.reshape(result, []) if bare else result


def _reduced(kind: _Reduction, axes: Sequence[int], keepdim: bool) -> Callable[[Variable], Variable]:
    return lambda x: kind.after(kind.reduce(kind.before(x), axes, keepdim=keepdim))
