"""The form of a Paddle program that Paddle Lite 2.13 can read."""

from __future__ import annotations

import math
from typing import Any

from act.program.model import InferenceModel

# What the pointer to this output is followed for without asking whether it is there.
_FLATTEN, _SHAPE_OUTPUT = "flatten_contiguous_range", "XShape"
_PAIR = ("quantize_linear", "dequantize_linear")
# For training and for oneDNN: Paddle Lite reads none of them, but keeps them, and they are a tenth of a small file.
_OF_NO_USE = (
    *("op_role", "op_role_var", "op_namescope", "op_callstack", "op_device", "with_quant_attr", "use_cudnn"),
    *("use_mkldnn", "use_quantizer", "mkldnn_data_type", "use_addto", "exhaustive_search", "force_fp32_output"),
    *("Scale_in", "Scale_out", "Scale_x", "Scale_y", "Scale_in_eltwise", "Scale_weights", "workspace_size_MB"),
    *("fuse_residual_connection", "use_gpudnn"),
)


def for_lite(model: InferenceModel) -> InferenceModel:
    """Return the same model as Paddle Lite can read it; the given one is not changed.

    Paddle 2.6 leaves out outputs that only training reads. Paddle Lite 2.13 dies (SIGSEGV in
    `FlattenContiguousRangeOp::InferType`) of one that is not there, where a `matmul_v2` follows. Its `opt` dies
    (SIGABRT in `SSAGraph`) of zero points that several operators share, and where it fuses the bias of a convolution
    that has axes of length one about it, as `paddle.nn.Conv2D` leaves it.
    """
    result = model.copy()
    for op in result.ops:
        for name in _OF_NO_USE:
            if op.has_attr(name):
                op.desc.remove_attr(name)
        if op.type == _FLATTEN and _SHAPE_OUTPUT not in op.output_names:
            _add_shape_output(result, op)
        elif op.type in _PAIR:
            shared, own = op.input("ZeroPoint")[0], f"{op.output('Y')[0]}@zero_points"
            result.rename_input(op, shared, result.add_weight(own, result.weight(shared), stop_gradient=False))
        elif op.type == "elementwise_add":
            _flatten_bias(result, op)
    return result


def _add_shape_output(model: InferenceModel, op: Any) -> None:
    block = model.program.global_block()
    source = block.var(op.desc.input("X")[0])
    name = f"{op.desc.output('Out')[0]}.xshape"
    # As Paddle declares it: an axis of no length, and then the shape that was flattened.
    block.create_var(name=name, shape=[0, *source.shape], dtype=source.dtype)
    op.desc.set_output(_SHAPE_OUTPUT, [name])


def _flatten_bias(model: InferenceModel, op: Any) -> None:
    """Make a summand [1, channels, 1, 1] one of [channels] along the axis of channels."""
    name = op.input("Y")[0]
    if not model.is_weight(name) or len(model.shape(op.input("X")[0])) != 4:
        return
    shape = model.shape(name)
    if len(shape) == 4 and shape[1] == math.prod(shape):
        flat = f"{name}.flat"
        if not model.has(flat):
            model.add_weight(flat, model.weight(name).reshape(-1), stop_gradient=False)
        model.rename_input(op, name, flat)
        op._set_attr("axis", 1)
