"""`TransformerPrune`: heads of attention and feed-forward width are cut out of a transformer.

What matters least is told by how much the layer that reads a head or channel changes without it, on real samples and
without labels (Michel et al., "Are sixteen heads really better than one?", 2019, and McCarley et al., 2019, rank them
by a loss).
"""

from __future__ import annotations

from act.program.model import InferenceModel
from act.pruning.context import Context, Pruned, describe_group
from act.pruning.cutter import Cutter
from act.pruning.groups import Group, find_groups
from act.pruning.importance import unit_scores
from act.pruning.input_statistics import gather
from act.pruning.macs import Macs
from act.pruning.ratios import in_blocks
from act.settings import TransformerPrune

_KINDS = {"heads": "heads", "feed_forward": "feed-forward channels"}


def prune(model: InferenceModel, settings: TransformerPrune, context: Context) -> Pruned:
    """Return a transformer with fewer heads and less width; the given model is not changed."""
    plan = find_groups(model)
    statistics = gather(model, plan, context.samples, context.seed)
    groups: list[Group] = []
    scores, left_alone = {}, []
    for group in plan.groups:
        if group.kind not in _KINDS:
            continue
        each = unit_scores(model, group, statistics)
        if each is None:
            left_alone.append(describe_group(group, 0, group.kind, why="what reads it could not be looked at"))
        else:
            groups.append(group)
            scores[group.key] = each
    if not groups:
        why = "the model has no heads and no feed-forward width that can be pruned"
        return Pruned(model.copy(), why, left_alone)
    gone = {group.key: in_blocks(group, settings.pruned_ratio) for group in groups}
    macs = Macs(model, plan, context.one_sample())
    share = macs.left(gone) / max(macs.total, 1)
    counts = " and ".join(
        f"{sum(gone[group.key] for group in alike)} of {sum(group.count for group in alike)} {name}"
        for kind, name in _KINDS.items()
        if (alike := [group for group in groups if group.kind == kind])
    )
    rows = [describe_group(group, gone[group.key], group.kind) for group in groups]
    smaller = Cutter(model, plan, scores, statistics).cut(gone)
    return Pruned(smaller, f"{counts} went; {share:.0%} of the MACs are left", [*rows, *left_alone])
