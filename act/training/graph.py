"""What a forward program needs before it can be trained, and small changes of it."""

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
            source = block.var(op.input("X")[0])
            shape = block.create_var(
                name=f"{op.output('Out')[0]}.xshape", shape=[0, *source.shape], dtype=source.dtype, stop_gradient=True
            )
            op.desc.set_output("XShape", [shape.name])


def make_parameter(block: Any, name: str) -> Any:
    """A loaded program has plain variables; the optimiser wants parameters."""
    variable = block.var(name)
    parameter = Parameter(block, shape=variable.shape, dtype=variable.dtype, name=name, trainable=True)
    parameter.stop_gradient = False
    block.vars[name] = parameter
    return parameter


def cut_gradient(student: InferenceModel, name: str) -> Any:
    """Let a variable's readers see its value without its gradient; the variable that still has one."""
    block = student.program.global_block()
    producer = student.producer(name)
    before = block.var(student.add_tensor(f"{name}.before_the_cut", name))
    before.stop_gradient = False
    student.rename_output(producer, name, before.name)
    student.insert("assign", {"X": [before.name]}, {"Out": [name]}, after=producer)
    block.var(name).stop_gradient = True
    return before


def use_onednn(program: Any) -> None:
    """Have oneDNN run the depthwise convolutions, forward and backward: Paddle's own loops take several times as long.

    For other operators its kernels are no faster here, or do not train.
    """
    for op in program.global_block().ops:
        if op.type.removesuffix("_grad") == "depthwise_conv2d":
            op._set_attr("use_mkldnn", True)
            op._set_attr("is_test", False)


def add_number(block: Any, before: int, source: Any, name: str, number: float) -> None:
    """Insert an operator that adds a number; `name` is the sum, made if there is no such variable."""
    if not block.has_var(name):
        block.create_var(name=name, shape=source.shape, dtype=source.dtype)
    block._insert_op_without_sync(
        before, type="scale", inputs={"X": [source]}, outputs={"Out": [block.var(name)]}, attrs={"bias": number}
    )


def position(block: Any, op: Any) -> int:
    """Where an operator stands."""
    return next(index for index, other in enumerate(block.ops) if other.desc == op.desc)
