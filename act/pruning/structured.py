"""Whole channels and heads are cut out, and all that goes with them.

- `ChannelPrune`: channels of convolutions. What matters least is told by a criterion, and how much of each layer goes
  is given, or chosen by sensitivity (`ratios.py`).
- `TransformerPrune`: heads of attention and feed-forward width. What matters least is told by how much the layer that
  reads a head or channel changes without it, on real samples and without labels (Michel et al., "Are sixteen heads
  really better than one?", 2019, and McCarley et al., 2019, rank them by a loss).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from act.errors import InputError
from act.program.model import InferenceModel
from act.pruning.context import Context, Pruned, refuse_unknown
from act.pruning.criteria import DEFAULT
from act.pruning.groups import Gone, Group, Plan, find_groups
from act.pruning.ratios import Macs, choose_for_macs, in_blocks, measure_curves
from act.pruning.shrink import Cutter, Floats, InputStatistics, as_table, input_statistics
from act.pruning.speedup import choose_for_speedup
from act.registry import CRITERIA
from act.results.training import PrunedLayer
from act.samples.dataset import Array
from act.settings import ChannelPrune, TransformerPrune

DEFAULT_SHARE = 0.6
"""Of the MACs, what is left where nothing else is asked for."""

_NORMALISED = "a layer norm takes its mean over them; name it in `prune_params_name` to prune it all the same"
_IN_BLOCKS = "a reshape sorts its channels into blocks, such as heads: `TransformerPrune` takes those"
_NO_CONVOLUTION = "is no convolution; name it in `prune_params_name` to prune it all the same"
_NOT_JUDGED = "no batch norm follows it: by the sum of magnitudes"
_TINY = 1e-12
_KINDS = {"heads": "heads", "feed_forward": "feed-forward channels"}


def prune_channels(model: InferenceModel, settings: ChannelPrune, context: Context) -> Pruned:
    """Return a model with fewer channels; the given one is not changed.

    Raises:
        InputError: `prune_params_name` names what is no layer of the model, or a speed-up is asked for and cannot be
            measured.
    """
    plan = find_groups(model)
    names, given = settings.prune_params_name or [], settings.pruned_ratio
    refuse_unknown(names, list(plan.trace.outputs), "prune.channel.prune_params_name")
    groups, left_alone = _choose(plan, names)
    if not groups:
        return Pruned(model.copy(), "no layer's channels can be pruned", left_alone)
    scores = {group.key: channel_scores(model, group, settings.criterion, context.batch_norms) for group in groups}
    statistics = input_statistics(plan, context.samples, context.seed)
    cutter = Cutter(plan, {key: each for key, (each, _) in scores.items()}, statistics)
    macs = Macs(plan, context.one_sample())
    speedup = None
    if given is None:
        gone, why, speedup = _by_sensitivity(cutter, groups, macs, settings, context)
    else:
        # Where several layers of a group are named with ratios of their own, the smallest counts.
        own = dict(zip(names, given)) if isinstance(given, list) else dict.fromkeys(plan.trace.outputs, given)
        ratios = {group.key: min(own[name] for name, _ in group.outputs if name in own) for group in groups}
        gone = {group.key: in_blocks(group, ratios[group.key]) for group in groups}
        why = "the ratios are those that were given"
    rows = [group.describe(gone[group.key], note=None if scores[group.key][1] else _NOT_JUDGED) for group in groups]
    why = f"{macs.share(gone):.0%} of the MACs are left; {why}"
    return Pruned(cutter.cut(gone), why, [*rows, *left_alone], speedup=speedup)


def _choose(plan: Plan, named: Sequence[str]) -> tuple[list[Group], list[PrunedLayer]]:
    """Return the groups to prune, and the layers that are left alone, with the cause."""
    chosen: list[Group] = []
    left_alone = list(plan.left_alone.items())
    for group in plan.groups:
        producers = [name for name, _ in group.outputs]
        if named and not set(producers) & set(named):
            continue
        if group.kind == "heads":
            left_alone.append((group.name, _IN_BLOCKS))
        elif not named and group.normalised:
            left_alone.append((group.name, _NORMALISED))
        elif not named and all(len(plan.trace.shape(name)) != 4 for name in producers):
            left_alone.append((group.name, _NO_CONVOLUTION))
        else:
            chosen.append(group)
    sizes = {name: plan.trace.shape(name)[axis] for name, axis in plan.trace.outputs.items()}
    rows = [PrunedLayer(name=name, kept=sizes[name], of=sizes[name], ratio=0.0, why=why) for name, why in left_alone]
    return chosen, [row for row in rows if not named or row.name in named]


def channel_scores(
    model: InferenceModel, group: Group, criterion: str, batch_norms: Mapping[str, Array]
) -> tuple[Floats, bool]:
    """Return the importance of each unit, float64 [units], and tell whether the criterion could judge any layer.

    Where several layers make the channels of a group, each counts with its scores as shares of their mean.
    """
    scores, judged = np.zeros(group.count), False
    for name, axis in group.outputs:
        rows = np.moveaxis(model.weight(name), axis, 0).astype(np.float64)
        rows = rows.reshape(len(rows), -1)
        gamma = np.asarray(batch_norms.get(name, ()), dtype=np.float64)
        known = gamma if len(gamma) == len(rows) else None
        each = CRITERIA.load(criterion).importance(rows, known)
        judged |= each is not None
        if each is None:
            each = CRITERIA.load(DEFAULT).importance(rows, known)
        of_units = each[group.members[name, axis]].sum(axis=1)
        scores += of_units / max(float(of_units.mean()), _TINY)
    return scores, judged


def _by_sensitivity(
    cutter: Cutter, groups: Sequence[Group], macs: Macs, settings: ChannelPrune, context: Context
) -> tuple[Gone, str, float | None]:
    """Return how many units of each group go, why so many, and the speed-up that was measured, if any was."""
    target, stopwatch = settings.target_speedup, context.speedup
    if target is not None and stopwatch is None and context.first_share is None:
        raise InputError(
            "`prune.channel.target_speedup`: the latency cannot be measured on the target's first engine; give "
            "`pruned_ratio` instead"
        )
    curves = measure_curves(cutter, groups, context.samples)

    def gone_for(share: float) -> Gone:
        return choose_for_macs(groups, curves, macs, share)

    if target is None or stopwatch is None:
        gone = gone_for(settings.kept_multiply_adds or context.first_share or DEFAULT_SHARE)
        return gone, "chosen layer by layer, where the outputs move least for what is saved", None

    def speedup_of(gone: Gone) -> float:
        smaller = cutter.cut(gone)
        speedup = stopwatch(smaller)
        smaller.discard()
        return speedup

    reached = choose_for_speedup(target, gone_for, speedup_of, context.first_share)
    return reached.gone, reached.describe(target, str(stopwatch)), reached.speedup


def prune_transformer(model: InferenceModel, settings: TransformerPrune, context: Context) -> Pruned:
    """Return a transformer with fewer heads and less width; the given model is not changed."""
    plan = find_groups(model)
    statistics = input_statistics(plan, context.samples, context.seed)
    groups: list[Group] = []
    scores, left_alone = {}, []
    for group in plan.groups:
        if group.kind not in _KINDS:
            continue
        known = [name for name, _ in group.inputs if name in statistics]
        if known:
            groups.append(group)
            scores[group.key] = np.sum([_output_change(model, group, statistics[name]) for name in known], axis=0)
        else:
            left_alone.append(group.describe(0, kind=group.kind, why="what reads it could not be looked at"))
    if not groups:
        why = "the model has no heads and no feed-forward width that can be pruned"
        return Pruned(model.copy(), why, left_alone)
    gone = {group.key: in_blocks(group, settings.pruned_ratio) for group in groups}
    share = Macs(plan, context.one_sample()).share(gone)
    counts = " and ".join(
        f"{sum(gone[group.key] for group in alike)} of {sum(group.count for group in alike)} {name}"
        for kind, name in _KINDS.items()
        if (alike := [group for group in groups if group.kind == kind])
    )
    rows = [group.describe(gone[group.key], kind=group.kind) for group in groups]
    smaller = Cutter(plan, scores, statistics).cut(gone)
    return Pruned(smaller, f"{counts} went; {share:.0%} of the MACs are left", [*rows, *left_alone])


def _output_change(model: InferenceModel, group: Group, inputs: InputStatistics) -> Floats:
    """Return how much the output of a layer that reads a group changes without each of its units, float64 [units].

    It is a share of the output's mean square; the places of a window count as independent.
    """
    name = inputs.layer.weight
    table = as_table(model.weight(name), inputs.axis)
    whole = float(np.einsum("io,ij,jo->", table, inputs.moments, table, optimize=True))
    parts = [(table[chosen], inputs.moments[np.ix_(chosen, chosen)]) for chosen in group.members[name, inputs.axis]]
    change = np.array([float(((moments @ part) * part).sum()) for part, moments in parts])
    return change / max(whole, np.finfo(np.float64).tiny)
