"""A simpler program that computes the same: batch norms, reshaped biases and transposes folded into weights, identities
removed.

Quantization sees each layer as the engines will run it (folding as in Jacob et al., 2018, section 3.2). What is not
certain to compute the same stays as it is: programs with control flow, variables that are written twice, layers with
channels last, weights that something else reads too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from act.program.model import InferenceModel
from act.program.passes.affine import fold_scalars

# Where an operator has its weight and its result.
_FOLDABLE = {
    "conv2d": ("Filter", "Output"),
    "depthwise_conv2d": ("Filter", "Output"),
    "conv2d_transpose": ("Filter", "Output"),
    "matmul_v2": ("Y", "Out"),
    "mul": ("Y", "Out"),
}
_CHANNELS_FIRST = ("NCHW", "AnyLayout")


@dataclass
class Changes:
    """What was done to the program."""

    folded_batch_norms: int = 0
    removed_identities: int = 0
    folded_reshapes: int = 0
    turned_weights: int = 0
    folded_scalars: int = 0
    # Gamma of each folded batch norm, float32 [channels], by the name of the weight that it was folded into.
    batch_norms: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)


def set_inference_mode(model: InferenceModel) -> None:
    """Let batch norms and dropouts behave as at inference, as the engines do whatever the program says."""
    for block in model.program.blocks:
        for op in block.ops:
            if op.has_attr("is_test"):
                op._set_attr("is_test", True)


def normalise(model: InferenceModel) -> tuple[InferenceModel, Changes]:
    """A normalised copy of a model in inference mode, with the same inputs and outputs, and what was changed."""
    result, changes = model.copy(), Changes()
    if result.program.num_blocks > 1:
        return result, changes
    for op in list(result.ops):
        if _is_identity(op) and _bypass(result, op):
            changes.removed_identities += 1
    for op in list(result.ops):
        if op.type == "reshape2" and _store_reshaped(result, op):
            changes.folded_reshapes += 1
    for op in list(result.ops):
        if op.type == "matmul_v2" and op.attr("trans_y") and _store_turned(result, op):
            changes.turned_weights += 1
    for op in list(result.ops):
        if op.type == "batch_norm":
            gamma = model.weight(op.input("Scale")[0])
            weight = _fold(result, op)
            if weight is not None:
                changes.folded_batch_norms += 1
                changes.batch_norms[weight] = gamma
    changes.folded_scalars = fold_scalars(result)
    return result, changes


def _is_identity(op: Any) -> bool:
    if op.type == "dropout":
        # `downgrade_in_infer` multiplies by 1 - dropout_prob at inference.
        return op.attr("dropout_implementation") == "upscale_in_train" or op.attr("dropout_prob") == 0
    if op.type == "scale":
        return op.attr("scale") == 1 and op.attr("bias") == 0 and not op.input("ScaleTensor")
    return bool(op.type == "assign")


def _bypass(model: InferenceModel, op: Any) -> bool:
    """Let the readers of an identity's output read its input; False where that could change an output."""
    source, target = op.input("X")[0], op.output("Out")[0]
    if target in model.fetch_names or _writers(model, source) > 1 or _writers(model, target) > 1:
        return False
    for reader in model.ops:
        reader._rename_input(target, source)
    _remove(model, op)
    return True


def _store_reshaped(model: InferenceModel, op: Any) -> bool:
    """Store a reshaped weight as a weight: Paddle reshapes the bias of a convolution at every inference."""
    source, target = op.input("X")[0], op.output("Out")[0]
    asked_at_runtime = any(slot in op.input_names and op.input(slot) for slot in ("Shape", "ShapeTensor"))
    known = model.is_weight(source) and -1 not in _shape(model, target)
    if asked_at_runtime or not known or target in model.fetch_names or _writers(model, target) > 1:
        return False
    model.set_weight(target, model.weight(source).reshape(_shape(model, target)))
    variable = model.program.global_block().var(target)
    variable.persistable, variable.stop_gradient = True, True
    _remove(model, op)
    return True


def _store_turned(model: InferenceModel, op: Any) -> bool:
    """Store a transposed weight as it is multiplied: Paddle2ONNX would put a `Transpose` before the product."""
    name = op.input("Y")[0]
    alone = model.is_weight(name) and sum(name in other.input_arg_names for other in model.ops) == 1
    if not alone or name in model.fetch_names or model.weight(name).ndim != 2:
        return False
    turned = model.weight(name).T
    model.set_weight(name, turned)
    model.program.global_block().var(name).desc.set_shape(list(turned.shape))
    op._set_attr("trans_y", False)
    return True


def _writers(model: InferenceModel, name: str) -> int:
    return sum(name in op.output_arg_names for op in model.ops)


def _fold(model: InferenceModel, norm: Any) -> str | None:
    """Fold a batch norm into the layer whose output only it reads, perhaps through the addition of a bias; the name of
    that layer's weight, or None."""
    block = model.program.global_block()
    layer, addition = _only_maker(model, norm.input("X")[0]), None
    if layer is not None and layer.type == "elementwise_add" and _is_channel_bias(model, layer):
        layer, addition = _only_maker(model, layer.input("X")[0]), layer
    axis = None if layer is None else _channel_axis(model, layer)
    if layer is None or axis is None or norm.attr("data_layout") not in _CHANNELS_FIRST:
        return None
    weight_slot, output_slot = _FOLDABLE[layer.type]
    gamma, beta, mean, variance = (
        model.weight(norm.input(part)[0]).astype(np.float64) for part in ("Scale", "Bias", "Mean", "Variance")
    )
    factor = gamma / np.sqrt(variance + norm.attr("epsilon"))
    weight_name = layer.input(weight_slot)[0]
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
    block._insert_op_without_sync(
        position,
        type="elementwise_add",
        inputs={"X": [block.var(layer.output(output_slot)[0])], "Y": [variable]},
        outputs={"Out": [block.var(output)]},
        attrs={"axis": 1},
    )
    if addition is not None:
        _remove(model, addition)
    return str(weight_name)


def _channel_axis(model: InferenceModel, layer: Any) -> int | None:
    """The weight's axis of output channels; None where a batch norm after this operator cannot be folded into it."""
    if layer.type not in _FOLDABLE:
        return None
    slot = _FOLDABLE[layer.type][0]
    name = layer.input(slot)[0]
    alone = model.is_weight(name) and sum(name in op.input_arg_names for op in model.ops) == 1
    if not alone or model.weight(name).dtype != np.float32:
        return None
    if slot == "Filter":
        biased = "Bias" in layer.input_names and layer.input("Bias")
        if layer.attr("data_format") not in _CHANNELS_FIRST or biased:
            return None
        if layer.type == "conv2d_transpose":
            return 1 if layer.attr("groups") == 1 else None
        return 0
    # A batch norm's channels are axis 1, which is the matrix product's last axis only for a table of rows.
    if model.weight(name).ndim != 2 or len(_shape(model, layer.output("Out")[0])) != 2:
        return None
    return 0 if layer.type == "matmul_v2" and layer.attr("trans_y") else 1


def _shape(model: InferenceModel, name: str) -> tuple[int, ...]:
    return tuple(model.program.global_block().var(name).shape)


def _only_maker(model: InferenceModel, name: str) -> Any | None:
    """The operator that writes a variable, when one writes it and one reads it."""
    makers = [op for op in model.ops if name in op.output_arg_names]
    readers = [op for op in model.ops if name in op.input_arg_names]
    alone = len(makers) == 1 and len(readers) == 1 and name not in model.fetch_names
    return makers[0] if alone else None


def _is_channel_bias(model: InferenceModel, addition: Any) -> bool:
    if not model.is_weight(addition.input("Y")[0]):
        return False
    shape = model.weight(addition.input("Y")[0]).shape
    if len(shape) == 1:
        channels_last = addition.attr("axis") == -1 and len(_shape(model, addition.input("X")[0])) == 2
        return addition.attr("axis") == 1 or channels_last
    return len(shape) == 4 and shape[0] == shape[2] == shape[3] == 1


def _position(model: InferenceModel, op: Any) -> int:
    return next(i for i, other in enumerate(model.program.global_block().ops) if other.desc == op.desc)


def _remove(model: InferenceModel, op: Any) -> None:
    model.program.global_block()._remove_op(_position(model, op))
