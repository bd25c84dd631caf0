"""The training program: the forward pass, quantized or in fp32, the distance to a teacher, and the backward pass."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from act.program.layers import OPERATORS
from act.program.model import InferenceModel
from act.program.paddle_setup import CPU, paddle
from act.quantization.scheme import Scheme, quantized_layers, with_values
from act.samples.dataset import Array
from act.settings import TrainConfig
from act.training.graph import insert_qdq, leave_in_float, make_trainable, stop_gradients, use_onednn
from act.training.learned_ranges import LearnedRanges, insert_learned, learned_scheme
from act.training.losses import AddLoss, Loss
from act.training.parts import SUM, WEIGHT, gather, reset, weigh
from act.training.processes import SHARE, Processes, average, processes

# Weights of these operators train along with those that multiply: biases and normalisations.
_TRAINED_OPERATORS = ("elementwise_add", "layer_norm")
# All that may train where nothing is quantized.
_TRAINED_IN_FLOAT = (*OPERATORS, "depthwise_conv2d_transpose", *_TRAINED_OPERATORS)
_MASK = "@mask"
# Of a weight's values, the least share of zeros with which it was pruned: trained values hit zero by chance only.
_SPARSE = 0.01
_LARGEST_GRADIENT = 1.0
# Optimisers that decay weights apart from the gradient, and so take a plain number; others take it as L2.
_DECOUPLED = {"AdamW": "weight_decay", "Lamb": "lamb_weight_decay"}
# The length of the decays that need one, where the schedule gives none: all steps after the warm-up.
_LENGTHS = {"CosineAnnealingDecay": "T_max", "PolynomialDecay": "decay_steps"}


@dataclass
class TrainingProgram:
    """A model under training, and the program that one step runs.

    Attributes:
        student: with the weights in a scope of its own.
        program: forward and backward pass and the optimiser; the optimiser alone where a step is made of parts.
        loss: its variable is the mean over all processes.
        trained: names of the parameters that change: weights, and factors of ranges.
        factors: the name of what a tensor's range is multiplied by, by tensor, where ranges train.
        backward: forward and backward pass, where a step is made of parts (`parts.py`).
    """

    student: InferenceModel
    program: Any
    loss: Loss
    trained: list[str]
    rate: Any
    scheme: Scheme | None = None
    factors: Mapping[str, str] = field(default_factory=dict)
    processes: Processes = field(default_factory=Processes)
    backward: Any = None

    def __post_init__(self) -> None:
        # One for all steps: each executor prepares a program anew, which takes longer than a step.
        self._executor = paddle.static.Executor(CPU)

    def step(self, feeds: Mapping[str, Array], share: float = 1.0) -> float:
        """Make one step of the optimiser; return the loss before it.

        Args:
            feeds: a batch, and the values that the loss compares with (`Loss.targets`).
            share: what share of the whole batch this process has, where several train together.
        """
        shared = {SHARE: np.array([share], dtype=np.float32)} if self.processes.count > 1 else {}
        with paddle.static.scope_guard(self.student.scope):
            (loss,) = self._executor.run(self.program, feed={**feeds, **shared}, fetch_list=[self.loss.variable.name])
        self.rate.step()
        return float(loss)

    def step_in_parts(self, parts: Iterable[tuple[Mapping[str, Array], float]], share: float = 1.0) -> float:
        """Make one step of the optimiser with a batch in parts, as `step` does with a whole one.

        The loss is the mean of the parts' own, as it is over several processes: an error that is a share of the
        teacher's mean square is one of that in each part.

        Args:
            parts: the feeds of each part, and its share of this process's samples.
            share: as for `step`.
        """
        for feeds, weight in parts:
            with paddle.static.scope_guard(self.student.scope):
                self._executor.run(self.backward, feed={**feeds, WEIGHT: np.array(weight, dtype=np.float32)})
        return self.step({}, share)

    def weights(self) -> dict[str, Array]:
        """Return copies of the trained weights."""
        return {name: self.student.weight(name) for name in self.trained}

    def trained_scheme(self, weights: Mapping[str, Array]) -> Scheme | None:
        """Return the scheme that goes with trained weights: with the ranges that were trained, where they were."""
        return None if self.scheme is None else learned_scheme(self.scheme, self.factors, weights)

    def set_mask(self, name: str, mask: Array) -> None:
        """Keep a trained weight at zero where the mask, in its shape, is zero: now, and after each step."""
        block = self.program.global_block()
        weight = self.student.weight(name)
        if name not in self.trained or mask.shape != weight.shape:
            raise ValueError(f"{name} with the shape {mask.shape} is no weight under training")
        holder = f"{name}{_MASK}"
        if not block.has_var(holder):
            variable = block.create_var(name=holder, shape=mask.shape, dtype="float32", persistable=True)
            target = block.var(name)
            block.append_op(type="elementwise_mul", inputs={"X": [target], "Y": [variable]}, outputs={"Out": [target]})
        self.student.set_weight(holder, mask.astype(np.float32))
        self.student.set_weight(name, weight * mask.astype(np.float32))

    def state(self) -> dict[str, Array]:
        """Return all that a step changes, and the masks: weights, and what the optimiser remembers of them; no sums,
        which are zero between two steps."""
        block = self.program.global_block()
        changed = {name for op in block.ops for name in op.output_arg_names}
        names = {v.name for v in self.program.list_vars() if v.persistable and not v.name.endswith(SUM)}
        return {name: self.student.weight(name) for name in sorted(names) if name in changed or name.endswith(_MASK)}

    def restore(self, state: Mapping[str, Array], step: int) -> None:
        """Go on from what `state` returned after some steps; `ValueError` where that was of another program."""
        for name in state:
            if name.endswith(_MASK):
                self.set_mask(name.removesuffix(_MASK), state[name])
        own, given = ({name: value.shape for name, value in each.items()} for each in (self.state(), state))
        if own != given:
            raise ValueError("the state is of another training program")
        for name, value in state.items():
            self.student.set_weight(name, value)
        for _ in range(step):
            self.rate.step()


def build(
    model: InferenceModel,
    scheme: Scheme | None,
    add_loss: AddLoss,
    trained: Collection[str],
    settings: TrainConfig,
    steps: int,
    *,
    masks: Mapping[str, Array] | None = None,
    ranges: LearnedRanges | None = None,
    in_parts: bool = False,
) -> TrainingProgram:
    """Return the training program of a model.

    Args:
        model: in fp32, with the weights to start from; not changed.
        scheme: what quantizes it in the forward pass; its biases and integers are where the student starts. None: the
            forward pass is in fp32.
        trained: names of the float32 weights that change.
        settings: of the optimiser; `steps` says how long training lasts.
        masks: for some of the trained weights, ones and zeros in their shapes: what is zero there stays zero.
        ranges: how the scheme's ranges train; None: they stay.
        in_parts: make steps by `step_in_parts`, for a model that does not take a whole batch at a time.
    """
    paddle.seed(settings.seed)
    together = processes()
    student = model.copy() if scheme is None else with_values(model, scheme)
    parameters = make_trainable(student, trained)
    begin = paddle.static.Program()
    with (
        paddle.static.scope_guard(student.scope),
        paddle.static.program_guard(student.program, begin),
        paddle.utils.unique_name.guard("training_"),
    ):
        factors = insert_learned(student, scheme, ranges) if scheme is not None and ranges is not None else {}
        parameters += factors.values()
        forward = student.ops
        if scheme is not None and ranges is None:
            leave_in_float([op for op in forward if op.output_arg_names[0] not in scheme.layers])
        loss = add_loss(student)  # which may rename the output of a layer
        leave_in_float([op for op in student.ops if op not in forward])
        stop_gradients(student, [parameter.name for parameter in parameters])
        rate = make_rate(settings, steps)
        minimiser = make_optimizer(settings, rate)
        if in_parts:
            loss = replace(loss, variable=weigh(loss.variable))
        gradients = minimiser.backward(loss.variable, parameters=parameters)
        optimising = paddle.static.Program() if in_parts else student.program
        with paddle.static.program_guard(optimising, begin):
            if in_parts:
                gradients, mean = gather(student, gradients, loss.variable)
                loss = replace(loss, variable=mean)
            if together.count > 1:
                gradients, mean = average(gradients, loss.variable)
                loss = replace(loss, variable=mean)
            minimiser.apply_gradients(gradients)
            if in_parts:
                reset()
        paddle.static.Executor(CPU).run(begin)
        program = student.program if scheme is None or ranges is not None else insert_qdq(student, scheme)
    use_onednn(program)
    names = {tensor: factor.name for tensor, factor in factors.items()}
    result = TrainingProgram(student, program, loss, [*trained, *names.values()], rate, scheme, names, together)
    if in_parts:
        result.program, result.backward = optimising, program
    for name, mask in (masks or {}).items():
        result.set_mask(name, mask)
    return result


def make_rate(settings: TrainConfig, steps: int) -> Any:
    """Return Paddle's learning-rate schedule, to be stepped after each of some steps of the optimiser."""
    schedule, learning_rate = settings.learning_rate_schedule, settings.learning_rate
    given = schedule.model_dump(exclude={"type", "warmup_steps"}, exclude_none=True)
    rate: Any
    if schedule.type == "constant":
        rate = paddle.optimizer.lr.MultiplicativeDecay(learning_rate, lambda _: 1.0)
    elif schedule.type == "PiecewiseDecay":
        rate = paddle.optimizer.lr.PiecewiseDecay(**given)
    else:
        if schedule.type in _LENGTHS:
            given = {_LENGTHS[schedule.type]: max(1, steps - schedule.warmup_steps), **given}
        rate = getattr(paddle.optimizer.lr, schedule.type)(learning_rate, **given)
    if schedule.warmup_steps:
        rate = paddle.optimizer.lr.LinearWarmup(rate, schedule.warmup_steps, start_lr=0.0, end_lr=learning_rate)
    return rate


def make_optimizer(settings: TrainConfig, rate: Any) -> Any:
    """Return Paddle's optimiser, with a rate of `make_rate`; gradients are clipped by their global norm."""
    name, weight_decay = settings.optimizer, settings.weight_decay
    decay = {_DECOUPLED.get(name, "weight_decay"): weight_decay} if name in _DECOUPLED or weight_decay else {}
    clip = paddle.nn.ClipGradByGlobalNorm(_LARGEST_GRADIENT)
    return getattr(paddle.optimizer, name)(learning_rate=rate, grad_clip=clip, **decay)


def trainable_weights(model: InferenceModel, scheme: Scheme | None) -> list[str]:
    """Return all that may train: weights of quantized layers (of all, without a scheme), biases, normalisations."""
    names = [] if scheme is None else [layer.weight for layer in quantized_layers(model, scheme)]
    for op in model.ops:
        if op.type in (_TRAINED_IN_FLOAT if scheme is None else _TRAINED_OPERATORS):
            names += [name for name in op.input_arg_names if model.is_weight(name)]
    return [name for name in dict.fromkeys(names) if model.dtype(name) == "float32"]


def sparse_masks(model: InferenceModel, names: Collection[str]) -> dict[str, Array]:
    """Return, for those of the weights that pruning left with zeros, float32 ones where they are not zero."""
    masks = {name: model.weight(name) != 0 for name in names}
    sparse = [name for name, mask in masks.items() if mask.ndim > 1 and 1 - mask.mean() >= _SPARSE]
    return {name: masks[name].astype(np.float32) for name in sparse}


def with_weights(model: InferenceModel, weights: Mapping[str, Array]) -> InferenceModel:
    """Return a copy of the model with these weights in the place of its own; what it has no place for is left out."""
    state = model.copy()
    for name, value in weights.items():
        if model.is_weight(name):
            state.set_weight(name, value)
    return state
