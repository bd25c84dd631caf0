"""The decision between options: which one is tried next, by what was tried before."""

from collections.abc import Sequence
from dataclasses import dataclass

from act.results.select import Attempt
from act.settings import CLEARLY, Budget
from act.strategy.attempts import MOST_ATTEMPTS, met, nearest, overshot
from act.strategy.options import STEP, Option

# What lost clearly too much was nearly as fast as wanted up to so many times that speed: a little less pruned may lose
# several times less.
_NEARLY = 1.10


@dataclass(frozen=True)
class Decision:
    """What is done next."""

    to_do: Option | Attempt  # tried for the first time, or done again as the best that there is
    why: str  # one sentence
    reachable: bool  # whether the budget was met, or is predicted to be met by what is tried
    open: bool = False  # whether another try could follow this one

    @property
    def option(self) -> Option | None:
        return self.to_do if isinstance(self.to_do, Option) else None

    @property
    def again(self) -> Attempt | None:
        return self.to_do if isinstance(self.to_do, Attempt) else None


def decide(found: Sequence[Option], tried: Sequence[Attempt], budget: Budget, wanted: float) -> Decision:
    """Choose the next option by what was tried.

    What met the budget stays, unless it lost quality for much more speed than was asked for: then less is cut out where
    that is predicted to do, and what met the budget with the least loss stays. What lost too much quality rules out all
    that prunes as much or more, and all that quantizes where int8 alone lost it; where it was lost before int8 was
    made, leaving int8 out is no help; and where pruning alone clearly lost too much, so does the same with int8. What
    clearly lost too much for hardly more than the speed that is wanted rules out pruning a little less, too. What was
    too slow has corrected the predictions already. When nothing is left, or the time is up, the model with all its
    channels is done, if it was not and is predicted to come nearer, and the attempt that came nearest is what stays.
    """
    if not tried:
        return _first_try(found, wanted)
    left = [option for option in found if not _hopeless(option, tried, budget, wanted)]
    fast = [option for option in left if option.may_reach(wanted)]
    spent, limit = sum(attempt.minutes for attempt in tried), budget.time_limit_minutes
    timely = [option for option in left if limit is None or spent + option.minutes <= limit]
    if (good := met(tried)) is not None:
        gentler = [option for option in fast if option.quantized == good.quantized and good.share < option.share < 1]
        if overshot(good, budget) and gentler and gentler[0] in timely and len(tried) < MOST_ATTEMPTS:
            why = (
                f"{good.key} met the budget with more than was asked for ({good.speedup:.2f} times as fast as the "
                f"given model, {good.drop:.4f} of quality lost), so {gentler[0].key} comes next, which cuts out less"
            )
            return Decision(gentler[0], why, True, True)
        return Decision(good, f"{good.key} met the budget", True)
    if fast and fast[0] in timely and len(tried) < MOST_ATTEMPTS:
        last = tried[-1]
        slow = last.fastest < wanted
        missed = f"is {last.fastest:.2f} times as fast" if slow else f"loses {last.lost:.4f} of quality"
        return Decision(fast[0], f"{last.key} {missed}, so {fast[0].key} comes next", True, True)
    why = f"the budget cannot be met: {_why_no_more(fast, tried, limit)}; {_how_near(tried, wanted)}"
    for whole in timely:
        if whole.share >= 1 and whole.speedup > nearest(tried).kept:
            why += f"; {whole.key}, which keeps every channel, is predicted to come nearer and is done last"
            return Decision(whole, why, False, True)
    return Decision(nearest(tried), why, False)


def _first_try(found: Sequence[Option], wanted: float) -> Decision:
    fast = [option for option in found if option.may_reach(wanted)]
    if fast:
        why = f"{fast[0].key} comes first"
        if wanted > 1:
            why += f" ({fast[0].speedup:.2f} times as fast as fp32 is predicted, {wanted:g} are wanted)"
        return Decision(fast[0], why, True, wanted > 1 or len(found) > 1)
    best = max(found, key=lambda option: option.speedup)
    whole = next((option for option in found if option.share >= 1), best)
    why = (
        f"no strategy is predicted to be {wanted:.3g} times as fast as fp32: the nearest is {best.key} with "
        f"{best.speedup:.2f}; {whole.key} is done, which keeps every channel"
    )
    return Decision(whole, why, False)


def _why_no_more(fast: Sequence[Option], tried: Sequence[Attempt], limit: float | None) -> str:
    if not fast:
        return "nothing else is predicted to meet the budget"
    if len(tried) >= MOST_ATTEMPTS:
        return f"{MOST_ATTEMPTS} strategies were tried"
    return f"{fast[0].key} would take {fast[0].minutes:.0f} minutes more, and the time limit is {limit:g}"


def _how_near(tried: Sequence[Attempt], wanted: float) -> str:
    best = nearest(tried)
    told = f"nearest is {best.key}, {best.kept:.2f} times as fast as fp32 where the quality is kept"
    if fast_enough := [attempt for attempt in tried if attempt.fastest >= wanted]:
        cheapest = min(fast_enough, key=lambda attempt: attempt.lost)
        told += f"; {cheapest.key} was {cheapest.fastest:.2f} times as fast, and lost {cheapest.lost:.4f} of quality"
    return told


def _hopeless(option: Option, tried: Sequence[Attempt], budget: Budget, wanted: float) -> bool:
    allowed = budget.max_quality_drop
    for attempt in tried:
        if option.key == attempt.key:
            return True
        same = option.quantized == attempt.quantized
        if same and attempt.share < 1 and abs(option.share - attempt.share) < 2 * STEP:
            return True
        if attempt.share < 1 and option.share < 1:
            # What pruning lost before int8 was made is lost without int8, too.
            lost = attempt.lost if same else attempt.pruned_lost if attempt.quantized else 0.0
            if lost > CLEARLY * allowed and attempt.fastest <= _NEARLY * wanted:
                return True
            if lost > allowed and option.share <= attempt.share:
                return True
        # Int8 comes on top of what pruning lost, though training for it may win some of that back.
        may_lose = allowed * (1.0 if same else CLEARLY)
        if attempt.lost > may_lose and option.quantized >= attempt.quantized and option.share <= attempt.share:
            return True
    return False
