"""`ChannelPrune`: whole channels are cut out of convolutions, and of all that goes with them.

What stands or falls together is found in the graph (`trace.py`), what matters least is told by a criterion, and how
much of each layer goes is given, or chosen by sensitivity (`ratios.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

from act.errors import InputError
from act.program.model import InferenceModel
from act.pruning.context import Context, Pruned, describe_group
from act.pruning.cutter import Cutter, Gone
from act.pruning.groups import Group, Plan, find_groups
from act.pruning.importance import channel_scores
from act.pruning.input_statistics import gather
from act.pruning.macs import Macs
from act.pruning.ratios import choose_for_macs, in_blocks, measure_curves
from act.pruning.speedup import choose_for_speedup
from act.pruning.weights import refuse_unknown
from act.results.prune import PrunedLayer
from act.settings import ChannelPrune

DEFAULT_SHARE = 0.6
"""Of the MACs, what is left where nothing else is asked for."""

_NORMALISED = "a layer norm takes its mean over them; name it in `prune_params_name` to prune it all the same"
_IN_BLOCKS = "a reshape sorts its channels into blocks, such as heads: `TransformerPrune` takes those"
_NO_CONVOLUTION = "is no convolution; name it in `prune_params_name` to prune it all the same"
_NOT_JUDGED = "no batch norm follows it: by the sum of magnitudes"


def prune(model: InferenceModel, settings: ChannelPrune, context: Context) -> Pruned:
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
    statistics = gather(model, plan, context.samples, context.seed)
    cutter = Cutter(model, plan, {name: each for name, (each, _) in scores.items()}, statistics)
    macs = Macs(model, plan, context.one_sample())
    speedup = None
    if given is None:
        gone, why, speedup = _by_sensitivity(cutter, groups, macs, settings, context)
    else:
        # Where several layers of a group are named with ratios of their own, the smallest counts.
        own = dict(zip(names, given)) if isinstance(given, list) else dict.fromkeys(plan.trace.outputs, given)
        ratios = {group.key: min(own[name] for name, _ in group.outputs if name in own) for group in groups}
        gone = {group.key: in_blocks(group, ratios[group.key]) for group in groups}
        why = "the ratios are those that were given"
    share = macs.left(gone) / max(macs.total, 1)
    rows = [
        describe_group(group, gone[group.key], note=None if scores[group.key][1] else _NOT_JUDGED) for group in groups
    ]
    why = f"{share:.0%} of the MACs are left; {why}"
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
