"""The training program: the quantized forward pass, the distance to the fp32 model, and the backward pass.

Training with distillation compares the outputs (`distillation`), reconstruction compares the ends of regions.

PaddleSlim's `quant_aware` puts the quantize/dequantize pairs in and lets gradients pass them unchanged
(straight-through estimator; Bengio et al., 2013). Its scales are then set to the candidate's and stay there, and
asymmetric activations get their zero points, so that training starts exactly at the candidate; the observers that
PaddleSlim adds as well are taken out again, for they only cost time.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddleslim.quant.quanter as quanter
from paddle.base.framework import Parameter

from act.model import InferenceModel
from act.paddle_setup import CPU, paddle
from act.quantization import LEVELS, OPERATORS, Scheme, quantizable_layers, with_values
from act.samples import Array

# PaddleSlim logs its whole configuration at every call.
logging.getLogger(quanter._logger.name).setLevel(logging.ERROR)

_SKIP = "skip_quant"
_OBSERVER = "moving_average_abs_max_scale"
# Weights of these operators train along with the quantized ones: biases and normalisations.
_TRAINED_OPERATORS = ("elementwise_add", "layer_norm")
_RESHAPING = ("reshape2", "transpose2", "squeeze2", "unsqueeze2", "flatten2", "flatten_contiguous_range")
_LARGEST_GRADIENT = 1.0
_SMALLEST_MEAN_SQUARE = 1e-12


@dataclass(frozen=True)
class Loss:
    """What a step makes smaller.

    Attributes:
        variable: the loss, in the student's program.
        teacher_names: variables of the fp32 model whose values a step compares with, in order.
        targets: the feeds that take those values.
    """

    variable: Any
    teacher_names: list[str]
    targets: list[str]


# Adds the loss to the student's program.
AddLoss = Callable[[InferenceModel], Loss]


@dataclass
class TrainingProgram:
    """What one step runs.

    Attributes:
        student: the model under training, with its weights in a scope of its own.
        program: forward and backward pass and the optimiser.
        teacher_names: variables of the fp32 model whose values a step compares with, in order: the logits of an output
            that is a softmax, any other float32 output itself.
        targets: the feeds that take those values.
        loss: variable of the loss.
        trained: names of the weights that change.
        rate: the learning-rate schedule, to be stepped.
    """

    student: InferenceModel
    program: Any
    teacher_names: list[str]
    targets: list[str]
    loss: str
    trained: list[str]
    rate: Any

    def __post_init__(self) -> None:
        # One for all steps: each executor prepares a program anew, which takes longer than a step.
        self._executor = paddle.static.Executor(CPU)

    def step(self, batch: dict[str, Array], targets: list[Array]) -> float:
        """One step of the optimiser; gives the loss before it."""
        with paddle.static.scope_guard(self.student.scope):
            feed = {**batch, **dict(zip(self.targets, targets))}
            (loss,) = self._executor.run(self.program, feed=feed, fetch_list=[self.loss])
        self.rate.step()
        return float(loss)

    def outputs(self, batch: dict[str, Array], targets: list[Array]) -> list[Array]:
        """The outputs of the quantized forward pass; the program still makes a step."""
        with paddle.static.scope_guard(self.student.scope):
            feed = {**batch, **dict(zip(self.targets, targets))}
            found: list[Array] = self._executor.run(self.program, feed=feed, fetch_list=list(self.student.fetch_names))
        return found

    def weights(self) -> dict[str, Array]:
        """Copies of the trained weights."""
        return {name: self.student.weight(name) for name in self.trained}


def build(
    model: InferenceModel,
    scheme: Scheme,
    add_loss: AddLoss,
    trained: Collection[str],
    *,
    learning_rate: float,
    steps: int,
    seed: int,
) -> TrainingProgram:
    """The training program of a model and the scheme that quantizes it.

    Args:
        model: the fp32 model with the weights to start from; not changed.
        scheme: its biases and integers are where the student starts.
        add_loss: for instance `distillation`.
        trained: names of the float32 weights that change.
        learning_rate: of Adam (Kingma and Ba, 2015), at the start of a cosine decay.
        steps: in all, for the decay.
        seed: of Paddle's random numbers.

    Raises:
        ValueError: no output is of real numbers.
    """
    paddle.seed(seed)
    student = with_values(model, scheme)
    block = student.program.global_block()
    for position in reversed(range(len(block.ops))):
        if block.ops[position].type in ("feed", "fetch"):
            block._remove_op(position)
    _add_shapes_for_gradients(student)
    for op in student.ops:
        if op.type in OPERATORS and op.output_arg_names[0] not in scheme.layers:
            op._set_attr("op_namescope", f"/{_SKIP}/")
    begin = paddle.static.Program()
    with (
        paddle.static.scope_guard(student.scope),
        paddle.static.program_guard(student.program, begin),
        paddle.utils.unique_name.guard("training_"),
    ):
        parameters = [_make_parameter(block, name) for name in trained]
        for op in student.ops:
            for name in op.output_arg_names:
                if block.has_var(name):
                    block.var(name).stop_gradient = False
        loss = add_loss(student)
        rate = paddle.optimizer.lr.CosineAnnealingDecay(learning_rate, T_max=steps)
        clip = paddle.nn.ClipGradByGlobalNorm(_LARGEST_GRADIENT)
        paddle.optimizer.Adam(rate, grad_clip=clip).minimize(loss.variable, parameters=parameters)
        paddle.static.Executor(CPU).run(begin)
        # Its progress bars would stand between ours.
        with contextlib.redirect_stderr(io.StringIO()):
            program = quanter.quant_aware(
                student.program,
                CPU,
                {
                    "onnx_format": True,
                    "scale_trainable": False,
                    "quantize_op_types": list(OPERATORS),
                    "not_quant_pattern": [_SKIP],
                },
                scope=student.scope,
                for_test=False,
                return_program=True,
            )
    _remove_observers(program)
    _set_scales(student, program, scheme)
    _shift_asymmetric(program, scheme)
    name = loss.variable.name
    return TrainingProgram(student, program, loss.teacher_names, loss.targets, name, list(trained), rate)


def _add_shapes_for_gradients(student: InferenceModel) -> None:
    """Give operators that only change the shape the output that their gradient reads; exported programs lack it."""
    block = student.program.global_block()
    for op in student.ops:
        if op.type in _RESHAPING and not ("XShape" in op.desc.output_names() and op.desc.output("XShape")):
            source = block.var(op.input("X")[0])
            shape = block.create_var(
                name=f"{op.output('Out')[0]}.xshape", shape=[0, *source.shape], dtype=source.dtype, stop_gradient=True
            )
            op.desc.set_output("XShape", [shape.name])


def trainable_weights(model: InferenceModel, scheme: Scheme) -> list[str]:
    """All that training may change: weights of the quantized layers, biases and normalisations."""
    names = [layer.weight for layer in quantizable_layers(model, OPERATORS) if layer.name in scheme.layers]
    for op in model.ops:
        if op.type in _TRAINED_OPERATORS:
            names += [name for name in op.input_arg_names if model.is_weight(name)]
    return [name for name in dict.fromkeys(names) if model.weight(name).dtype == np.float32]


def _make_parameter(block: Any, name: str) -> Any:
    """A loaded program has plain variables; the optimiser wants parameters."""
    variable = block.var(name)
    parameter = Parameter(block, shape=variable.shape, dtype=variable.dtype, name=name, trainable=True)
    parameter.stop_gradient = False
    block.vars[name] = parameter
    return parameter


def distillation(student: InferenceModel) -> Loss:
    """The distance of the outputs to the fp32 model's.

    Every output of real numbers counts with the squared error, as a share of the teacher's mean square. For one that is
    a softmax this is the error of its logits, and the cross entropy to the teacher's probabilities (soft labels; Hinton
    et al., 2015) is added: alone it says next to nothing where the teacher is certain, which for CTC is almost
    everywhere.

    Raises:
        ValueError: no output is of real numbers.
    """
    block = student.program.global_block()
    makers = {op.output_arg_names[0]: op for op in student.ops}
    losses: list[Any] = []
    teacher_names: list[str] = []
    targets: list[str] = []
    for name in student.fetch_names:
        maker, output = makers[name], block.var(name)
        if output.dtype != paddle.float32:
            continue
        from_softmax = maker.type == "softmax" and maker.attr("axis") in (-1, len(output.shape) - 1)
        compared = block.var(maker.input("X")[0]) if from_softmax else output
        error, target = _squared_error(compared, f"teacher_{len(targets)}")
        if from_softmax:
            wanted = paddle.nn.functional.softmax(target)
            error += paddle.nn.functional.softmax_with_cross_entropy(compared, wanted, soft_label=True).mean()
        losses.append(error)
        teacher_names.append(compared.name)
        targets.append(target.name)
    if not losses:
        raise ValueError("no output of the model is float32: there is nothing to learn from")
    return Loss(paddle.add_n(losses), teacher_names, targets)


def reconstruction(ends: Sequence[str]) -> AddLoss:
    """The loss of regions that are trained side by side, each on what the quantized regions before it give.

    The end of every region is compared with the fp32 model's, as a share of its mean square, and no gradient passes
    from one region into the one before it.

    Args:
        ends: float32 variables, the last of each region.
    """

    def add_loss(student: InferenceModel) -> Loss:
        losses: list[Any] = []
        targets: list[str] = []
        for name in ends:
            error, target = _squared_error(_cut_gradient(student, name), f"teacher_{len(targets)}")
            losses.append(error)
            targets.append(target.name)
        return Loss(paddle.add_n(losses), list(ends), targets)

    return add_loss


def _squared_error(compared: Any, name: str) -> tuple[Any, Any]:
    """The error as a share of the target's mean square, and the feed that takes the target."""
    target = paddle.static.data(name, [-1] * len(compared.shape), "float32")
    return ((compared - target) ** 2).mean() / ((target**2).mean() + _SMALLEST_MEAN_SQUARE), target


def _cut_gradient(student: InferenceModel, name: str) -> Any:
    """Let a variable's readers see its value without its gradient; the variable that still has one."""
    block = student.program.global_block()
    maker = next(op for op in student.ops if name in op.output_arg_names)
    source = block.var(name)
    before = block.create_var(name=f"{name}.before_the_cut", shape=source.shape, dtype=source.dtype)
    before.stop_gradient = False
    maker._rename_output(name, before.name)
    block._insert_op_without_sync(
        _position(block, maker) + 1, type="assign", inputs={"X": [before]}, outputs={"Out": [source]}
    )
    source.stop_gradient = True
    return before


def _remove_observers(program: Any) -> None:
    block = program.global_block()
    for position in reversed(range(len(block.ops))):
        if block.ops[position].type == _OBSERVER:
            block._remove_op(position)


def _set_scales(student: InferenceModel, program: Any, scheme: Scheme) -> None:
    for op in program.global_block().ops:
        if op.type not in ("quantize_linear", "dequantize_linear"):
            continue
        name = op.input("X")[0].removesuffix(".quantized")
        values = scheme.weights.get(name)
        if values is None:
            values = np.array([scheme.activations[name].scale * LEVELS], dtype=np.float32)
        student.set_weight(op.input("Scale")[0], values)


def _shift_asymmetric(program: Any, scheme: Scheme) -> None:
    """Shift by the zero point before each pair and back after it; a shift has no part in the gradient."""
    block = program.global_block()
    for quantizer in [op for op in block.ops if op.type == "quantize_linear"]:
        name, between = quantizer.input("X")[0], quantizer.output("Y")[0]
        span = scheme.activations.get(name)
        if span is None or span.zero_point == 0:
            continue
        dequantizer = next(op for op in block.ops if op.type == "dequantize_linear" and op.input("X")[0] == between)
        restored = dequantizer.output("Y")[0]
        shift = span.scale * span.zero_point
        _add(block, _position(block, quantizer), block.var(name), f"{name}.shifted", shift)
        quantizer._rename_input(name, f"{name}.shifted")
        source = block.create_var(
            name=f"{restored}.shifted", shape=block.var(restored).shape, dtype=block.var(restored).dtype
        )
        dequantizer._rename_output(restored, source.name)
        _add(block, _position(block, dequantizer) + 1, source, restored, -shift)


def _add(block: Any, position: int, source: Any, name: str, number: float) -> None:
    if not block.has_var(name):
        block.create_var(name=name, shape=source.shape, dtype=source.dtype)
    block._insert_op_without_sync(
        position, type="scale", inputs={"X": [source]}, outputs={"Out": [block.var(name)]}, attrs={"bias": number}
    )


def _position(block: Any, op: Any) -> int:
    return next(index for index, other in enumerate(block.ops) if other.desc == op.desc)
