"""`ChannelPrune`: whole channels are cut out of convolutions, and of all that goes with them.

Which channels stand or fall together is found in the graph (`trace.py`), which of them matter least is told by a
criterion (`importance.py`), and how many of each layer go is given, or chosen by sensitivity (`ratios.py`). What reads
the channels that stay is then fitted to do without those that went (`compensate.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from act.errors import InputError
from act.program.model import InferenceModel
from act.pruning.compensate import compensated
from act.pruning.cost import Costs
from act.pruning.groups import Group, Plan, find_groups
from act.pruning.importance import channel_scores
from act.pruning.input_statistics import Floats, InputStatistics, gather
from act.pruning.pruned import Context, Pruned
from act.pruning.ratios import (
    Gone,
    Reached,
    first_batch,
    for_cost,
    for_speedup,
    in_blocks,
    least_important,
    measure_curves,
)
from act.pruning.shrink import shrink
from act.settings import ChannelPrune

DEFAULT_SHARE = 0.6
"""Of the MACs, what is left where nothing else is asked for."""

_NORMALISED = "a layer norm takes its mean over them; name it in `prune_params_name` to prune it all the same"
_IN_BLOCKS = "a reshape sorts its channels into blocks, such as heads: `TransformerPrune` takes those"
_NO_CONVOLUTION = "is no convolution; name it in `prune_params_name` to prune it all the same"


def prune(model: InferenceModel, settings: ChannelPrune, context: Context) -> Pruned:
    """A model with fewer channels; what was given is not changed.

    Raises:
        InputError: `prune_params_name` names what is no layer of the model, or a speed-up is asked for and cannot be
            measured.
    """
    plan = find_groups(model)
    ratios = _named(plan, settings)
    groups, left = _choose(plan, ratios)
    if not groups:
        return Pruned(model.copy(), "no layer's channels can be pruned", left)
    judged = {group.key: channel_scores(model, group, settings.criterion, context.batch_norms) for group in groups}
    scores = {name: each for name, (each, _) in judged.items()}
    inputs = gather(model, plan, context.samples, context.seed)
    costs = Costs(model, plan, first_batch(context.samples))
    speedup = None
    if settings.pruned_ratio is not None:
        gone = {group.key: in_blocks(group, _ratio(group, settings.pruned_ratio, ratios)) for group in groups}
        why = "the ratios are those that were given"
    else:
        gone, why, speedup = _by_sensitivity(model, plan, groups, scores, inputs, costs, settings, context)
    smaller = cut(model, plan, gone, scores, inputs)
    share = costs.of(gone) / max(costs.total, 1)
    rows = [_row(group, gone[group.key], judged[group.key][1]) for group in groups]
    return Pruned(smaller, f"{share:.0%} of the MACs are left; {why}", [*rows, *left], speedup=speedup)


def cut(
    model: InferenceModel, plan: Plan, gone: Gone, scores: Mapping[str, Floats], inputs: Mapping[str, InputStatistics]
) -> InferenceModel:
    """The model without the units that matter least, fitted to do without them.

    Args:
        gone: how many of each group go, by `key`.
        scores: importance of each group's units, by `key`.
        inputs: of the layers that read them.
    """
    removed = {name: least_important(scores[name], count) for name, count in gone.items() if count}
    filled = compensated(model, plan, removed, inputs)
    result = shrink(filled, plan, removed)
    filled.discard()
    return result


def _named(plan: Plan, settings: ChannelPrune) -> dict[str, float | None]:
    """The weights that are named, each with its ratio where it has one of its own."""
    names = settings.prune_params_name or []
    known = list(plan.trace.outputs)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(
            f"`prune.channel.prune_params_name`: the model has no layer with the weight {', '.join(unknown)}; it has: "
            f"{', '.join(known[:8])}" + (f" and {len(known) - 8} more" if len(known) > 8 else "")
        )
    given = settings.pruned_ratio
    each = given if isinstance(given, list) else [None] * len(names)
    return dict(zip(names, each))


def _choose(plan: Plan, named: Mapping[str, float | None]) -> tuple[list[Group], list[dict[str, Any]]]:
    """The groups to prune, and the rows of the layers that are left alone, with the cause."""
    chosen: list[Group] = []
    left = [{"name": each.weight, "why": each.why} for each in plan.left]
    for group in plan.groups:
        makers = [name for name, _ in group.outputs]
        wanted = bool(set(makers) & set(named)) if named else True
        if not wanted:
            continue
        why = None
        if group.kind == "heads":
            why = _IN_BLOCKS
        elif not named and group.normalised:
            why = _NORMALISED
        elif not named and all(len(plan.trace.shape(name)) != 4 for name in makers):
            why = _NO_CONVOLUTION
        if why is None:
            chosen.append(group)
        else:
            left.append({"name": group.name, "why": why})
    if named:
        left = [row for row in left if row["name"] in named]
    sizes = {name: plan.trace.shape(name)[axis] for name, axis in plan.trace.outputs.items()}
    rows = [{**row, "kept": sizes[row["name"]], "of": sizes[row["name"]], "ratio": 0.0} for row in left]
    return chosen, rows


def _ratio(group: Group, given: float | list[float], named: Mapping[str, float | None]) -> float:
    """A group's ratio: where several of its layers are named with ratios of their own, the smallest."""
    if not isinstance(given, list):
        return given
    own = [ratio for name, _ in group.outputs if (ratio := named.get(name)) is not None]
    return min(own)


def _by_sensitivity(
    model: InferenceModel,
    plan: Plan,
    groups: Sequence[Group],
    scores: Mapping[str, Floats],
    inputs: Mapping[str, InputStatistics],
    costs: Costs,
    settings: ChannelPrune,
    context: Context,
) -> tuple[Gone, str, float | None]:
    """How many units of each group go, why so many, and the speed-up that was measured with them, if any was."""
    measured = context.speedup
    if settings.target_speedup is not None and measured is None and context.first_share is None:
        raise InputError(
            "`prune.channel.target_speedup`: the latency cannot be measured on the target's first engine; give "
            "`pruned_ratio` instead"
        )
    with tqdm(total=len(groups), desc="sensitivity", unit="group") as bar:
        curves = measure_curves(model, plan, groups, scores, inputs, context.samples, bar.update)
    if settings.target_speedup is None or measured is None:
        share = settings.kept_multiply_adds or context.first_share or DEFAULT_SHARE
        gone = for_cost(groups, curves, costs, share)
        return gone, "chosen layer by layer, where the outputs move least for what is saved", None
    target = settings.target_speedup

    def speedup_of(gone: Gone) -> float:
        smaller = cut(model, plan, gone, scores, inputs)
        found = measured(smaller)
        smaller.discard()
        return found

    def plan_for(share: float) -> Gone:
        return for_cost(groups, curves, costs, share)

    reached = for_speedup(target, plan_for, speedup_of, context.first_share)
    return reached.gone, _told(reached, target, str(measured)), reached.speedup


def _told(reached: Reached, target: float, where: str) -> str:
    outcome = f"measured {reached.speedup:.2f} times as fast"
    if reached.speedup < target:
        outcome += f", the most that was found, where {target:g} is asked for"
    else:
        outcome += f" ({target:g} is asked for)"
    return f"{outcome} after {reached.measurements} measurements on {where}"


def _row(group: Group, gone: int, judged: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": group.name,
        "kept": group.count - gone,
        "of": group.count,
        "ratio": gone / group.count,
        "together": [name for name, _ in group.outputs if name != group.name],
    }
    if not judged:
        row["note"] = "no batch norm follows it: by the sum of magnitudes"
    return row
