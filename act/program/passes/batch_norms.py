"""Batch norms folded into the layers before them (Jacob et al., 2018, section 3.2)."""

from typing import Any

import numpy as np
import numpy.typing as npt

from act.program.layers import CHANNELS_FIRST, OUTPUT_AXES, SLOTS, is_plain_filter, owns_floats, scale_weight, weight_of
from act.program.model import InferenceModel


def fold_batch_norms(model: InferenceModel) -> dict[str, npt.NDArray[np.float32]]:
    """Fold each batch norm into the layer whose output only it reads, perhaps through the addition of a bias.

    Returns its gamma, float32 [channels], by the name of the weight that it was folded into.
    """
    gammas = {}
    for op in model.ops:
        if op.type == "batch_norm":
            gamma = model.weight(op.input("Scale")[0])
            weight = _fold(model, op)
            if weight is not None:
                gammas[weight] = gamma
    return gammas


def _fold(model: InferenceModel, norm: Any) -> str | None:
    """Fold one batch norm, and return the name of the weight that took it up, or None."""
    layer, addition = model.sole_producer(norm.input("X")[0]), None
    if layer is not None and layer.type == "elementwise_add" and _is_channel_bias(model, layer):
        layer, addition = model.sole_producer(layer.input("X")[0]), layer
    axis = None if layer is None else _channel_axis(model, layer)
    if layer is None or axis is None or norm.attr("data_layout") not in CHANNELS_FIRST:
        return None
    gamma, beta, mean, variance = (
        model.weight(norm.input(part)[0]).astype(np.float64) for part in ("Scale", "Bias", "Mean", "Variance")
    )
    factor = gamma / np.sqrt(variance + norm.attr("epsilon"))
    name = weight_of(layer)
    old_bias = 0.0 if addition is None else model.weight(addition.input("Y")[0]).astype(np.float64).reshape(-1)
    bias = (beta + (old_bias - mean) * factor).astype(np.float32)
    scale_weight(model, name, factor, axis)
    output = norm.output("Y")[0]
    model.insert(
        "elementwise_add",
        {"X": [layer.output_arg_names[0]], "Y": [model.add_weight(f"{output}.folded_bias", bias)]},
        {"Out": [output]},
        {"axis": 1},
        before=norm,
    )
    model.remove(norm)
    if addition is not None:
        model.remove(addition)
    return name


def _channel_axis(model: InferenceModel, layer: Any) -> int | None:
    """Return the weight's axis of output channels; None where a batch norm behind the operator cannot be folded."""
    if layer.type not in SLOTS or not owns_floats(model, weight_of(layer)):
        return None
    if layer.type in ("matmul_v2", "mul"):
        # A batch norm's channels are axis 1, which is the matrix product's last axis only for a table of rows.
        if len(model.shape(weight_of(layer))) != 2 or len(model.shape(layer.output("Out")[0])) != 2:
            return None
        return 0 if layer.type == "matmul_v2" and layer.attr("trans_y") else 1
    whole = layer.type != "conv2d_transpose" or layer.attr("groups") == 1
    return OUTPUT_AXES[layer.type] if whole and is_plain_filter(layer) else None


def _is_channel_bias(model: InferenceModel, addition: Any) -> bool:
    name = addition.input("Y")[0]
    shape = model.shape(name)
    if len(shape) == 1:
        axes = (1, -1) if len(model.shape(addition.input("X")[0])) == 2 else (1,)
        return model.is_weight(name) and addition.attr("axis") in axes
    return model.is_weight(name) and len(shape) == 4 and shape[0] == shape[2] == shape[3] == 1
