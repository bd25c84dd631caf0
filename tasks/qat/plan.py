"""`python -m tasks.qat.plan --job NAME`: decide whether training is needed, and where it starts.

A stage of its own, whose result holds no figure of the budget: when the budget changes, DVC repeats the training only
if the decision changes. `plan.json`: `train`, and `start` (a candidate of `ptq_search`, or null).
"""

from __future__ import annotations

from typing import Any

from act.artifacts import read_json, replace_folder, stage_folder, write_json
from act.stage import job_from_command_line


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.qat.plan", "Decide whether one job needs training.") as (name, job):
        strategy = read_json(stage_folder(name, "select") / "strategy.json")
        found = read_json(stage_folder(name, "ptq_search") / "candidates.json")
        plan, why = decide(strategy["train"], found["candidates"], job.budget.max_quality_drop)
        with replace_folder(stage_folder(name, "qat_plan")) as folder:
            write_json(folder / "plan.json", plan)
    print(f"qat_plan: {why}")


def decide(allowed: bool, candidates: list[dict[str, Any]], max_quality_drop: float) -> tuple[dict[str, Any], str]:
    """The plan, and the sentence that explains it.

    Args:
        allowed: whether the strategy trains at all.
        candidates: of `ptq_search`, with `id`, `quality` and `drop`.
        max_quality_drop: of the budget, in units of the metric.
    """
    stay: dict[str, Any] = {"train": False, "start": None}
    if not candidates:
        return stay, "no training: there is no quantized candidate to train"
    best = max(candidates, key=lambda candidate: float(candidate["quality"]))
    if best["drop"] <= max_quality_drop:
        lost = f"loses {best['drop']:.4f}" if best["drop"] > 0 else "loses nothing"
        return stay, f"no training: {best['id']} {lost}, within the budget of {max_quality_drop:g}"
    missed = f"{best['id']} loses {best['drop']:.4f}, more than the budget of {max_quality_drop:g}"
    if not allowed:
        return stay, f"no training: {missed}, but the strategy does not train"
    return {"train": True, "start": best["id"]}, f"training starts from {best['id']}: {missed}"


if __name__ == "__main__":
    main()
