"""How much of each group goes: by how far the outputs move when it is pruned alone, and by what that saves.

The sensitivity needs no labels: the error of the outputs to the whole model's, on a few calibration samples. Channels
are then taken, a step at a time, where the error grows least for each MAC that is saved (as in NetAdapt, Yang
et al., 2018, with an estimate in the place of each measurement), until the model is cheap enough. Engines work on
blocks of channels, so that a step is a block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from act import machine
from act.metrics import squared_error
from act.program.model import InferenceModel
from act.program.outputs import real_outputs
from act.pruning.compensate import compensated
from act.pruning.cost import Costs
from act.pruning.groups import Group, Plan
from act.pruning.input_statistics import Floats, InputStatistics
from act.pruning.shrink import shrink
from act.samples.dataset import Array, Samples

RATIOS = (0.25, 0.5, 0.75, 0.875)
"""Shares of a group that are tried, each alone; more than the last is never pruned."""

SAMPLES = 16
MEASUREMENTS = 8
NEAR_ENOUGH = 0.03
"""Speed beyond the target that is not worth another measurement."""

LEAST_COST = 0.05
"""Share of the MACs below which nothing more is tried for the sake of a speed-up."""

# Blocks of channels that a group must have for whole blocks to be taken from it.
_LEAST_BLOCKS = 4

Gone = dict[str, int]


def block_of(group: Group) -> int:
    """The block of channels that is pruned at a time: 16 where the CPU works on so many numbers at once, else 8; less
    for small groups, and one for heads."""
    if group.kind == "heads":
        return 1
    block = 16 if "avx512f" in machine.cpu_flags() else 8
    while block > 1 and group.count < _LEAST_BLOCKS * block:
        block //= 2
    return block


def in_blocks(group: Group, ratio: float) -> int:
    """How many units go for a ratio, so that whole blocks stay; one block at least stays."""
    block = block_of(group)
    kept = max(block, round(group.count * (1 - ratio) / block) * block)
    return group.count - min(kept, group.count)


@dataclass(frozen=True)
class Curve:
    """How the outputs' error grows as a group is pruned alone.

    Attributes:
        gone: units, ascending, zero first.
        errors: relative squared error of the outputs, never falling.
    """

    gone: tuple[int, ...]
    errors: tuple[float, ...]

    def at(self, gone: int) -> float:
        """The error at a number of units, between those measured on a line."""
        return float(np.interp(gone, self.gone, self.errors))


class Sensitivity:
    """Measures how far a model's outputs move.

    Args:
        model: the whole one.
        samples: for calibration.
    """

    def __init__(self, model: InferenceModel, samples: Samples) -> None:
        self._names = real_outputs(model)
        self._batches = list(samples.head(SAMPLES).batches(SAMPLES))
        self._wanted = [model.run(batch, self._names) for batch in self._batches]

    def error(self, model: InferenceModel) -> float:
        """The squared error of a smaller model's outputs, as a share of the whole model's mean square."""
        errors = [
            squared_error(model.run(batch, self._names), wanted) for batch, wanted in zip(self._batches, self._wanted)
        ]
        return sum(errors) / len(errors)


def least_important(scores: Floats, count: int) -> list[int]:
    """The numbers of the units of lowest score, ascending."""
    return sorted(int(number) for number in np.argsort(scores, kind="stable")[:count])


def measure_curves(
    model: InferenceModel,
    plan: Plan,
    groups: Sequence[Group],
    scores: Mapping[str, Floats],
    inputs: Mapping[str, InputStatistics],
    samples: Samples,
    progress: Callable[[], object],
) -> dict[str, Curve]:
    """The curve of every group, by `key`.

    Args:
        scores: importance of each group's units, by `key`.
        progress: told after each group.
    """
    sensitivity = Sensitivity(model, samples)
    curves = {}
    for group in groups:
        gone, errors = [0], [0.0]
        for ratio in RATIOS:
            count = in_blocks(group, ratio)
            if count > gone[-1]:
                removed = {group.key: least_important(scores[group.key], count)}
                filled = compensated(model, plan, removed, inputs)
                smaller = shrink(filled, plan, removed)
                error = sensitivity.error(smaller)
                filled.discard()
                smaller.discard()
                gone.append(count)
                errors.append(max(errors[-1], error if np.isfinite(error) else 1.0))
        curves[group.key] = Curve(tuple(gone), tuple(errors))
        progress()
    return curves


def for_cost(groups: Sequence[Group], curves: Mapping[str, Curve], costs: Costs, share: float) -> Gone:
    """How many units of each group go, so that the MACs fall to a share, for the least error by the curves."""
    gone: Gone = {group.key: 0 for group in groups}
    cost, wanted = costs.of(gone), share * costs.total
    while cost > wanted:
        best: tuple[float, Group, int, float] | None = None
        for group in groups:
            name = group.key
            step = _next_step(group, gone[name], curves[name])
            if step == 0:
                continue
            saved = costs.saved(gone, group, step)
            if saved <= 0:
                continue
            price = (curves[name].at(gone[name] + step) - curves[name].at(gone[name])) / saved
            if best is None or price < best[0]:
                best = (price, group, step, saved)
        if best is None:
            break
        _, group, step, saved = best
        gone[group.key] += step
        cost -= saved
    return gone


def _next_step(group: Group, gone: int, curve: Curve) -> int:
    """The next units that go together; 0 where no more may."""
    block = block_of(group)
    step = (group.count - gone) % block or block
    return step if gone + step <= curve.gone[-1] else 0


@dataclass(frozen=True)
class Reached:
    """What a search for a speed-up ended with.

    Attributes:
        gone: units of each group.
        share: of the MACs that is left.
        speedup: measured.
        measurements: how many were made.
    """

    gone: Gone
    share: float
    speedup: float
    measurements: int


def for_speedup(
    wanted: float,
    plan_for: Callable[[float], Gone],
    speedup_of: Callable[[Gone], float],
    first_share: float | None = None,
) -> Reached:
    """The least that must go for a measured speed-up, found over the share of MACs that is left; the fastest
    that was seen, where none is fast enough.

    Args:
        wanted: speed-up over the whole model.
        plan_for: how many units go for a share.
        speedup_of: measures a smaller model.
        first_share: to begin with; as if all latency were MACs when left out.
    """
    whole = plan_for(1.0)
    slow = Reached(whole, 1.0, speedup_of(whole), 1)
    if slow.speedup >= wanted:
        return slow
    share = min(0.95, slow.speedup / wanted) if first_share is None else first_share
    reached: Reached | None = None
    fastest: Reached | None = None
    seen: list[Gone] = []
    for number in range(2, MEASUREMENTS + 1):
        gone = plan_for(share)
        if gone in seen:
            break
        seen.append(gone)
        found = Reached(gone, share, speedup_of(gone), number)
        if fastest is None or found.speedup > fastest.speedup:
            fastest = found
        if found.speedup >= wanted:
            reached = found if reached is None or found.share > reached.share else reached
            if found.speedup <= wanted * (1 + NEAR_ENOUGH):
                break
        elif found.share < slow.share:
            slow = found
        if reached is not None and slow.share <= reached.share:
            break  # what is slower has less to do: they differ by no more than what is uncertain
        share = _next_share(wanted, reached, slow)
    result = reached or fastest
    assert result is not None
    return Reached(result.gone, result.share, result.speedup, 1 + len(seen))


def _next_share(wanted: float, fast: Reached | None, slow: Reached) -> float:
    """Between what is fast enough and what is not, as if latency grew with the share on a line; else a little farther
    than as if it were in proportion to it."""
    if fast is None:
        return max(LEAST_COST, slow.share * slow.speedup / wanted * 0.95)
    aim = 1 / (wanted * (1 + NEAR_ENOUGH / 2))
    part = (aim - 1 / fast.speedup) / (1 / slow.speedup - 1 / fast.speedup)
    return fast.share + (slow.share - fast.share) * min(max(part, 0.1), 0.9)


def first_batch(samples: Samples) -> Mapping[str, Array]:
    """One sample, for the count of MACs."""
    return next(samples.head(1).batches(1))
