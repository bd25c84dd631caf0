"""The strategies that could meet a budget, with what each is predicted to give and to cost, in the order to try them.

The least that changes the model comes first: half precision and int8, which training mends where they lose too much;
then fewer channels, just as few as the speed that is asked for needs, with and without int8. How few that is the stage
that prunes finds by measuring, from the prediction on; training comes after. What was tried corrects the predictions
(`attempts.py`), so that the next try, which trusts them, is a better one.
"""

from __future__ import annotations

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
    """A strategy to try.

    Attributes:
        share: of the MACs that pruning is predicted to leave; 1 where nothing is pruned.
        aim: speed-up by which pruning measures how much must go; 0 where the share alone says it.
        begin: share that it begins with; 0 for the predicted one.
        best: engine and precision that is predicted to be the fastest.
        precisions: those that it can run in there; the fastest of them is what counts in the end.
        latency, speedup, low, high: predicted there, over fp32 on the same engine.
        bytes: of the weights, about.
        minutes: that it is expected to take.
    """

    parts: tuple[StrategyPart, ...]
    share: float
    aim: float
    quantized: bool
    best: tuple[str, str]
    precisions: tuple[str, ...]
    latency: Latency
    speedup: float
    low: float
    high: float
    bytes: int
    minutes: float
    why: str
    begin: float = 0.0

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
    """Minutes of an option, about: the search and refinement, training of pruned channels, export and benchmark."""

    quantize: float
    train: float
    measure: float


@dataclass(frozen=True)
class Model:
    """What is known of the model.

    Attributes:
        whole: measured latency by (engine, precision).
        pruned: predicts the latency by (engine, precision) with a share of the MACs.
        bytes: of the fp32 weights.
        int8_share: share of the parameters that can be stored in int8.
        can_prune: whether there are channels to prune.
        source: tells where predictions come from.
        corrections: factors of predicted speed-ups, as `act.strategy.attempts` gives them.
    """

    whole: Mapping[tuple[str, str], Latency]
    pruned: Callable[[str, str, float], Latency | None]
    bytes: int
    int8_share: float
    can_prune: bool
    source: Callable[[], str]
    corrections: Mapping[bool, Mapping[float, float]] = field(default_factory=dict)
    tried: Sequence[Attempt] = ()


def corrected(model: Model, tried: Sequence[Attempt], precisions: Sequence[str]) -> Model:
    """Return the model with its predictions corrected by what was measured of those that were tried."""

    def predicted(share: float, int8: bool) -> float:
        return _best(model, share, precisions if int8 else _plain(precisions))[1]

    return replace(model, corrections=attempts.corrections(tried, predicted), tried=tried)


def _plain(precisions: Sequence[str]) -> list[str]:
    return [name for name in precisions if name != "int8"]


def wanted_speedup(budget: Budget, whole: Mapping[tuple[str, str], Latency]) -> float:
    """Return the speed-up over fp32 on the fastest engine that the budget asks for, a largest latency included."""
    fp32 = [latency.seconds for (_, precision), latency in whole.items() if precision == "fp32"]
    if budget.max_latency_ms is None or not fp32:
        return budget.min_speedup
    return max(budget.min_speedup, min(fp32) * 1e3 / budget.max_latency_ms)


def rank(
    model: Model, budget: Budget, quantize: Sequence[StrategyPart], costs: Costs, precisions: Sequence[str]
) -> list[Option]:
    """Return the options, first to be tried first.

    Args:
        quantize: the parts of a strategy that makes int8; empty where nothing can, or int8 is none of `precisions`.
        precisions: those of the target.
    """
    wanted = wanted_speedup(budget, model.whole)
    plain = _plain(precisions)
    if quantize:
        options = [_option(model, tuple(quantize), 1.0, precisions, costs, "nothing is cut out")]
    else:
        options = [_option(model, (), 1.0, plain, costs, "nothing can be quantized")]
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
                options.append(_aimed(_option(model, parts, share, names, costs, why), model.tried, wanted))
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
    """Return engine and precision of the largest speed-up over fp32 there, that speed-up, and the latency."""
    found: list[tuple[float, tuple[str, str], Latency]] = []
    factors = model.corrections.get("int8" in precisions)
    for engine, precision in model.whole:
        if precision not in precisions or (engine, "fp32") not in model.whole:
            continue
        latency = model.whole[engine, precision] if share >= 1 else model.pruned(engine, precision, share)
        if latency is None:
            continue
        speedup = model.whole[engine, "fp32"].seconds / latency.seconds
        if factors is not None:
            speedup *= attempts.correction(factors, share)
        found.append((speedup, (engine, precision), latency))
    if not found:
        return ("", "fp32"), 1.0, Latency(0.0, 0.0, 0.0)
    speedup, where, latency = max(found, key=lambda each: each[0])
    return where, speedup, latency


def _option(
    model: Model, parts: tuple[StrategyPart, ...], share: float, precisions: Sequence[str], costs: Costs, why: str
) -> Option:
    int8 = "int8" in precisions
    where, speedup, latency = _best(model, share, precisions)
    spread = (latency.high / latency.seconds) if latency.seconds else 1.0
    size = model.bytes * share**0.5 * (1 - 0.75 * model.int8_share if int8 else 1.0)
    minutes = costs.measure + (costs.quantize if int8 else 0.0) + (costs.train if share < 1 else 0.0)
    there = tuple(name for engine, name in model.whole if engine == where[0] and name in precisions)
    low, high = speedup / spread, speedup * spread
    return Option(parts, share, 0.0, int8, where, there, latency, speedup, low, high, int(size), minutes, why)
