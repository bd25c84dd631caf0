"""Steps made of parts, for a model that does not take a whole batch at a time: by two programs, in one scope.

The student's runs forward and backward for one part after the other, and adds gradients and loss up in variables that
stay. The optimiser's runs once, on these sums, and sets them back to zero.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.training.graph import make_parameter

SUM = "@sum"
WEIGHT = "weight@parts"


def weigh(loss: Any) -> Any:
    """Return the loss, and so its gradients, times the part's share of the samples, which the feed `WEIGHT` takes."""
    return loss * paddle.static.data(WEIGHT, [], "float32")


def gather(student: InferenceModel, pairs: Sequence[tuple[Any, Any]], loss: Any) -> tuple[list[tuple[Any, Any]], Any]:
    """Let the student's program add up its gradients and loss over its runs.

    Return the parameters with the sums of their gradients, and the sum of the losses, in the program under
    construction, which is the optimiser's; `pairs` are of the optimiser's `backward`.
    """
    block = paddle.static.default_main_program().global_block()
    gathered = []
    for parameter, gradient in pairs:
        _declare(parameter.name, parameter.shape)
        more = {"optimize_attr": parameter.optimize_attr, "regularizer": parameter.regularizer}
        mine = make_parameter(block, parameter.name, **more)
        gathered.append((mine, _add_up(student, gradient, parameter.shape)))
    return gathered, paddle.assign(_add_up(student, loss, loss.shape))


def reset() -> None:
    """Set all sums back to zero, at the end of the program under construction."""
    block = paddle.static.default_main_program().global_block()
    for total in [variable for name, variable in block.vars.items() if name.endswith(SUM)]:
        block.append_op(type="fill_zeros_like", inputs={"X": [total]}, outputs={"Out": [total]})


def _add_up(student: InferenceModel, value: Any, shape: Sequence[int]) -> Any:
    """Add a variable of the student's program to its sum; return that, in the program under construction."""
    name = student.add_weight(f"{value.name}{SUM}", np.zeros(shape, dtype=np.float32))
    total = value.block.var(name)
    value.block.append_op(type="sum", inputs={"X": [total, value]}, outputs={"Out": [total]})
    return _declare(name, shape)


def _declare(name: str, shape: Sequence[int]) -> Any:
    block = paddle.static.default_main_program().global_block()
    return block.create_var(name=name, shape=shape, dtype="float32", persistable=True)
