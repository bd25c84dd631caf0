"""The form of a Paddle program that Paddle Lite 2.13 can read."""

from __future__ import annotations

from act.model import InferenceModel

# What the pointer to this output is followed for without asking whether it is there.
_FLATTEN, _SHAPE_OUTPUT = "flatten_contiguous_range", "XShape"


def for_lite(model: InferenceModel) -> InferenceModel:
    """The same model with the outputs that Paddle Lite cannot do without; the given one is not changed.

    Paddle 2.6 leaves out outputs that only training reads. Paddle Lite 2.13 dies (SIGSEGV in
    `FlattenContiguousRangeOp::InferType`) of one that is not there, where a `matmul_v2` follows: as in every classifier
    that ends in `paddle.nn.Linear`.
    """
    result = model.copy()
    block = result.program.global_block()
    for op in result.ops:
        if op.type == _FLATTEN and _SHAPE_OUTPUT not in op.output_names:
            source = block.var(op.desc.input("X")[0])
            name = f"{op.desc.output('Out')[0]}.xshape"
            # As Paddle declares it: an axis of no length, and then the shape that was flattened.
            block.create_var(name=name, shape=[0, *source.shape], dtype=source.dtype)
            op.desc.set_output(_SHAPE_OUTPUT, [name])
    return result
