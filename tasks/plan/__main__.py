"""`python -m tasks.plan --job NAME`: decide which candidates go on, and whether and where training starts.

A stage of its own, whose result holds no figure of the budget: when the budget changes, DVC repeats training, export
and benchmark only if a decision changes. `plan.json`: `keep` (candidates of `refine` that are worth exporting),
`train`, and `start` (one of them, or null).
"""

from __future__ import annotations

import logging
from typing import Any

from act.artifacts import read_json, replace_folder, stage_folder, write_json
from act.settings import CLEARLY, ROUNDING
from tasks.stage import job_from_command_line

log = logging.getLogger(__name__)

MOST_CHEAP = 2


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.plan", "Decide whether one job needs training.") as (name, job):
        strategy = read_json(stage_folder(name, "select") / "strategy.json")
        found = read_json(stage_folder(name, "refine") / "candidates.json")
        pruned = read_json(stage_folder(name, "prune") / "prune.json")
        plan, why = decide(
            strategy["train"],
            found["candidates"],
            job.budget.max_quality_drop,
            always=strategy["train_always"],
            pruned_lost=pruned["quality"]["before"] - pruned["quality"]["after"] if pruned["pruned"] else 0.0,
        )
        kept = keep(found["candidates"], job.budget.max_quality_drop)
        with replace_folder(stage_folder(name, "plan")) as folder:
            write_json(folder / "plan.json", {"keep": kept, **plan})
    log.info(f"plan: {why}; to be measured: {', '.join(kept) or 'none'}")


def keep(candidates: list[dict[str, Any]], max_quality_drop: float) -> list[str]:
    """The candidates that could win: the cheapest inside the budget; the best, which has most to spare; and the best
    symmetric one, for engines that know no zero point.

    Args:
        candidates: of `refine`, with `id`, `drop`, `cost` and `symmetric`.
        max_quality_drop: of the budget, in units of the metric.
    """
    ranked = sorted(candidates, key=lambda candidate: float(candidate["drop"]))
    inside = [candidate for candidate in ranked if candidate["drop"] <= max_quality_drop + ROUNDING]
    cheapest = sorted(inside, key=lambda candidate: float(candidate["cost"]))[:MOST_CHEAP]
    symmetric = [candidate for candidate in ranked if candidate["symmetric"]]
    return list(dict.fromkeys(str(candidate["id"]) for candidate in [*cheapest, *ranked[:1], *symmetric[:1]]))


def decide(
    allowed: bool,
    candidates: list[dict[str, Any]],
    max_quality_drop: float,
    always: bool = False,
    pruned_lost: float = 0.0,
) -> tuple[dict[str, Any], str]:
    """The plan, and the sentence that explains it.

    Args:
        allowed: whether the strategy trains at all.
        always: whether it does so in any case, because the user asks for it.
        candidates: of `refine`, with `id`, `quality` and `drop`.
        max_quality_drop: of the budget, in units of the metric.
        pruned_lost: what pruning lost before anything was quantized, in the same units.
    """
    stay: dict[str, Any] = {"train": False, "start": None}
    if not candidates:
        return stay, "no training: there is no quantized candidate to train"
    best = max(candidates, key=lambda candidate: float(candidate["quality"]))
    if always:
        return {"train": True, "start": best["id"]}, f"training starts from {best['id']}: params.yaml asks for it"
    if best["drop"] <= max_quality_drop + ROUNDING:
        lost = f"loses {best['drop']:.4f}" if best["drop"] > 0 else "loses nothing"
        return stay, f"no training: {best['id']} {lost}, within the budget of {max_quality_drop:g}"
    missed = f"{best['id']} loses {best['drop']:.4f}, more than the budget of {max_quality_drop:g}"
    if not allowed:
        return stay, f"no training: {missed}, but the strategy does not train"
    if pruned_lost > CLEARLY * max_quality_drop + ROUNDING:
        return stay, f"no training: {missed}, and pruning alone lost {pruned_lost:.4f}, too much to be won back"
    return {"train": True, "start": best["id"]}, f"training starts from {best['id']}: {missed}"


if __name__ == "__main__":
    main()
