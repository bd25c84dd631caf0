"""The number of units that go of each group: by how far the outputs move without them, and by what that saves.

Channels are taken in blocks, on which engines work, where the error on a few unlabelled samples grows least for each
MAC that is saved (as in NetAdapt, Yang et al., 2018, with an estimate in the place of each measurement).
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from act import machine
from act.comparison import Comparison, mean_errors, over_outputs
from act.program.costs import layer_macs
from act.program.graph import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS, main_output
from act.program.outputs import real_outputs
from act.pruning.groups import Gone, Group, Plan
from act.pruning.shrink import Cutter
from act.pruning.trace import Axes, Trace
from act.samples.dataset import Array, Samples

RATIOS = (0.25, 0.5, 0.75, 0.875)
"""Shares of a group that are tried, each alone; more than the last is never pruned."""
SAMPLES = 16

# Blocks of channels that a group must have for whole blocks to be taken from it.
_LEAST_BLOCKS = 4
# MACs of a layer, and for each axis that they are proportional to, the share of it that a unit of a group is, by group.
_Layer = tuple[int, list[dict[str, float]]]


class Macs:
    """The MACs of a model, for a batch of one sample, as a function of how many units of each group are gone."""

    def __init__(self, plan: Plan, batch: Mapping[str, Array]) -> None:
        trace = plan.trace
        owners = {unit: group.key for group in plan.groups for unit in group.units}
        self._layers: list[_Layer] = []
        self._of_group: dict[str, list[_Layer]] = defaultdict(list)
        for name, macs in layer_macs(trace.model, batch).items():
            axes = []
            for axis in _proportional_axes(trace, trace.model.producer(name)):
                counts = Counter(trace.roots(axis))
                shares: dict[str, float] = {}
                for root, count in counts.items():
                    if root in owners:
                        shares[owners[root]] = max(shares.get(owners[root], 0.0), count / counts.total())
                if shares:
                    axes.append(shares)
            self._layers.append((macs, axes))
            for key in {key for shares in axes for key in shares}:
                self._of_group[key].append((macs, axes))
        self.total = sum(macs for macs, _ in self._layers)

    def left(self, gone: Gone) -> float:
        """Return the MACs that are left when some units of each group, by its key, are gone."""
        return sum(_left(layer, gone) for layer in self._layers)

    def share(self, gone: Gone) -> float:
        """Return the share of all MACs that is left."""
        return self.left(gone) / max(self.total, 1)

    def saved(self, gone: Gone, group: Group, more: int) -> float:
        """Return the MACs that are saved when further units of a group go."""
        then = {**gone, group.key: gone.get(group.key, 0) + more}
        return sum(_left(layer, gone) - _left(layer, then) for layer in self._of_group[group.key])


def _left(layer: _Layer, gone: Gone) -> float:
    macs, axes = layer
    left = float(macs)
    for shares in axes:
        left *= 1 - sum(share * gone.get(name, 0) for name, share in shares.items())
    return left


def _proportional_axes(trace: Trace, op: Any) -> Axes:
    """Return the axes that an operator's MACs are proportional to."""
    if op.type in (*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS):
        return trace.axes[op.input("Filter")[0]][:2]
    flag = "trans_x" if op.type == "matmul_v2" else "transpose_X"
    transposed = op.has_attr(flag) and op.attr(flag)
    return [*trace.axes[main_output(op)], trace.axes[op.input("X")[0]][-2 if transposed else -1]]


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


class Curve(NamedTuple):
    """The outputs' relative error, never falling, by how many units of a group go alone, zero first."""

    gone: list[int]
    errors: list[float]

    def at(self, gone: int) -> float:
        """Return the error at a number of units, between those measured on a line."""
        return float(np.interp(gone, self.gone, self.errors))


def measure_curves(cutter: Cutter, groups: Sequence[Group], samples: Samples) -> dict[str, Curve]:
    """Return the curve of every group, by its key; the error is the mean over parts of the outputs, as a
    share of the whole model's variance."""
    model = cutter.plan.trace.model
    names = real_outputs(model)
    batches = list(samples.head(SAMPLES).batches(SAMPLES))
    outputs = [sample for batch in batches for sample in zip(*model.run(batch, names))]
    comparison = Comparison(list(zip(*outputs)))

    def error_without(gone: Gone) -> float:
        smaller = cutter.cut(gone)
        found = [sample for batch in batches for sample in zip(*smaller.run(batch, names))]
        smaller.discard()
        return over_outputs(mean_errors(list(map(comparison.errors, found, outputs))))

    curves = {group.key: Curve([0], [0.0]) for group in groups}
    for group in tqdm(groups, desc="sensitivity", unit="group"):
        curve = curves[group.key]
        for count in (in_blocks(group, ratio) for ratio in RATIOS):
            if count > curve.gone[-1]:
                error = error_without({group.key: count})
                curve.gone.append(count)
                curve.errors.append(max(curve.errors[-1], error if np.isfinite(error) else 1.0))
    return curves


def choose_for_macs(groups: Sequence[Group], curves: Mapping[str, Curve], macs: Macs, share: float) -> Gone:
    """Return how many units of each group go, so that the MACs fall to a share, for the least error by the curves."""
    gone = {group.key: 0 for group in groups}
    left, target = macs.left(gone), share * macs.total
    while left > target:
        steps = []
        for group in groups:
            curve, already, block = curves[group.key], gone[group.key], block_of(group)
            step = (group.count - already) % block or block
            saved = macs.saved(gone, group, step) if already + step <= curve.gone[-1] else 0.0
            if saved > 0:
                steps.append(((curve.at(already + step) - curve.at(already)) / saved, group.key, step, saved))
        if not steps:
            break
        _, key, step, saved = min(steps, key=lambda each: each[0])
        gone[key] += step
        left -= saved
    return gone
