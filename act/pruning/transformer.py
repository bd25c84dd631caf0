"""`TransformerPrune`: heads of attention and feed-forward width are cut out of a transformer.

Heads are found as blocks of channels that a reshape makes, whose query, key, value and output weights go together; the
feed-forward width as channels between two matrix products. What matters least is told by how much the layer that reads
a head or channel changes without it, on real samples and to first order without labels (as Michel et al., "Are sixteen
heads really better than one?", 2019, and McCarley et al., 2019, rank them by a loss). Sizes that reshapes name change
with them.
"""

from __future__ import annotations

from typing import Any

from act.program.model import InferenceModel
from act.pruning.channel import cut
from act.pruning.cost import Costs
from act.pruning.groups import Group, Plan, find_groups
from act.pruning.importance import unit_scores
from act.pruning.input_statistics import gather
from act.pruning.pruned import Context, Pruned
from act.pruning.ratios import first_batch, in_blocks
from act.settings import TransformerPrune

_KINDS = {"heads": "heads", "feed_forward": "feed-forward channels"}


def prune(model: InferenceModel, settings: TransformerPrune, context: Context) -> Pruned:
    """A transformer with fewer heads and less width; what was given is not changed."""
    plan = find_groups(model)
    inputs = gather(model, plan, context.samples, context.seed)
    groups: list[Group] = []
    scores = {}
    left = []
    for group in plan.groups:
        if group.kind not in _KINDS:
            continue
        found = unit_scores(model, group, inputs)
        if found is None:
            left.append(_row(plan, group, 0, "what reads it could not be looked at"))
        else:
            groups.append(group)
            scores[group.key] = found
    if not groups:
        return Pruned(model.copy(), "the model has no heads and no feed-forward width that can be pruned", left)
    gone = {group.key: in_blocks(group, settings.pruned_ratio) for group in groups}
    smaller = cut(model, plan, gone, scores, inputs)
    costs = Costs(model, plan, first_batch(context.samples))
    share = costs.of(gone) / max(costs.total, 1)
    told = " and ".join(
        f"{sum(gone[group.key] for group in alike)} of {sum(group.count for group in alike)} {name}"
        for kind, name in _KINDS.items()
        if (alike := [group for group in groups if group.kind == kind])
    )
    rows = [_row(plan, group, gone[group.key]) for group in groups]
    return Pruned(smaller, f"{told} went; {share:.0%} of the MACs are left", [*rows, *left])


def _row(plan: Plan, group: Group, gone: int, why: str | None = None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": group.name,
        "kind": group.kind,
        "kept": group.count - gone,
        "of": group.count,
        "ratio": gone / group.count,
        "together": [name for name, _ in group.outputs if name != group.name],
    }
    return row if why is None else {**row, "why": why}
