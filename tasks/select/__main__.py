"""`python -m tasks.select --job NAME`: choose the strategy, in ACT's vocabulary, with a reason for each part.

A strategy that the user fixed is obeyed. Else what could meet the budget is ranked (`options.py`), with latencies that
`analyze` measured or that the latency model predicts, and the first is chosen that was not tried in vain before
(`attempts.py`): the pipeline tries them in order, and each that was tried corrects the predictions for the next.

`strategy.json`: `strategy` [{name, why}], `prune` (names of those that prune, in order), `quantize`, `search` (try
several settings of post-training quantization, not only the first), `train` (train where that misses the budget),
`train_always` (and where it does not), `settings` (for the stages after it, where the job leaves them open),
`precisions` {engine: [{name, why}]}, `why`. It holds no measured figure, so that later stages stay cached when
something is measured anew. Those are in `options.json`, in a folder of its own: `options` in order, `chosen` (a key of
one), `verdict` (what was decided, in a sentence), `wanted_speedup`, `reachable`, `open` (whether another try could
follow), `attempts`, `source` (of the predictions), `of` (the fingerprint of the job that attempts are kept under).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from act import machine
from act.artifacts import fingerprint, read_json, replace_folder, stage_folder, write_json
from act.errors import InputError
from act.settings import PRUNING, EngineName, Job, StrategyName
from act.strategy import attempts, options
from act.strategy.latency.table import Table
from act.strategy.predictor import Latency, Predictor
from tasks.stage import job_from_command_line

log = logging.getLogger(__name__)

# Below this share of the MACs and of the parameters in layers that can run in int8, quantization makes a model
# neither faster, for its conversions cost more than it saves, nor smaller.
LEAST_INT8_SHARE = 0.1
# Estimates of what stages take, as seen with the jobs of params.yaml.
SECONDS_OF_A_TRIAL, REFINE_MINUTES = 2.0, 2.0
TRAINING_COST = 8.0  # times the latency of the fp32 model, for each sample and epoch
SECONDS_OF_AN_ENGINE = 20.0


@dataclass
class Strategy:
    """What will be done, and why.

    Attributes:
        parts: (name in ACT's vocabulary, reason), in order.
        why: one sentence on the whole.
        obeyed: whether the user fixed it, so that training is done whether it is needed or not.
        settings: for later stages, where the job leaves them open.
    """

    parts: list[tuple[StrategyName, str]] = field(default_factory=list)
    why: str = ""
    obeyed: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Strategy:
        """From what `to_json` gave of a strategy that was not fixed."""
        return cls([(each["name"], each["why"]) for each in told["strategy"]], told["why"], False, told["settings"])

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
            "settings": self.settings,
            "why": self.why,
        }


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.select", "Choose one job's strategy.") as (name, job):
        analysis = read_json(stage_folder(name, "analyze") / "analysis.json")
        missing = [name for name in job.target.engines if name not in analysis["engines"]]
        if missing:
            raise InputError(
                f"the analysis of {name} knows nothing of {', '.join(missing)}: the target has changed since; "
                f"run `python -m tasks.analyze --job {name}`, or `dvc repro`"
            )
        if job.strategy != "auto":
            strategy = _obey(job)
            told: dict[str, Any] = {"options": [], "chosen": None, "open": False, "attempts": []}
        else:
            strategy, told = _decide(name, job, analysis)
        with replace_folder(stage_folder(name, "select")) as folder:
            write_json(
                folder / "strategy.json", {**strategy.to_json(), "precisions": _precisions(job, analysis, strategy)}
            )
        with replace_folder(stage_folder(name, "options")) as folder:
            write_json(folder / "options.json", told)
        names = " + ".join(name for name, _ in strategy.parts) or "no compression"
        log.info(f"select: {names}: {strategy.why}")
        if told["chosen"] is not None:
            log.info(f"select: {told['verdict']}")


def _decide(name: str, job: Job, analysis: dict[str, Any]) -> tuple[Strategy, dict[str, Any]]:
    """The next option to try, or the best of those that were tried; and what `options.json` tells."""
    plain = choose(job, analysis)
    analyzed = stage_folder(name, "analyze")
    of = fingerprint(_what_counts(job), [stage_folder(name, "prepare") / "model"], ())
    tried = attempts.read(name, of)
    own = analysis.get("own", {})
    model = options.corrected(_model(job, analysis, own, analyzed), tried, job.target.precisions)
    found = options.rank(model, job.budget, plain.parts, _costs(job, analysis, own), job.target.precisions)
    decision = options.decide(found, tried, job.budget, options.wanted_speedup(job.budget, model.whole))
    if decision.again is not None:
        # As it was then, to the letter: a figure in a reason would have all stages run again.
        strategy = Strategy.from_json(decision.again.strategy)
    else:
        strategy = _with_pruning(plain, decision.option)
    told = {
        "options": [option.to_json() for option in found],
        "chosen": decision.key,
        "predicted_speedup": decision.option.speedup if decision.option else None,
        "verdict": decision.why,
        "wanted_speedup": options.wanted_speedup(job.budget, model.whole),
        "reachable": decision.reachable,
        "open": decision.open,
        "attempts": [attempt.to_json() for attempt in tried],
        "source": model.source(),
        "of": of,
    }
    return strategy, told


def _what_counts(job: Job) -> dict[str, Any]:
    """The settings that attempts hold for."""
    return job.model_dump(mode="json", exclude={"benchmark", "act_config"})


def _with_pruning(plain: Strategy, option: options.Option | None) -> Strategy:
    if option is None or option.share >= 1:
        return plain
    left = f"{option.aim:.3g} times the speed is aimed at" if option.aim else f"{option.share:.0%} of the MACs stay"
    why = f"{left}; {plain.why}"
    return Strategy(list(option.parts), why, settings=option.settings)


def _model(job: Job, analysis: dict[str, Any], own: dict[str, Any], analyzed: Path) -> options.Model:
    whole = {
        (engine, precision): Latency(told["seconds"], told["seconds"], told["seconds"])
        for engine, precisions in own.items()
        for precision, told in precisions.items()
        if "seconds" in told
    }
    predictors: dict[str, Predictor] = {}

    def pruned(engine: str, precision: str, share: float) -> Latency | None:
        if engine not in predictors:
            predictors[engine] = Predictor(Table.read(analyzed / "own" / f"{engine}.jsonl"))
        return predictors[engine].latency(precision, share) if predictors[engine].has_kernels(precision) else None

    able = max((analysis["engines"][name]["int8_parameters"] for name in job.target.engines), default=0)
    convolutions = any(row["type"] in ("conv2d", "depthwise_conv2d") for row in analysis.get("operators", []))
    named = job.prune.channel.pruned_ratio is not None or job.prune.channel.target_speedup is not None
    total = analysis["parameters"]
    return options.Model(
        whole,
        pruned,
        4 * total,
        able / total if total else 0.0,
        convolutions and not named,
        lambda: "; ".join(f"{engine}: {each.source}" for engine, each in predictors.items()) or "measured",
    )


def _costs(job: Job, analysis: dict[str, Any], own: dict[str, Any]) -> options.Costs:
    """From the model's latency: a trial evaluates it once, a training step takes some times as long for each sample."""
    fastest = [each["fp32"]["seconds"] for each in own.values() if "seconds" in each.get("fp32", {})]
    seconds = min(fastest, default=0.01)
    evaluation = getattr(job.data, "evaluation", 512)
    calibration = getattr(job.data, "calibration", 128)
    one = evaluation * seconds
    return options.Costs(
        quantize=job.ptq_search.max_quant_count * (one + SECONDS_OF_A_TRIAL) / 60 + REFINE_MINUTES,
        train=job.prune.epochs * (calibration * seconds * TRAINING_COST + one) / 60,
        measure=len(job.target.engines) * (SECONDS_OF_AN_ENGINE + 3 * one) / 60,
    )


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
    share = _largest_share(analysis, able, "macs")
    weights = _largest_share(analysis, able, "parameters")
    if share < LEAST_INT8_SHARE and weights < LEAST_INT8_SHARE:
        return Strategy(
            why=f"only {share:.0%} of the MACs and {weights:.0%} of the parameters are in layers that can run "
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
                f"{layers} layers with {share:.0%} of the MACs can run in int8 on {', '.join(able)}; {speed}",
            ),
            ("QuantAware", "only where post-training quantization misses the budget: training takes minutes"),
            ("Distillation", "the samples have no labels for training, so the fp32 model's outputs are the target"),
        ],
        f"{share:.0%} of the MACs can run in int8, and {speed}",
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
