"""Changes of a program that training needs, quantization by QDQ operators with fixed scales among them.

PaddleSlim inserts those, by the pass that its `quant_aware` begins with, and gradients pass them unchanged
(straight-through estimator; Bengio et al., 2013). Scales and zero points are then set to the candidate's, where
training starts exactly.
"""

import contextlib
import io
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from paddle.base.framework import Parameter
from paddleslim.quant.quanter import IrGraph, QuantizationTransformPassV2, core

from act.program.layers import OPERATORS
from act.program.model import InferenceModel
from act.program.paddle_setup import CPU
from act.quantization.ranges import LEVELS
from act.quantization.scheme import Scheme

_RESHAPING = ("reshape2", "transpose2", "squeeze2", "unsqueeze2", "flatten2", "flatten_contiguous_range")
_SKIP = "skip_quant"


def make_trainable(student: InferenceModel, names: Collection[str]) -> list[Any]:
    """Let gradients flow through a program as it was loaded, and return Paddle's parameters of the named weights."""
    block = student.program.global_block()
    # A training program is fed and fetched by name.
    for index in reversed(range(len(block.ops))):
        if block.ops[index].type in ("feed", "fetch"):
            block._remove_op(index)
    for op in student.ops:
        # Operators that only change the shape have an output that their gradient reads; exported programs lack it.
        if op.type in _RESHAPING and not ("XShape" in op.desc.output_names() and op.desc.output("XShape")):
            source, name = block.var(op.input("X")[0]), f"{op.output('Out')[0]}.xshape"
            block.create_var(name=name, shape=[0, *source.shape], dtype=source.dtype, stop_gradient=True)
            op.desc.set_output("XShape", [name])
        for name in filter(block.has_var, op.output_arg_names):
            block.var(name).stop_gradient = False
    return [make_parameter(block, name) for name in names]


def stop_gradients(student: InferenceModel, trained: Collection[str]) -> None:
    """Let no gradient flow but to the weights that train, and through what depends on them, up to where it is cut
    already: Paddle would compute it for all that a layer reads, and drop it afterwards."""
    block = student.program.global_block()
    reached = set(trained)
    for op in student.ops:
        if not reached.isdisjoint(op.input_arg_names):
            reached.update(n for n in op.output_arg_names if block.has_var(n) and not block.var(n).stop_gradient)
    for name, variable in block.vars.items():
        if name not in reached:
            variable.stop_gradient = True


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


def leave_in_float(ops: Sequence[Any]) -> None:
    """Mark operators that `insert_qdq` leaves in float."""
    for op in ops:
        if op.type in OPERATORS:
            op._set_attr("op_namescope", f"/{_SKIP}/")


def insert_qdq(student: InferenceModel, scheme: Scheme) -> Any:
    """Return the student's program, forward and backward, with QDQ before quantized layers; its scope gets scales."""
    graph = IrGraph(core.Graph(student.program.desc), for_test=False)
    quantizer = QuantizationTransformPassV2(
        scope=student.scope,
        place=CPU,
        activation_quantize_type="moving_average_abs_max",
        weight_quantize_type="channel_wise_abs_max",
        quantizable_op_type=list(OPERATORS),
        skip_pattern=[_SKIP],
        is_test=True,  # scales stay as they are set
    )
    # Its progress bars would stand between ours.
    with contextlib.redirect_stderr(io.StringIO()):
        for each in graph.all_sub_graphs():
            quantizer.apply(each)
    program = graph.to_program()
    # The schedule is lost on the way, and the rate would stay what it is at the start.
    if hasattr(student.program, "lr_scheduler"):  # not where the optimiser has a program of its own
        program.lr_scheduler = student.program.lr_scheduler
    _set_scales(student, program, scheme)
    _shift_asymmetric(student, program, scheme)
    return program


def _set_scales(student: InferenceModel, program: Any, scheme: Scheme) -> None:
    for op in program.global_block().ops:
        if op.type not in ("quantize_linear", "dequantize_linear"):
            continue
        name = op.input("X")[0].removesuffix(".quantized")
        values = scheme.weights.get(name)
        if values is None:
            values = np.array([scheme.activations[name].scale * LEVELS], dtype=np.float32)
        student.set_weight(op.input("Scale")[0], values)


def _shift_asymmetric(student: InferenceModel, program: Any, scheme: Scheme) -> None:
    """Add the zero point before each quantizer and subtract it after its dequantizer, which leaves gradients alone."""
    trained = InferenceModel(program, student.scope, [], [])
    for quantizer in [op for op in trained.ops if op.type == "quantize_linear"]:
        name, quantized = quantizer.input("X")[0], quantizer.output("Y")[0]
        span = scheme.activations.get(name)
        if span is None or span.zero_point == 0:
            continue
        dequantizer = next(op for op in trained.consumers(quantized) if op.type == "dequantize_linear")
        restored, shift = dequantizer.output("Y")[0], span.scale * span.zero_point
        shifted = trained.add_tensor(f"{name}.shifted", name)
        trained.insert("scale", {"X": [name]}, {"Out": [shifted]}, {"bias": shift}, before=quantizer)
        trained.rename_input(quantizer, name, shifted)
        source = trained.add_tensor(f"{restored}.shifted", restored)
        trained.rename_output(dequantizer, restored, source)
        trained.insert("scale", {"X": [source]}, {"Out": [restored]}, {"bias": -shift}, after=dequantizer)
