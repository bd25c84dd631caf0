"""The number of units that go of each group: by how far the outputs move without them, and by what that saves.

Channels are taken in blocks, on which engines work, where the error on a few unlabelled samples grows least for each
MAC that is saved (as in NetAdapt, Yang et al., 2018, with an estimate in the place of each measurement).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from act import machine
from act.metrics import squared_error
from act.program.outputs import real_outputs
from act.pruning.cutter import Cutter, Gone
from act.pruning.groups import Group
from act.pruning.macs import Macs
from act.samples.dataset import Samples

RATIOS = (0.25, 0.5, 0.75, 0.875)
"""Shares of a group that are tried, each alone; more than the last is never pruned."""
SAMPLES = 16

# Blocks of channels that a group must have for whole blocks to be taken from it.
_LEAST_BLOCKS = 4


def block_of(group: Group) -> int:
    """Return the number of units that are pruned at a time: 16 where the CPU works on so many numbers at once, else 8;
    less for small groups, and one for heads."""
    if group.kind == "heads":
        return 1
    block = 16 if "avx512f" in machine.cpu_flags() else 8
    while block > 1 and group.count < _LEAST_BLOCKS * block:
        block //= 2
    return block


def in_blocks(group: Group, ratio: float) -> int:
    """Return how many units go for a ratio, so that whole blocks stay; one block at least stays."""
    block = block_of(group)
    kept = max(block, round(group.count * (1 - ratio) / block) * block)
    return group.count - min(kept, group.count)


@dataclass(frozen=True)
class Curve:
    """The outputs' relative squared error, never falling, by how many units of a group go alone, zero first."""

    gone: tuple[int, ...]
    errors: tuple[float, ...]

    def at(self, gone: int) -> float:
        """Return the error at a number of units, between those measured on a line."""
        return float(np.interp(gone, self.gone, self.errors))


def measure_curves(cutter: Cutter, groups: Sequence[Group], samples: Samples) -> dict[str, Curve]:
    """Return the curve of every group, by its key; the error is a share of the whole model's mean square."""
    names = real_outputs(cutter.model)
    batches = list(samples.head(SAMPLES).batches(SAMPLES))
    outputs = [cutter.model.run(batch, names) for batch in batches]

    def error_without(gone: Gone) -> float:
        smaller = cutter.cut(gone)
        errors = [squared_error(smaller.run(batch, names), wanted) for batch, wanted in zip(batches, outputs)]
        smaller.discard()
        return sum(errors) / len(errors)

    curves = {}
    for group in tqdm(groups, desc="sensitivity", unit="group"):
        gone, errors = [0], [0.0]
        for ratio in RATIOS:
            count = in_blocks(group, ratio)
            if count > gone[-1]:
                error = error_without({group.key: count})
                gone.append(count)
                errors.append(max(errors[-1], error if np.isfinite(error) else 1.0))
        curves[group.key] = Curve(tuple(gone), tuple(errors))
    return curves


def choose_for_macs(groups: Sequence[Group], curves: Mapping[str, Curve], macs: Macs, share: float) -> Gone:
    """Return how many units of each group go, so that the MACs fall to a share, for the least error by the curves."""
    gone: Gone = {group.key: 0 for group in groups}
    left, target = macs.left(gone), share * macs.total
    while left > target:
        best: tuple[float, Group, int, float] | None = None
        for group in groups:
            curve, already = curves[group.key], gone[group.key]
            step = _next_step(group, already, curve)
            saved = macs.saved(gone, group, step) if step else 0.0
            if saved > 0:
                price = (curve.at(already + step) - curve.at(already)) / saved
                if best is None or price < best[0]:
                    best = (price, group, step, saved)
        if best is None:
            break
        _, group, step, saved = best
        gone[group.key] += step
        left -= saved
    return gone


def _next_step(group: Group, gone: int, curve: Curve) -> int:
    """Return how many units go together next; 0 where no more may."""
    block = block_of(group)
    step = (group.count - gone) % block or block
    return step if gone + step <= curve.gone[-1] else 0
