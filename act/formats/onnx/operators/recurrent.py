"""Recurrent layers: by Paddle's `rnn` operator where it computes the same, else step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from act.formats.onnx.dimension import Dimension
from act.formats.onnx.node import Node, Refused, Variable
from act.formats.onnx.operators.registry import operator
from act.formats.onnx.operators.windows import settle_length
from act.program.paddle_setup import paddle

F = paddle.nn.functional
_ORDERS = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""Where Paddle's gates are in ONNX's: input, output, forget, cell; update, reset, hidden."""
_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_FUNCTIONS: dict[str, Callable[[Variable], Variable]] = {
    "sigmoid": F.sigmoid,
    "tanh": F.tanh,
    "relu": F.relu,
    "softsign": F.softsign,
    "softplus": F.softplus,
}
_MOST_STEPS = 256
_WEIGHT, _RECURRENT, _BIAS, _LENGTHS, _HIDDEN, _CELL, _PEEPHOLES = range(1, 8)


@dataclass(frozen=True)
class _Layer:
    """A recurrent node, its input with time first.

    Attributes:
        node: the node.
        x: the input, [steps, batch, features].
        kind: `LSTM`, `GRU` or `RNN`.
        directions: `forward`, `reverse`, or both.
        hidden: the number of hidden units.
        activations: the names of the functions of each direction.
    """

    node: Node
    x: Variable
    kind: str
    directions: tuple[str, ...]
    hidden: int
    activations: tuple[tuple[str, ...], ...]

    @property
    def gates(self) -> int:
        return len(_ORDERS[self.kind])

    def state(self, index: int) -> Variable:
        """Return the first state, [directions, batch, hidden]: an input, or zeros."""
        if self.node.has(index):
            given = self.node.tensor(index)
            given = paddle.transpose(given, [1, 0, 2]) if self.node.attribute("layout", 0) else given
            self.share_batch(given, 1)
            return given
        attributes = {
            "shape": [len(self.directions), -1, self.hidden],
            "value": 0.0,
            "input_dim_idx": 1,
            "output_dim_idx": 1,
            "dtype": self.x.desc.dtype(),
        }
        zeros = self.node.graph.op("fill_constant_batch_size_like", {"Input": [self.x]}, attributes, self.x.dtype)
        zeros.stop_gradient = True
        return zeros

    def share_batch(self, variable: Variable, axis: int) -> None:
        """Note that an axis of another input is as long as the batch, which one of them may say alone."""
        settle_length(self.x, 1, int(variable.shape[axis]))
        settle_length(variable, axis, int(self.x.shape[1]))

    def part(self, index: int, direction: int, gates: Sequence[int], transposed: bool = False) -> Variable:
        """Return some gates of a weight, recurrent weight or half of a bias, in this order.

        An index below 0 is that of the bias's second half, which is added to the recurrent product.
        """
        second = index < 0
        index = abs(index)
        name = {_WEIGHT: "weight", _RECURRENT: "recurrent_weight", _BIAS: "recurrent_bias" if second else "bias"}
        label = f"{self.node.outputs[0] or self.node.outputs[-1]}.{self.directions[direction]}.{name[index]}"
        if not self.node.has(index):
            return self.node.graph.weight(np.zeros(len(gates) * self.hidden, np.float32), label)
        offset = self.gates if second else 0
        rows = [slice((offset + gate) * self.hidden, (offset + gate + 1) * self.hidden) for gate in gates]
        if self.node.is_constant(index):
            value = self.node.value(index)[direction]
            chosen = np.concatenate([value[each] for each in rows])
            return self.node.graph.weight(np.ascontiguousarray(chosen.T if transposed else chosen), label)
        whole = self.node.tensor(index)
        taken = [
            paddle.squeeze(paddle.slice(whole, [0, 1], [direction, each.start], [direction + 1, each.stop]), [0])
            for each in rows
        ]
        joined = paddle.concat(taken) if len(taken) > 1 else taken[0]
        return paddle.transpose(joined, [1, 0]) if transposed else joined


@operator("LSTM", "GRU", "RNN")
def recurrent(node: Node) -> tuple[Variable, ...]:
    layer = _layer(node)
    mode = _paddles_mode(layer)
    results = _step_by_step(layer) if mode is None else _by_paddle(layer, mode)
    if not node.attribute("layout", 0):
        return results
    return (paddle.transpose(results[0], [2, 0, 1, 3]), *(paddle.transpose(each, [1, 0, 2]) for each in results[1:]))


def _layer(node: Node) -> _Layer:
    if node.rank(0) != 3:
        raise Refused("its input has not three axes; export the model again")
    x = node.tensor(0)
    direction = node.attribute("direction", "forward")
    directions = ("forward", "reverse") if direction == "bidirectional" else (direction,)
    names = node.attribute("activations") or _DEFAULTS[node.type] * len(directions)
    each = len(names) // len(directions)
    layer = _Layer(
        node,
        paddle.transpose(x, [1, 0, 2]) if node.attribute("layout", 0) else x,
        node.type,
        directions,
        node.attribute("hidden_size") or node.static_shape(_RECURRENT, "recurrent weight")[-1],
        tuple(tuple(name.lower() for name in names[at * each : (at + 1) * each]) for at in range(len(directions))),
    )
    _check_weights(layer)
    return layer


def _check_weights(layer: _Layer) -> None:
    """Refuse weights that do not fit the layer; with such Paddle's kernel writes past the end of its memory."""
    rows = layer.gates * layer.hidden
    shapes = {_WEIGHT: (rows, int(layer.x.shape[2])), _RECURRENT: (rows, layer.hidden), _BIAS: (2 * rows,)}
    for index, lengths in shapes.items():
        if not layer.node.has(index):
            continue
        found, wanted = layer.node.shape(index), (len(layer.directions), *lengths)
        if len(found) != len(wanted) or any(
            isinstance(have, int) and min(have, want) >= 0 and have != want for have, want in zip(found, wanted)
        ):
            raise Refused(f"its weights have shape {found}, where {list(wanted)} fits; export the model again")


def _paddles_mode(layer: _Layer) -> str | None:
    """Return the mode in which Paddle computes the same; None where there is none."""
    node = layer.node
    if node.attribute("clip") or node.attribute("input_forget", 0) or node.has(_PEEPHOLES):
        return None
    # Paddle takes the lengths of sequences, but Paddle2ONNX leaves them out.
    if _lengths(layer) is not None:
        return None
    used = set(layer.activations)
    if layer.kind == "RNN" and used in ({("tanh",)}, {("relu",)}):
        # Paddle2ONNX does not write this mode; step by step it does.
        if 0 < layer.x.shape[0] <= _MOST_STEPS:
            return None
        return f"RNN_{used.pop()[0].upper()}"
    if used != {tuple(name.lower() for name in _DEFAULTS[layer.kind])}:
        return None
    # Paddle resets what the recurrent weights computed, not what they read.
    return None if layer.kind == "GRU" and not node.attribute("linear_before_reset", 0) else layer.kind


def _by_paddle(layer: _Layer, mode: str) -> tuple[Variable, ...]:
    states = [layer.state(_HIDDEN)] + ([layer.state(_CELL)] if layer.kind == "LSTM" else [])
    x, order, places = layer.x, _ORDERS[layer.kind], list(range(len(layer.directions)))
    turn = _reversal(layer) if layer.directions == ("reverse",) else None
    half = layer.directions == ("reverse",) and turn is None
    if half:
        # No operator turns an axis of unknown length round, both in Paddle and by Paddle2ONNX, but a layer of both
        # directions does; the first half of its results is left out.
        places, states = [0, 0], [paddle.concat([each, each]) for each in states]
    weights = [layer.part(index, at, order) for at in places for index in (_WEIGHT, _RECURRENT)]
    biases = [layer.part(index, at, order) for at in places for index in (_BIAS, -_BIAS)]
    x = x if turn is None else paddle.gather(x, turn, 0)
    out, *final = _rnn(layer, x, [*weights, *biases], states, mode)
    if len(places) == 1:
        return (paddle.unsqueeze(out if turn is None else paddle.gather(out, turn, 0), [1]), *final)
    y = paddle.transpose(paddle.reshape(out, [0, 0, 2, layer.hidden]), [0, 2, 1, 3])
    if half:
        return (paddle.slice(y, [1], [1], [2]), *(paddle.slice(each, [0], [1], [2]) for each in final))
    return (y, *final)


def _reversal(layer: _Layer) -> Variable | None:
    """Return the numbers of the steps from the last to the first; None where it is not known how many there are."""
    steps = int(layer.x.shape[0])
    return layer.node.graph.weight(np.arange(steps)[::-1].copy()) if steps > 0 else None


def _rnn(
    layer: _Layer, x: Variable, weights: Sequence[Variable], states: Sequence[Variable], mode: str
) -> list[Variable]:
    """Append Paddle's operator; return its output, [steps, batch, directions * hidden], and its last states."""
    block = layer.node.graph.block

    def new(dtype: Any) -> Variable:
        return block.create_var(name=paddle.utils.unique_name.generate("rnn"), dtype=dtype)

    out, final = new(x.dtype), [new(x.dtype) for _ in states]
    block.append_op(
        type="rnn",
        inputs={"Input": [x], "WeightList": list(weights), "PreState": list(states)},
        outputs={"Out": [out], "State": final, "Reserve": [new("uint8")], "DropoutState": [new("uint8")]},
        attrs={
            "dropout_prob": 0.0,
            "is_bidirec": len(weights) == 8,
            "input_size": int(x.shape[2]),
            "hidden_size": layer.hidden,
            "num_layers": 1,
            "mode": mode,
            "is_test": True,
        },
    )
    return [out, *final]


def _lengths(layer: _Layer) -> Variable | None:
    """Return the lengths of the sequences; None where all are as long as the input."""
    node = layer.node
    if not node.has(_LENGTHS):
        return None
    if node.is_constant(_LENGTHS) and (node.value(_LENGTHS) == layer.x.shape[0]).all():
        return None
    lengths = node.tensor(_LENGTHS)
    layer.share_batch(lengths, 0)
    return paddle.cast(lengths, "int32")


# Step by step.


def _step_by_step(layer: _Layer) -> tuple[Variable, ...]:
    steps = layer.x.shape[0]
    if isinstance(layer.node.shape(0)[1 if layer.node.attribute("layout", 0) else 0], Dimension) or steps > _MOST_STEPS:
        raise Refused(
            "it is of a kind that Paddle computes step by step alone (peepholes, other activations, sequences "
            "of several lengths, or a GRU without `linear_before_reset`), and has not a fixed number of steps up to "
            f"{_MOST_STEPS}; export the model with one"
        )
    if layer.node.attribute("input_forget", 0) or layer.node.attribute("clip"):
        raise Refused("it couples gates (`input_forget`) or limits them (`clip`); export the model without that")
    within = _within(layer, int(steps))
    runs = [_run(layer, direction, within) for direction in range(len(layer.directions))]
    first, *others = ([run[part] for run in runs] for part in range(len(runs[0])))
    return (paddle.stack(first, axis=1), *(paddle.stack(each, axis=0) for each in others))


def _within(layer: _Layer, steps: int) -> Variable | None:
    """Return 1 for each step that lies in its sequence, else 0, as [steps, batch, 1]; None where all do."""
    lengths = _lengths(layer)
    if lengths is None:
        return None
    numbers = layer.node.graph.weight(np.arange(steps, dtype=np.int32)[:, None])
    within = paddle.less_than(numbers, paddle.unsqueeze(lengths, [0]))
    return paddle.cast(paddle.unsqueeze(within, [2]), layer.x.dtype)


def _run(layer: _Layer, direction: int, within: Variable | None) -> tuple[Variable, ...]:
    """Return all outputs of a direction, [steps, batch, hidden], and its last states, [batch, hidden].

    Behind the end of a sequence outputs are 0, and states stay.
    """
    order = tuple(range(layer.gates))
    steps = int(layer.x.shape[0])
    projected = _affine(layer.x, layer, _WEIGHT, _BIAS, direction, order)
    inputs = [_at(projected, at) for at in range(steps)]
    indices = (_HIDDEN, _CELL) if layer.kind == "LSTM" else (_HIDDEN,)
    states = [_at(layer.state(index), direction) for index in indices]
    step = {"LSTM": _lstm_step, "GRU": _gru_step, "RNN": _rnn_step}[layer.kind](layer, direction)
    outputs: list[Any] = [None] * steps
    for at in range(steps) if layer.directions[direction] == "forward" else reversed(range(steps)):
        after = step(inputs[at], *states)
        if within is not None:
            now = _at(within, at)
            outputs[at] = paddle.multiply(after[0], now)
            changes = [paddle.subtract(new, old) for new, old in zip(after, states)]
            after = [paddle.add(old, paddle.multiply(change, now)) for old, change in zip(states, changes)]
        else:
            outputs[at] = after[0]
        states = after
    return (paddle.stack(outputs, axis=0), *states)


def _at(x: Variable, index: int) -> Variable:
    """Return one of the tensors that lie along the first axis."""
    return paddle.squeeze(paddle.slice(x, [0], [index], [index + 1]), [0])


def _affine(x: Variable, layer: _Layer, weight: int, bias: int, direction: int, gates: Sequence[int]) -> Variable:
    return paddle.add(paddle.matmul(x, layer.part(weight, direction, gates, True)), layer.part(bias, direction, gates))


def _rnn_step(layer: _Layer, direction: int) -> Callable[..., list[Variable]]:
    (f,) = _functions(layer, direction)
    weight, bias = layer.part(_RECURRENT, direction, (0,), True), layer.part(-_BIAS, direction, (0,))

    def step(x: Variable, hidden: Variable) -> list[Variable]:
        return [f(paddle.add(x, paddle.add(paddle.matmul(hidden, weight), bias)))]

    return step


def _lstm_step(layer: _Layer, direction: int) -> Callable[..., list[Variable]]:
    f, g, h = _functions(layer, direction)
    gates = (0, 1, 2, 3)
    weight, bias = layer.part(_RECURRENT, direction, gates, True), layer.part(-_BIAS, direction, gates)
    peepholes = _peepholes(layer, direction)

    def peeped(gate: Variable, place: int, cell: Variable) -> Variable:
        return gate if peepholes is None else paddle.add(gate, paddle.multiply(cell, peepholes[place]))

    def step(x: Variable, hidden: Variable, cell: Variable) -> list[Variable]:
        total = paddle.add(x, paddle.add(paddle.matmul(hidden, weight), bias))
        take, give, forget, new = paddle.split(total, 4, axis=-1)
        take, forget = f(peeped(take, 0, cell)), f(peeped(forget, 2, cell))
        cell = paddle.add(paddle.multiply(forget, cell), paddle.multiply(take, g(new)))
        return [paddle.multiply(f(peeped(give, 1, cell)), h(cell)), cell]

    return step


def _peepholes(layer: _Layer, direction: int) -> list[Variable] | None:
    """Return the weights from the cell to the input, output and forget gate."""
    node, size = layer.node, layer.hidden
    if not node.has(_PEEPHOLES):
        return None
    whole = node.tensor(_PEEPHOLES)
    return [
        paddle.squeeze(paddle.slice(whole, [0, 1], [direction, at * size], [direction + 1, (at + 1) * size]), [0])
        for at in range(3)
    ]


def _gru_step(layer: _Layer, direction: int) -> Callable[..., list[Variable]]:
    f, g = _functions(layer, direction)
    resets_after = bool(layer.node.attribute("linear_before_reset", 0))
    gates_weight, gates_bias = layer.part(_RECURRENT, direction, (0, 1), True), layer.part(-_BIAS, direction, (0, 1))
    weight, bias = layer.part(_RECURRENT, direction, (2,), True), layer.part(-_BIAS, direction, (2,))

    def step(x: Variable, hidden: Variable) -> list[Variable]:
        gates, candidate = paddle.split(x, [2 * layer.hidden, layer.hidden], axis=-1)
        gates = f(paddle.add(gates, paddle.add(paddle.matmul(hidden, gates_weight), gates_bias)))
        update, reset = paddle.split(gates, 2, axis=-1)
        if resets_after:
            past = paddle.multiply(reset, paddle.add(paddle.matmul(hidden, weight), bias))
        else:
            past = paddle.add(paddle.matmul(paddle.multiply(reset, hidden), weight), bias)
        new = g(paddle.add(candidate, past))
        return [paddle.add(new, paddle.multiply(update, paddle.subtract(hidden, new)))]

    return step


def _functions(layer: _Layer, direction: int) -> list[Callable[[Variable], Variable]]:
    """Return the activations of a direction, what they are given cut off at `clip`."""
    names = layer.activations[direction]
    unknown = sorted(set(names) - _FUNCTIONS.keys())
    if unknown or layer.node.attribute("activation_alpha") or layer.node.attribute("activation_beta"):
        raise Refused(
            f"its activations {', '.join(unknown or names)} are not among those of Paddle; export it with others"
        )
    return [_FUNCTIONS[name] for name in names]
