"""A mean over all positions of a feature map, which exporters write in two ways, as one: a global pool.

Engines have integer kernels for a pool, and blocked ones that need no other layout, but few for a mean over any axes.
"""

from typing import Any

from act.program.model import InferenceModel

_POSITIONS = [2, 3]
_GLOBAL = {
    "pooling_type": "avg",
    "ksize": [1, 1],
    "strides": [1, 1],
    "paddings": [0, 0],
    "adaptive": True,
    "global_pooling": False,
}


def pool_means(model: InferenceModel) -> int:
    """Make a global pool of each mean over height and width, and return how many there were."""
    found = [op for op in model.ops if _is_over_positions(model, op)]
    for op in found:
        _pool(model, op)
    return len(found)


def _is_over_positions(model: InferenceModel, op: Any) -> bool:
    if op.type != "reduce_mean" or op.attr("reduce_all"):
        return False
    source, target = op.input("X")[0], op.output("Out")[0]
    rank = len(model.shape(source))
    known = rank == 4 and not model.is_weight(source) and model.dtype(source) == model.dtype(target) == "float32"
    return known and sorted(axis % rank for axis in op.attr("dim")) == _POSITIONS


def _pool(model: InferenceModel, op: Any) -> None:
    source, target = op.input("X")[0], op.output("Out")[0]
    pooled = target
    if not op.attr("keep_dim"):
        batch, channels, *_ = model.shape(source)
        pooled = model.add_tensor(f"{target}.pooled", source, [batch, channels, 1, 1])
        outputs = {"Out": [target], "XShape": [model.add_tensor(f"{target}.shape", source)]}
        model.insert("squeeze2", {"X": [pooled]}, outputs, {"axes": _POSITIONS}, after=op)
    model.insert("pool2d", {"X": [source]}, {"Out": [pooled]}, _GLOBAL, before=op)
    model.remove(op)
