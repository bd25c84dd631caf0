"""`python -m tasks.analyze.select --job NAME`: choose the strategy, in ACT's vocabulary, with a reason for each part.

First version: rules from the operator table's static facts, from the precisions that the engines have on this CPU, and
from the user's target, budget and strategy. Nothing measured decides, and no figure of the budget is written unless it
changes the decision, so that the same job on the same CPU gives the same `strategy.json` and later stages stay cached.

`strategy.json`: `strategy` [{name, why}], `prune` (names of those that prune, in order), `quantize`, `search` (try
several settings of post-training quantization, not only the first), `train` (train where that misses the budget),
`train_always` (and where it does not), `precisions` {engine: [{name, why}]}, `why`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from act import machine
from act.artifacts import read_json, replace_folder, stage_folder, write_json
from act.errors import InputError
from act.params import PRUNING, EngineName, Job, StrategyName
from act.stage import job_from_command_line

# Below this share of the multiply-adds and of the parameters in layers that can run in int8, quantization makes a model
# neither faster, for its conversions cost more than it saves, nor smaller.
LEAST_INT8_SHARE = 0.1


@dataclass
class Strategy:
    """What will be done, and why.

    Attributes:
        parts: (name in ACT's vocabulary, reason), in order.
        why: one sentence on the whole.
        obeyed: whether the user fixed it, so that training is done whether it is needed or not.
    """

    parts: list[tuple[StrategyName, str]] = field(default_factory=list)
    why: str = ""
    obeyed: bool = False

    @property
    def names(self) -> set[StrategyName]:
        """The names of the parts."""
        return {name for name, _ in self.parts}

    def to_json(self) -> dict[str, Any]:
        """As it stands in `strategy.json`."""
        return {
            "strategy": [{"name": name, "why": why} for name, why in self.parts],
            "prune": [name for name, _ in self.parts if name in PRUNING],
            "quantize": bool(self.names & {"QuantPost", "HyperParameterOptimization", "QuantAware"}),
            "search": "HyperParameterOptimization" in self.names,
            "train": "QuantAware" in self.names,
            "train_always": "QuantAware" in self.names and self.obeyed,
            "why": self.why,
        }


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.analyze.select", "Choose one job's strategy.") as (name, job):
        analysis = read_json(stage_folder(name, "analyze") / "analysis.json")
        missing = [name for name in job.target.engines if name not in analysis["engines"]]
        if missing:
            raise InputError(
                f"the analysis of {name} knows nothing of {', '.join(missing)}: the target has changed since; "
                f"run `python -m tasks.analyze --job {name}`, or `dvc repro`"
            )
        strategy = _obey(job) if job.strategy != "auto" else choose(job, analysis)
        with replace_folder(stage_folder(name, "select")) as folder:
            write_json(
                folder / "strategy.json", {**strategy.to_json(), "precisions": _precisions(job, analysis, strategy)}
            )
    names = " + ".join(name for name, _ in strategy.parts) or "no compression"
    print(f"select: {names}: {strategy.why}")


def _obey(job: Job) -> Strategy:
    parts: list[tuple[StrategyName, str]] = []
    if job.strategy != "auto":
        parts = [(name, "asked for in params.yaml") for name in job.strategy]
    why = "the strategy is fixed in params.yaml" if parts else "params.yaml asks for no compression"
    return Strategy(parts, why, obeyed=True)


def choose(job: Job, analysis: dict[str, Any]) -> Strategy:
    """The strategy for this model on this CPU.

    Args:
        analysis: the contents of `analysis.json`.
    """
    if "int8" not in job.target.precisions:
        return Strategy(why="int8 is not among the target's precisions, so nothing is quantized")
    able = [name for name in job.target.engines if "int8" in analysis["engines"][name]["precisions"]]
    if not able:
        return Strategy(why="none of the target's engines can run int8 here, so nothing is quantized")
    share = _largest_share(analysis, able, "multiply_adds")
    weights = _largest_share(analysis, able, "parameters")
    if share < LEAST_INT8_SHARE and weights < LEAST_INT8_SHARE:
        return Strategy(
            why=f"only {share:.0%} of the multiply-adds and {weights:.0%} of the parameters are in layers that can run "
            "in int8, so nothing is quantized"
        )
    fast = [machine.CAPABILITIES[f] for f in analysis["machine"]["capabilities"] if f in machine.INT8_FLAGS]
    speed = (
        f"this CPU has {', '.join(fast)}, which multiply int8 several times faster than fp32"
        if fast
        else "this CPU has no int8 instructions, so int8 may be slower than fp32: the benchmark decides"
    )
    layers = max(analysis["engines"][name]["int8_layers"] for name in able)
    return Strategy(
        [
            (
                "HyperParameterOptimization",
                "the best threshold rule differs from model to model, and a trial takes seconds",
            ),
            (
                "QuantPost",
                f"{layers} layers with {share:.0%} of the multiply-adds can run in int8 on {', '.join(able)}; {speed}",
            ),
            ("QuantAware", "only where post-training quantization misses the budget: training takes minutes"),
            ("Distillation", "the samples have no labels for training, so the fp32 model's outputs are the target"),
        ],
        f"{share:.0%} of the multiply-adds can run in int8, and {speed}",
    )


def _largest_share(analysis: dict[str, Any], engines: Sequence[EngineName], cost: str) -> float:
    """The share of a cost that layers carry which can run in int8, on the engine where it is largest."""
    total = analysis[cost]
    return max(analysis["engines"][name][f"int8_{cost}"] for name in engines) / total if total else 0.0


def _precisions(job: Job, analysis: dict[str, Any], strategy: Strategy) -> dict[str, list[dict[str, str]]]:
    """What is worth measuring on each engine."""
    quantized = bool(strategy.to_json()["quantize"])
    result: dict[str, list[dict[str, str]]] = {}
    for engine in job.target.engines:
        here = analysis["engines"][engine]["precisions"]
        rows = [{"name": "fp32", "why": "the reference"}]
        if "bf16" in job.target.precisions and "bf16" in here:
            rows.append(
                {"name": "bf16", "why": "this engine and CPU run fp32 files in bfloat16, which needs no search"}
            )
        if quantized and "int8" in here:
            rows.append({"name": "int8", "why": "the result of the search and of training"})
        result[engine] = rows
    return result


if __name__ == "__main__":
    main()
