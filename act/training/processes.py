"""Training by several processes that Paddle's own launcher starts: each takes its share of every batch.

    python -m paddle.distributed.launch --nproc_per_node 2 --backend gloo SCRIPT ARGUMENTS

The launcher tells each process its number in the environment. Gradients are averaged inside the program, by Paddle's
`c_allreduce_sum` over gloo, all in one piece: the executor may run several in another order in each process, and each
would wait for the other for ever. Process 0 measures, and its figures are everybody's.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from act.errors import InputError
from act.program.paddle_setup import CPU, paddle

SHARE = "share@processes"


@dataclass(frozen=True)
class Processes:
    """Those that train together.

    Attributes:
        rank: the number of this one, from 0.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Tell whether this is the one that measures and writes."""
        return self.rank == 0

    def share(self, batch: Sequence[int]) -> tuple[Sequence[int], float]:
        """Return this process's samples of a batch, and their share of the gradient; all samples where they are fewer
        than the processes."""
        if len(batch) < self.count:
            return batch, 1 / self.count
        mine = [int(index) for index in np.array_split(np.asarray(batch), self.count)[self.rank]]
        return mine, len(mine) / len(batch)

    def agree(self, value: float) -> float:
        """Return in every process what process 0 gives; all must call."""
        if self.count == 1:
            return value
        executor, program = _sum()
        feed = {"mine": np.array([value if self.first else 0.0], dtype=np.float64)}
        (total,) = executor.run(program, feed=feed, fetch_list=["whole"])
        return float(total[0])


@functools.cache
def processes() -> Processes:
    """Return the processes that the launcher's environment names, connected with one another; one where it names none.

    Raises:
        InputError: the environment is of another launcher, or of several machines.
    """
    count = os.environ.get("PADDLE_TRAINERS_NUM", "1")
    if count == "1":
        return Processes()
    rank, endpoints = os.environ.get("PADDLE_TRAINER_ID", ""), os.environ.get("PADDLE_TRAINER_ENDPOINTS", "").split(",")
    if not (count.isdigit() and rank.isdigit() and int(rank) < int(count) == len(endpoints)):
        raise InputError(
            f"PADDLE_TRAINERS_NUM is {count!r:.40}, PADDLE_TRAINER_ID {rank!r:.40}, and PADDLE_TRAINER_ENDPOINTS names "
            f"{len(endpoints)}: start the processes with `python -m paddle.distributed.launch`, or unset all three"
        )
    if len({endpoint.rsplit(":", 1)[0] for endpoint in endpoints}) > 1:
        raise InputError("PADDLE_TRAINER_ENDPOINTS names several machines; processes of one machine can train together")
    paddle.distributed.gloo_init_parallel_env(int(rank), int(count), endpoints[0])
    return Processes(int(rank), int(count))


def average(pairs: Sequence[tuple[Any, Any]], loss: Any) -> tuple[list[tuple[Any, Any]], Any]:
    """Add the averaging of gradients to the program under construction.

    Args:
        pairs: of the optimiser's `backward`: each parameter and its gradient.
        loss: variable of this process's loss.

    Returns:
        The parameters with the averaged gradients, and the averaged loss. The feed `SHARE` takes each process's share.
    """
    share = paddle.static.data(SHARE, [1], "float32")
    flat = [paddle.reshape(gradient, [-1]) for _, gradient in pairs] + [paddle.reshape(loss, [1])]
    sizes = [int(np.prod(parameter.shape, dtype=np.int64)) for parameter, _ in pairs] + [1]
    mine = paddle.concat(flat) * share
    whole = mine.block.create_var(name="gradients@processes", shape=[sum(sizes)], dtype="float32", stop_gradient=True)
    _append_sum(mine, whole)
    *parts, mean = paddle.split(whole, sizes)
    averaged = [(parameter, paddle.reshape(part, parameter.shape)) for (parameter, _), part in zip(pairs, parts)]
    return averaged, mean


def _append_sum(mine: Any, whole: Any) -> None:
    mine.block.append_op(
        type="c_allreduce_sum",
        inputs={"X": [mine]},
        outputs={"Out": [whole]},
        attrs={"ring_id": 0, "use_calc_stream": True},
    )


@functools.cache
def _sum() -> tuple[Any, Any]:
    """Return an executor, and the program that adds up one number of each process."""
    program = paddle.static.Program()
    with paddle.static.program_guard(program):
        mine = paddle.static.data("mine", [1], "float64")
        whole = mine.block.create_var(name="whole", shape=[1], dtype="float64")
        _append_sum(mine, whole)
    return paddle.static.Executor(CPU), program
