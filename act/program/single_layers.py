"""Programs of single layers side by side, each with an input, a bias and an output of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from act.program.layers import SLOTS
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.program.parts import with_ends


@dataclass(frozen=True)
class SingleLayer:
    """A layer: Paddle's type of the operator, its attributes, and its values."""

    op_type: str
    attributes: Mapping[str, Any]
    input: Sequence[int]  # the shape of what it reads, without the batch axis
    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]  # [output channels]


def side_by_side(layers: Sequence[SingleLayer]) -> InferenceModel:
    """Return the model of some layers: the first reads `x0` and the weight `w0`, makes `y0`, and with its bias `z0`."""
    program = paddle.static.Program()
    block = program.global_block()
    for n, layer in enumerate(layers):
        for name, values in ((f"w{n}", layer.weight), (f"b{n}", layer.bias)):
            block.create_var(name=name, shape=values.shape, dtype="float32", persistable=True)
        block.create_var(name=f"x{n}", shape=[-1, *layer.input], dtype="float32", is_data=True)
        for name in (f"y{n}", f"z{n}"):
            block.create_var(name=name, dtype="float32")
        activation, weight = SLOTS[layer.op_type]
        is_convolution = layer.weight.ndim == 4
        block.append_op(
            type=layer.op_type,
            inputs={activation: [f"x{n}"], weight: [f"w{n}"]},
            outputs={"Output" if is_convolution else "Out": [f"y{n}"]},
            attrs=dict(layer.attributes),
        )
        block.append_op(
            type="elementwise_add",
            inputs={"X": [f"y{n}"], "Y": [f"b{n}"]},
            outputs={"Out": [f"z{n}"]},
            attrs={"axis": 1 if is_convolution else -1},
        )
    feeds, fetches = ([f"{end}{n}" for n in range(len(layers))] for end in "xz")
    model = InferenceModel(with_ends(program, feeds, fetches), paddle.static.Scope(), feeds, fetches)
    for n, layer in enumerate(layers):
        model.set_weight(f"w{n}", layer.weight)
        model.set_weight(f"b{n}", layer.bias)
    return model
