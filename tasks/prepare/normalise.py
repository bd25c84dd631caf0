"""A simpler program that computes the same: batch norms folded into the weights before them, identities removed.

Quantization sees each convolution as the engines will run it (folding as in Jacob et al., 2018, section 3.2). Programs
with control flow are left as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from act.model import InferenceModel

# Where the weight of an operator stands, and the axis of its output channels.
_FOLDABLE = {"conv2d": ("Filter", 0), "depthwise_conv2d": ("Filter", 0)}


@dataclass
class Changes:
    """What was done to the program."""

    folded_batch_norms: int = 0
    removed_identities: int = 0


def normalise(model: InferenceModel) -> tuple[InferenceModel, Changes]:
    """A normalised copy, with the same inputs and outputs, and what was changed."""
    result, changes = model.copy(), Changes()
    if result.program.num_blocks > 1:
        return result, changes
    for op in list(result.ops):
        if _is_identity(op) and _bypass(result, op):
            changes.removed_identities += 1
    for op in list(result.ops):
        if op.type == "batch_norm" and _fold(result, op):
            changes.folded_batch_norms += 1
    return result, changes


def _is_identity(op: Any) -> bool:
    if op.type == "dropout":
        return op.attr("dropout_implementation") == "upscale_in_train" or op.attr("dropout_prob") == 0
    if op.type == "scale":
        return op.attr("scale") == 1 and op.attr("bias") == 0 and not op.input("ScaleTensor")
    return bool(op.type == "assign")


def _bypass(model: InferenceModel, op: Any) -> bool:
    """Let the readers of an identity's output read its input; False when the output is the model's own."""
    source, target = op.input("X")[0], op.output("Out")[0]
    if target in model.fetch_names:
        return False
    for reader in model.ops:
        reader._rename_input(target, source)
    _remove(model, op)
    return True


def _fold(model: InferenceModel, norm: Any) -> bool:
    """Fold a batch norm into the convolution whose output only it reads, perhaps through the addition of a bias."""
    block = model.program.global_block()
    name = norm.input("X")[0]
    maker = _only_maker(model, name)
    addition = None
    if maker is not None and maker.type == "elementwise_add" and _is_channel_bias(model, maker):
        addition, maker = maker, _only_maker(model, maker.input("X")[0])
    if maker is None or maker.type not in _FOLDABLE:
        return False
    slot, axis = _FOLDABLE[maker.type]
    weight_name = maker.input(slot)[0]
    if not model.is_weight(weight_name) or sum(weight_name in op.input_arg_names for op in model.ops) != 1:
        return False
    gamma, beta, mean, variance = (
        model.weight(norm.input(part)[0]).astype(np.float64) for part in ("Scale", "Bias", "Mean", "Variance")
    )
    factor = gamma / np.sqrt(variance + norm.attr("epsilon"))
    weight = model.weight(weight_name)
    shape = [1] * weight.ndim
    shape[axis] = -1
    old_bias = 0.0 if addition is None else model.weight(addition.input("Y")[0]).astype(np.float64).reshape(-1)
    bias = (beta + (old_bias - mean) * factor).astype(np.float32)
    model.set_weight(weight_name, (weight.astype(np.float64) * factor.reshape(shape)).astype(np.float32))

    output = norm.output("Y")[0]
    variable = block.create_var(
        name=f"{output}.folded_bias", shape=bias.shape, dtype="float32", persistable=True, stop_gradient=True
    )
    model.set_weight(variable.name, bias)
    position = _position(model, norm)
    _remove(model, norm)
    made = maker.output("Output")[0]
    block._insert_op_without_sync(
        position,
        type="elementwise_add",
        inputs={"X": [block.var(made)], "Y": [variable]},
        outputs={"Out": [block.var(output)]},
        attrs={"axis": 1},
    )
    if addition is not None:
        _remove(model, addition)
    return True


def _only_maker(model: InferenceModel, name: str) -> Any | None:
    """The operator that writes a variable, when one writes it and one reads it."""
    makers = [op for op in model.ops if name in op.output_arg_names]
    readers = [op for op in model.ops if name in op.input_arg_names]
    alone = len(makers) == 1 and len(readers) == 1 and name not in model.fetch_names
    return makers[0] if alone else None


def _is_channel_bias(model: InferenceModel, op: Any) -> bool:
    if not model.is_weight(op.input("Y")[0]):
        return False
    shape = model.weight(op.input("Y")[0]).shape
    return (len(shape) == 1 and op.attr("axis") == 1) or (len(shape) == 4 and shape[0] == shape[2] == shape[3] == 1)


def _position(model: InferenceModel, op: Any) -> int:
    return next(i for i, other in enumerate(model.program.global_block().ops) if other.desc == op.desc)


def _remove(model: InferenceModel, op: Any) -> None:
    model.program.global_block()._remove_op(_position(model, op))
