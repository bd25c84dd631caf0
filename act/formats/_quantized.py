"""Paddle programs that are quantized already: the float program that they simulate, its weights as int8 has them."""

from __future__ import annotations

from typing import Any

import numpy as np

from act.errors import InputError, quoted
from act.program.model import InferenceModel
from act.samples.dataset import Array

# What rounds an activation, or a weight that is float still, and gives it back as a float.
_ROUNDS = (
    *("fake_quantize_dequantize_moving_average_abs_max", "fake_quantize_dequantize_abs_max"),
    "fake_channel_wise_quantize_dequantize_abs_max",
)
_QUANTIZES, _DEQUANTIZES = "quantize_linear", "dequantize_linear"
# What notes the range of a tensor, and gives it as it is.
_OBSERVES = "moving_average_abs_max_scale"
_SIGNS = ("fake_quantize", "fake_dequantize", "fake_channel_wise", "quantize", "dequantize", "requantize")


def restore(model: InferenceModel, file: Any) -> int:
    """Take all rounding out of a program, and let its weights be the floats that their integers stand for.

    Args:
        file: for messages.

    Returns:
        How many tensors were rounded; 0 where the model is not quantized.

    Raises:
        InputError: it is quantized in a form whose floats are not told by each operator alone.
    """
    count = 0
    # Before anything is taken out: what a quantizer reads may be a weight, too, and is a float then.
    integers = [op for op in model.ops if op.type == _DEQUANTIZES and model.is_weight(op.input("X")[0])]
    for op in integers:
        _restore_weight(model, op)
    for op in [op for op in model.ops if op.type in (*_ROUNDS, _QUANTIZES, _DEQUANTIZES, _OBSERVES)]:
        count += op.type not in (_DEQUANTIZES, _OBSERVES)
        _bypass(model, op)
    if count:
        _drop_shifts(model)
    left = sorted({op.type for op in model.ops if op.type.startswith(_SIGNS)})
    if left:
        raise InputError(
            f"{file}: is quantized already, in a form that is not read ({quoted(left)}); give the fp32 model that it "
            "was made of, or export it with `onnx_format=True`"
        )
    return count


def _bypass(model: InferenceModel, op: Any) -> None:
    source = op.input("X")[0]
    target = op.output("Y" if "Y" in op.output_names else "Out")[0]
    if target in model.fetch_names:
        model.insert("assign", {"X": [source]}, {"Out": [target]}, before=op)
    else:
        model.redirect(target, source)
    model.remove(op)


def _drop_shifts(model: InferenceModel) -> None:
    """Drop what moved values by a zero point ahead of rounding, and back behind it."""
    for op in [op for op in model.ops if op.type == "scale" and op.attr("scale") == 1]:
        source, target = op.input("X")[0], op.output("Out")[0]
        before = model.sole_producer(source)
        if before is None or before.type != "scale" or before.attr("scale") != 1 or target in model.fetch_names:
            continue
        if before.attr("bias") == -op.attr("bias") != 0:
            model.redirect(target, before.input("X")[0])
            model.remove(op)
            model.remove(before)


def _restore_weight(model: InferenceModel, op: Any) -> None:
    source, target = op.input("X")[0], op.output("Y")[0]
    thresholds, axis = model.weight(op.input("Scale")[0]).astype(np.float32), op.attr("quant_axis")
    values: Array = model.weight(source).astype(np.float32)
    if thresholds.size > 1:
        thresholds = thresholds.reshape([-1 if place == axis else 1 for place in range(values.ndim)])
    levels = 2 ** (op.attr("bit_length") - 1) - 1
    model.remove(op)
    model.add_weight(target, values * thresholds / levels)
