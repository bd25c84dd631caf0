"""Constants computed beforehand: a weight is stored in the shape and order of axes in which it is read."""

from __future__ import annotations

from typing import Any

from act.program.model import InferenceModel


def fold_reshapes(model: InferenceModel) -> int:
    """Store reshaped weights as weights, and return how many operators that took away.

    Paddle reshapes the bias of a convolution at every inference.
    """
    return sum(op.type == "reshape2" and _store_reshaped(model, op) for op in model.ops)


def fold_transposes(model: InferenceModel) -> int:
    """Store transposed weights as they are multiplied, and return how many there were.

    Paddle2ONNX would put a `Transpose` ahead of each product.
    """
    return sum(op.type == "matmul_v2" and op.attr("trans_y") and _store_transposed(model, op) for op in model.ops)


def _store_reshaped(model: InferenceModel, op: Any) -> bool:
    source, target = op.input("X")[0], op.output("Out")[0]
    asked_at_runtime = any(slot in op.input_names and op.input(slot) for slot in ("Shape", "ShapeTensor"))
    known = model.is_weight(source) and -1 not in model.shape(target)
    if asked_at_runtime or not known or target in model.fetch_names or len(model.producers(target)) > 1:
        return False
    model.remove(op)
    model.add_weight(target, model.weight(source).reshape(model.shape(target)))
    return True


def _store_transposed(model: InferenceModel, op: Any) -> bool:
    name = op.input("Y")[0]
    if not model.owns_weight(name) or name in model.fetch_names or len(model.shape(name)) != 2:
        return False
    model.set_weight(name, model.weight(name).T)
    op._set_attr("trans_y", False)
    return True
