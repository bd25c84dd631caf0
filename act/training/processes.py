"""Training by several processes that Paddle's own launcher starts: each takes its share of every batch.

    python -m paddle.distributed.launch --nproc_per_node 2 --backend gloo SCRIPT ARGUMENTS

Gradients are averaged inside the program, by `c_allreduce_sum` over gloo, all in one piece: the executor may run
several in another order in each process, and each would wait for the other for ever. Process 0 measures for all.
"""

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
    """The processes that train together: the number of this one, from 0, and how many there are."""

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
        mine: list[int] = np.array_split(np.asarray(batch), self.count)[self.rank].tolist()
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

    An environment of another launcher, or of several machines, is an `InputError`.
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
    """Add the averaging over all processes to the program under construction; the feed `SHARE` takes each one's share.

    Return the parameters with the averaged gradients, and the averaged loss; `pairs` are of the optimiser's `backward`.
    """
    share = paddle.static.data(SHARE, [1], "float32")
    flat = [paddle.reshape(gradient, [-1]) for _, gradient in pairs] + [paddle.reshape(loss, [1])]
    sizes = [int(np.prod(parameter.shape, dtype=np.int64)) for parameter, _ in pairs] + [1]
    whole = _append_sum(paddle.concat(flat) * share, "gradients@processes", sum(sizes))
    *parts, mean = paddle.split(whole, sizes)
    return [(parameter, paddle.reshape(part, parameter.shape)) for (parameter, _), part in zip(pairs, parts)], mean


def _append_sum(mine: Any, name: str, size: int) -> Any:
    """Add up a variable of all processes; return the sum."""
    whole = mine.block.create_var(name=name, shape=[size], dtype=mine.dtype, stop_gradient=True)
    attributes = {"ring_id": 0, "use_calc_stream": True}
    mine.block.append_op(type="c_allreduce_sum", inputs={"X": [mine]}, outputs={"Out": [whole]}, attrs=attributes)
    return whole


@functools.cache
def _sum() -> tuple[Any, Any]:
    """Return an executor, and the program that adds up one number of each process."""
    program = paddle.static.Program()
    with paddle.static.program_guard(program):
        _append_sum(paddle.static.data("mine", [1], "float64"), "whole", 1)
    return paddle.static.Executor(CPU), program
