"""The strategies that could meet a budget, with what each is predicted to give and to cost, in the order to try them.

The least that changes the model comes first: half precision and int8, which training mends where they lose too much;
then fewer channels, just as few as the speed that is asked for needs, with and without int8. How few that is the stage
that prunes finds by measuring, from the prediction on; training comes after. What was tried corrects the predictions
(`attempts.py`), so that the next try, which trusts them, is a better one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from act.results import select
from act.results.select import Attempt, ChannelAim, PruneSettings, SpeedupSearch, StageSettings, StrategyPart
from act.settings import Budget
from act.strategy import attempts
from act.strategy.latency.model import Latency

# The least share of the MACs that is left by pruning.
LEAST_SHARE = 0.05
STEP = 0.01
# A speed-up is aimed at a little above what is asked for, because no two measurements are ever the same.
MARGIN = 1.03
# What is within 1 % of what is wanted is tried, too.
_ALMOST = 0.99
# Pruning is never told to stop at less.
_LEAST_AIM = 1.01

WHY_DISTILLATION = "the samples have no labels for training, so the fp32 model's outputs are the target"


@dataclass(frozen=True)
class Option:
    """A strategy to try."""

    parts: tuple[StrategyPart, ...]
    share: float  # of the MACs that pruning is predicted to leave; 1 where nothing is pruned
    aim: float  # speed-up by which pruning measures how much must go; 0 where the share alone says it
    quantized: bool
    best: tuple[str, str]  # engine and precision that is predicted to be the fastest
    precisions: tuple[str, ...]  # that it can run in there; the fastest of them is what counts in the end
    latency: Latency  # predicted there
    speedup: float  # predicted over fp32 on the quickest engine, with the upper end of the error bar
    high: float
    bytes: int  # of the weights, about
    minutes: float  # that it is expected to take
    why: str
    begin: float = 0.0  # share that pruning begins with; 0 for the predicted one

    @property
    def key(self) -> str:
        """Return what tells it from others."""
        names = "+".join(part.name for part in self.parts) or "none"
        return names if self.share >= 1 else f"{names} at {self.share:.2f}"

    @property
    def settings(self) -> StageSettings:
        """Return what the stages after it are told beside the names of the strategies."""
        if self.share >= 1:
            return StageSettings()
        share = round(self.begin or self.share, 4)
        if self.aim <= 0:
            return StageSettings(prune=PruneSettings(channel=ChannelAim(kept_multiply_adds=share)))
        begin = SpeedupSearch(engine=self.best[0], precisions=list(self.precisions), kept_multiply_adds=share)
        channel = ChannelAim(target_speedup=round(self.aim, 4))
        return StageSettings(prune=PruneSettings(channel=channel, timed=begin))

    def may_reach(self, wanted: float) -> bool:
        """Tell whether it is worth a try for a speed-up: what is predicted may be wrong by its error bar, and pruning
        measures before it trains; what was measured is not wrong."""
        return (self.high if self.share < 1 else self.speedup) >= wanted

    def to_result(self) -> select.Option:
        """Return the option as it stands in `options.json`."""
        return select.Option(
            key=self.key,
            strategy=[part.name for part in self.parts],
            settings=self.settings,
            engine=self.best[0],
            precision=self.best[1],
            latency_ms=self.latency.seconds * 1e3,
            latency_low_ms=self.latency.low * 1e3,
            latency_high_ms=self.latency.high * 1e3,
            speedup=self.speedup,
            bytes=self.bytes,
            minutes=self.minutes,
            why=self.why,
        )


@dataclass(frozen=True)
class Costs:
    """Minutes that an option takes, about."""

    quantize: float  # search and refinement
    train: float  # of pruned channels
    measure: float  # export and benchmark


@dataclass(frozen=True)
class Model:
    """What is known of the model."""

    whole: Mapping[tuple[str, str], Latency]  # measured, by engine and precision
    pruned: Callable[[str, str, float], Latency | None]  # predicts it, by them and the share of the MACs that is left
    bytes: int  # of the fp32 weights
    int8_share: float  # of the parameters that can be stored in int8
    can_prune: bool  # whether there are channels to prune
    corrections: Mapping[bool, Mapping[float, float]] = field(default_factory=dict)  # as `attempts.corrections` gives


def wanted_speedup(budget: Budget, whole: Mapping[tuple[str, str], Latency]) -> float:
    """Return the speed-up over fp32 on the fastest engine that the budget asks for, a largest latency included."""
    fp32 = [latency.seconds for (_, precision), latency in whole.items() if precision == "fp32"]
    if budget.max_latency_ms is None or not fp32:
        return budget.min_speedup
    return max(budget.min_speedup, min(fp32) * 1e3 / budget.max_latency_ms)


def rank(
    model: Model,
    tried: Sequence[Attempt],
    budget: Budget,
    quantize: Sequence[StrategyPart],
    costs: Costs,
    precisions: Sequence[str],
) -> list[Option]:
    """Return the options, first to be tried first, with predictions corrected by what was measured of those tried.

    `quantize` are the parts of a strategy that makes int8; empty where nothing can, or the target's precisions lack it.
    """
    wanted, plain = wanted_speedup(budget, model.whole), [name for name in precisions if name != "int8"]
    factors = attempts.corrections(tried, lambda share, int8: _best(model, share, precisions if int8 else plain)[1])
    model = replace(model, corrections=factors)
    names, why = (precisions, "nothing is cut out") if quantize else (plain, "nothing can be quantized")
    options = [_option(model, tuple(quantize), 1.0, names, costs, why)]
    if model.can_prune and wanted > 1:
        asked = f"{wanted:g} times the speed of fp32 is asked for"
        why = f"{asked}, and int8 or half precision alone are not predicted to give it"
        pruned = StrategyPart(name="ChannelPrune", why=why)
        taught = StrategyPart(name="Distillation", why=WHY_DISTILLATION)
        rest = [part for part in quantize if part.name != taught.name]
        ways = [((pruned, *rest, taught), precisions)] if quantize else []
        for parts, names in [*ways, ((pruned, taught), plain)]:
            share = _share_for(model, wanted, names)
            why = f"{share:.0%} of the MACs are to be left, the most that is predicted to be fast enough"
            if share < 1.0:
                options.append(_aimed(_option(model, parts, share, names, costs, why), tried, wanted))
    fast = [option for option in options if option.may_reach(wanted)]
    slow = sorted((option for option in options if option not in fast), key=lambda option: -option.speedup)
    return [*sorted(fast, key=lambda option: (-option.share, option.minutes)), *slow]


def _aimed(option: Option, tried: Sequence[Attempt], wanted: float) -> Option:
    """Return the option with the speed-up at which pruning stops.

    What was tried tells how much of the speed that was measured before training was left in the end, when other
    variants and another minute of the machine counted; and how much had to go for it.
    """
    aim = wanted * MARGIN
    same = [each for each in tried if each.quantized == option.quantized and each.share < 1]
    if not same:
        return replace(option, aim=aim)
    # Predictions are right now where something was tried.
    option = replace(option, high=option.speedup / _ALMOST)
    if not (measured := [each for each in same if each.timed > 0]):
        return option
    aim *= float(np.exp(np.mean([np.log(each.timed / each.fastest) for each in measured])))
    nearest_to_it = min(measured, key=lambda each: abs(np.log(each.timed / aim)))
    begin = min(max(nearest_to_it.share * nearest_to_it.timed / aim, LEAST_SHARE), 0.95)
    return replace(option, aim=max(aim, _LEAST_AIM), begin=begin)


def _share_for(model: Model, wanted: float, precisions: Sequence[str]) -> float:
    """Return the largest share of MACs that is predicted to be fast enough; 1 where the whole model is."""
    if _best(model, 1.0, precisions)[1] >= wanted:
        return 1.0
    low, high = LEAST_SHARE, 1.0
    while high - low > STEP:
        middle = (low + high) / 2
        enough = _best(model, middle, precisions)[1] >= wanted * MARGIN
        low, high = (middle, high) if enough else (low, middle)
    return round(low, 2)


def _best(model: Model, share: float, precisions: Sequence[str]) -> tuple[tuple[str, str], float, Latency]:
    """Return engine and precision of the largest speed-up over fp32 on the quickest engine, that, and the latency."""
    found = []
    fp32 = min((latency.seconds for (_, name), latency in model.whole.items() if name == "fp32"), default=0.0)
    factors = model.corrections.get("int8" in precisions)
    correction = attempts.correction(factors, share) if factors is not None else 1.0
    for (engine, precision), whole in model.whole.items():
        if precision in precisions and (engine, "fp32") in model.whole:
            latency = whole if share >= 1 else model.pruned(engine, precision, share)
            if latency is not None:
                speedup = fp32 / latency.seconds * correction
                found.append(((engine, precision), speedup, latency))
    return max(found, key=lambda each: each[1], default=(("", "fp32"), 1.0, Latency(0.0, 0.0, 0.0)))


def _option(
    model: Model, parts: tuple[StrategyPart, ...], share: float, precisions: Sequence[str], costs: Costs, why: str
) -> Option:
    int8 = "int8" in precisions
    where, speedup, latency = _best(model, share, precisions)
    spread = (latency.high / latency.seconds) if latency.seconds else 1.0
    size = model.bytes * share**0.5 * (1 - 0.75 * model.int8_share if int8 else 1.0)
    minutes = costs.measure + (costs.quantize if int8 else 0.0) + (costs.train if share < 1 else 0.0)
    there = tuple(name for engine, name in model.whole if engine == where[0] and name in precisions)
    return Option(parts, share, 0.0, int8, where, there, latency, speedup, speedup * spread, int(size), minutes, why)
