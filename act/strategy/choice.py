"""The choice of a strategy: obeyed where the user fixed it, else the next option that could meet the budget.

`analyze` measures the model itself on each engine, in fp32, bf16 and int8, with the kernels that the engine made of it.
For what is pruned those kernels get fewer channels and are predicted: from the table that `act.strategy.profile`
measured on this machine, where there is one, and from the model's own kernels in any case.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from functools import cached_property
from pathlib import Path

from act import machine
from act.errors import InputError
from act.results.analyze import Analysis, Baseline
from act.results.select import Attempt, Options, StageSettings, Strategy, StrategyPart
from act.settings import PRUNING, QUANTIZING, EngineName, Job
from act.strategy import options
from act.strategy.decision import decide
from act.strategy.latency.model import Latency, LatencyModel
from act.strategy.latency.scale_channels import scale_to_macs
from act.strategy.latency.table import Table, find_table

# Below this share of the MACs and of the parameters in layers that can run in int8, quantization makes a model neither
# faster, for its conversions cost more than it saves, nor smaller.
_LEAST_INT8_SHARE = 0.1
# Estimates of what stages take.
_SECONDS_OF_A_TRIAL, _REFINE_MINUTES = 2.0, 2.0
_TRAINING_COST = 8.0  # times the latency of the fp32 model, for each sample and epoch
_SECONDS_OF_AN_ENGINE = 20.0


def obey(job: Job, analysis: Analysis) -> Strategy:
    """Return the strategy that the user fixed; `InputError` where the model lacks what it takes."""
    names = job.strategy if job.strategy != "auto" else []
    if names and analysis.no_onnx:
        raise InputError(
            f"`strategy` asks for {', '.join(names)}, but the model has no ONNX form, by which activations are read: "
            f"{analysis.no_onnx}; set it to [] or `auto`, and the model is measured as it is"
        )
    why = "the strategy is fixed in params.yaml" if names else "params.yaml asks for no compression"
    return _compose([StrategyPart(name=name, why="asked for in params.yaml") for name in names], why, obeyed=True)


def _compose(
    parts: Sequence[StrategyPart], why: str, settings: StageSettings | None = None, obeyed: bool = False
) -> Strategy:
    """Return the strategy that is made of parts; where the user fixed it, training is done whether needed or not."""
    names = [part.name for part in parts]
    return Strategy(
        strategy=list(parts),
        prune=[name for name in names if name in PRUNING],
        quantize=any(name in QUANTIZING for name in names),
        search="HyperParameterOptimization" in names,
        train="QuantAware" in names,
        train_always="QuantAware" in names and obeyed,
        settings=settings or StageSettings(),
        why=why,
    )


def next_strategy(
    job: Job, analysis: Analysis, tables: Path, tried: Sequence[Attempt], of: str
) -> tuple[Strategy, Options]:
    """Return the next option to try, or the best of those that were tried, and what it was chosen from.

    Args:
        tables: folder with the kernels that each engine made of the model.
        of: the fingerprint that attempts are kept under.
    """
    plain = quantization(job, analysis)
    model, predictors = _model(job, analysis, tables)
    found = options.rank(model, tried, job.budget, plain.strategy, _costs(job, analysis), job.target.precisions)
    wanted = options.wanted_speedup(job.budget, model.whole)
    decision = decide(found, tried, job.budget, wanted)
    option = decision.option
    if decision.again is not None:
        # As it was then, to the letter: a figure in a reason would have all stages run again.
        strategy = decision.again.strategy
    elif option is None or option.share >= 1:
        strategy = plain
    else:
        left = f"{option.aim:.3g} times the speed is aimed at" if option.aim else f"{option.share:.0%} of the MACs stay"
        strategy = _compose(option.parts, f"{left}; {plain.why}", option.settings)
    return strategy, Options(
        options=[each.to_result() for each in found],
        chosen=decision.to_do.key,
        predicted_speedup=option.speedup if option else None,
        verdict=decision.why,
        wanted_speedup=wanted,
        reachable=decision.reachable,
        open=decision.open,
        attempts=list(tried),
        source="; ".join(f"{engine}: {each.source}" for engine, each in predictors.items()) or "measured",
        of=of,
    )


def quantization(job: Job, analysis: Analysis) -> Strategy:
    """Return the strategy that quantizes the model on this CPU, or does nothing where that gains nothing."""
    if analysis.no_onnx:
        return _compose([], "the model has no ONNX form, by which activations are read, so nothing is quantized")
    if "int8" not in job.target.precisions:
        return _compose([], "int8 is not among the target's precisions, so nothing is quantized")
    able = {name: analysis.engines[name] for name in job.target.engines if "int8" in analysis.engines[name].precisions}
    if not able:
        return _compose([], "none of the target's engines can run int8 here, so nothing is quantized")
    share = _share(max(engine.int8_macs for engine in able.values()), analysis.macs)
    weights = _share(max(engine.int8_parameters for engine in able.values()), analysis.parameters)
    if share < _LEAST_INT8_SHARE and weights < _LEAST_INT8_SHARE:
        few = f"only {share:.0%} of the MACs and {weights:.0%} of the parameters"
        return _compose([], f"{few} are in layers that can run in int8, so nothing is quantized")
    speed = "this CPU has no int8 instructions, so int8 may be slower than fp32: the benchmark decides"
    if fast := [machine.CAPABILITIES[flag] for flag in analysis.machine.capabilities if flag in machine.INT8_FLAGS]:
        speed = f"this CPU has {', '.join(fast)}, which multiply int8 several times faster than fp32"
    layers = max(engine.int8_layers for engine in able.values())
    reasons = {
        "HyperParameterOptimization": "the best threshold rule differs from model to model, and a trial takes seconds",
        "QuantPost": f"{layers} layers with {share:.0%} of the MACs can run in int8 on {', '.join(able)}; {speed}",
        "QuantAware": "only where post-training quantization misses the budget: training takes minutes",
        "Distillation": options.WHY_DISTILLATION,
    }
    parts = [StrategyPart(name=name, why=why) for name, why in reasons.items()]
    return _compose(parts, f"{share:.0%} of the MACs can run in int8, and {speed}")


def _share(part: int, total: int) -> float:
    return part / total if total else 0.0


def precisions(job: Job, analysis: Analysis, quantize: bool) -> dict[str, list[StrategyPart]]:
    """Return what is worth measuring on each engine."""
    reasons = {"fp32": "the reference"}
    if "bf16" in job.target.precisions:
        reasons["bf16"] = "this engine and CPU run fp32 files in bfloat16, which needs no search"
    if quantize:
        reasons["int8"] = "the result of the search and of training"
    parts = [StrategyPart(name=name, why=why) for name, why in reasons.items()]
    return {
        engine: [part for part in parts if part.name in ("fp32", *analysis.engines[engine].precisions)]
        for engine in job.target.engines
    }


def search_engine(job: Job, analysis: Analysis, quantize: bool) -> EngineName | None:
    """Return the engine that candidates are searched on; None where there is none.

    It is the first of the target on which fp32 runs here, and gives what the given model gives; where the model is to
    be quantized the first of those that have int8, if any has.
    """
    running = [name for name in job.target.engines if _runs(analysis.own.get(name, {}).get("fp32"))]
    able = [name for name in running if quantize and "int8" in analysis.engines[name].precisions]
    return next(iter([*able, *running]), None)


def in_float(analysis: Analysis) -> dict[str, list[str]]:
    """Return by engine the layers that it was found to compute wrongly in int8, where there are any."""
    wrong = {name: told.wrong_int8 for name, told in analysis.engines.items() if told.wrong_int8}
    return {name: [layer for each in kinds for layer in each.layers] for name, kinds in wrong.items()}


def _runs(fp32: Baseline | None) -> bool:
    return fp32 is not None and fp32.failure is None


class _Predictor:
    """The latencies of one model on one engine, given the table of the model's own measurements."""

    def __init__(self, own: Table) -> None:
        self._table = find_table(own.header)
        self._threads = own.rows[0].threads if own.rows else 1
        self._measured = {row.precision: row.measured for row in own.rows if row.failure is None}

    @property
    def source(self) -> str:
        """Tell where predictions come from."""
        own = "the model's own kernels alone, for there is no table of this machine: roughly"
        return f"the table {self._table.path.name}" if self._table is not None else own

    def latency(self, precision: str, share: float) -> Latency | None:
        """Return the latency with a share of the MACs left, below 1; None where the engine told no kernels."""
        whole = self._measured.get(precision)
        if whole is None or not whole.kernels:
            return None
        kernels = [kernel for kernel, _ in whole.kernels]
        # What the model makes of the whole is known to be wrong by so much, and so is what it makes of a part.
        known = whole.seconds / self._model.predict(kernels).seconds
        return Latency(*(known * each for each in astuple(self._model.predict(scale_to_macs(kernels, share)))))

    @cached_property
    def _model(self) -> LatencyModel:
        own = [measured for measured in self._measured.values() if measured.kernels]
        if self._table is None:
            return LatencyModel(own, errors=())
        errors = self._table.noted.get(self._threads, ())
        return LatencyModel([*self._table.measured(self._threads), *own], errors)


def _model(job: Job, analysis: Analysis, tables: Path) -> tuple[options.Model, Mapping[str, _Predictor]]:
    """Return what is known of the model, and the predictors by engine, which come when they are first asked for."""
    whole = {
        (engine, precision): Latency(each.seconds, each.seconds, each.seconds)
        for engine, by_precision in analysis.own.items()
        for precision, each in by_precision.items()
        if each.seconds is not None
    }
    predictors: dict[str, _Predictor] = {}

    def pruned(engine: str, precision: str, share: float) -> Latency | None:
        if engine not in predictors:
            predictors[engine] = _Predictor(Table.read(tables / f"{engine}.jsonl"))
        return predictors[engine].latency(precision, share)

    able = max((analysis.engines[name].int8_parameters for name in job.target.engines), default=0)
    convolutions = any(operator.type in ("conv2d", "depthwise_conv2d") for operator in analysis.operators)
    named = job.prune.channel.pruned_ratio is not None or job.prune.channel.target_speedup is not None
    int8_share, can_prune = _share(able, analysis.parameters), convolutions and not named and not analysis.no_onnx
    return options.Model(whole, pruned, 4 * analysis.parameters, int8_share, can_prune), predictors


def _costs(job: Job, analysis: Analysis) -> options.Costs:
    """Estimate by the latency: a trial evaluates the model once, a training step takes some times as long a sample."""
    measured = [each["fp32"].seconds for each in analysis.own.values() if "fp32" in each]
    seconds = min((each for each in measured if each is not None), default=0.01)
    evaluation = getattr(job.data, "evaluation", 512)
    calibration = getattr(job.data, "calibration", 128)
    one = evaluation * seconds
    return options.Costs(
        quantize=job.ptq_search.max_quant_count * (one + _SECONDS_OF_A_TRIAL) / 60 + _REFINE_MINUTES,
        train=job.prune.epochs * (calibration * seconds * _TRAINING_COST + one) / 60,
        measure=len(job.target.engines) * (_SECONDS_OF_AN_ENGINE + 3 * one) / 60,
    )
