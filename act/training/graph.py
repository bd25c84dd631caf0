"""Changes of a program that training needs."""

from __future__ import annotations

from typing import Any

from paddle.base.framework import Parameter

from act.program.model import InferenceModel

_RESHAPING = ("reshape2", "transpose2", "squeeze2", "unsqueeze2", "flatten2", "flatten_contiguous_range")


def without_ends(student: InferenceModel) -> None:
    """Take out the operators that feed and fetch: a training program is fed and fetched by name."""
    block = student.program.global_block()
    for index in reversed(range(len(block.ops))):
        if block.ops[index].type in ("feed", "fetch"):
            block._remove_op(index)


def add_shapes_for_gradients(student: InferenceModel) -> None:
    """Give operators that only change the shape the output that their gradient reads; exported programs lack it."""
    block = student.program.global_block()
    for op in student.ops:
        if op.type in _RESHAPING and not ("XShape" in op.desc.output_names() and op.desc.output("XShape")):
            source, name = block.var(op.input("X")[0]), f"{op.output('Out')[0]}.xshape"
            block.create_var(name=name, shape=[0, *source.shape], dtype=source.dtype, stop_gradient=True)
            op.desc.set_output("XShape", [name])


def make_parameter(block: Any, name: str, **more: Any) -> Any:
    """Replace a plain variable, as loaded programs have, by a parameter, which the optimiser needs; return it."""
    variable = block.var(name)
    parameter = Parameter(block, shape=variable.shape, dtype=variable.dtype, name=name, trainable=True, **more)
    parameter.stop_gradient = False
    block.vars[name] = parameter
    return parameter


def use_onednn(program: Any) -> None:
    """Have oneDNN run the depthwise convolutions, forward and backward: Paddle's own loops take several times as long.

    For other operators its kernels are no faster, or do not train.
    """
    for op in program.global_block().ops:
        if op.type.removesuffix("_grad") == "depthwise_conv2d":
            op._set_attr("use_mkldnn", True)
            op._set_attr("is_test", False)
