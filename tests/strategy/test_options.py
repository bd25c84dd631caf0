"""Which strategies are tried, in which order, and what each that was tried teaches; on made-up latencies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from act.errors import InputError
from act.results.select import Attempt, ChannelAim, PruneSettings, SpeedupSearch, StageSettings, StrategyPart
from act.settings import Budget
from act.strategy import attempts
from act.strategy.attempts import MOST_ATTEMPTS
from act.strategy.decision import Decision, decide
from act.strategy.latency.model import Latency
from act.strategy.options import Costs, Model, Option, rank, wanted_speedup
from tests.support import results

QUANTIZE = [StrategyPart(name=name, why="a reason") for name in ("QuantPost", "QuantAware", "Distillation")]
COSTS = Costs(quantize=4.0, train=10.0, measure=1.0)
PRECISIONS = ("fp32", "bf16", "int8")
# Seconds of the whole model; with a share of the MACs left, a tenth of them stays.
WHOLE = {"fp32": 10e-3, "bf16": 5e-3, "int8": 4e-3}


def latency(seconds: float) -> Latency:
    return Latency(seconds, 0.9 * seconds, 1.1 * seconds)


def pruned(engine: str, precision: str, share: float) -> Latency | None:
    return latency(WHOLE[precision] * (0.1 + 0.9 * share))


def model(**changes: Any) -> Model:
    whole = {("openvino", name): Latency(seconds, seconds, seconds) for name, seconds in WHOLE.items()}
    made = Model(whole, pruned, 4_000_000, 0.9, True)
    return replace(made, **changes)


def predicted(share: float, quantized: bool) -> float:
    return WHOLE["fp32"] / (WHOLE["int8" if quantized else "bf16"] * (0.1 + 0.9 * share))


def ranked(budget: Budget, **changes: Any) -> list[Option]:
    return rank(model(**changes), [], budget, QUANTIZE, COSTS, PRECISIONS)


def attempt(option: Option, **changes: Any) -> Attempt:
    made = Attempt(
        key=option.key,
        share=option.share,
        quantized=option.quantized,
        predicted=option.speedup,
        fastest=option.speedup,
        lost=0.0,
        speedup=option.speedup,
        drop=0.0,
        latency_ms=option.latency.seconds * 1e3,
        met=False,
        minutes=option.minutes,
        strategy=results.strategy(),
    )
    return made.model_copy(update=changes)


def test_without_a_wish_for_speed_nothing_is_pruned() -> None:
    (option,) = ranked(Budget())
    assert option.share == 1 and option.quantized and option.best == ("openvino", "int8")
    assert option.speedup == pytest.approx(2.5) and option.settings == StageSettings()
    assert option.bytes == pytest.approx(4_000_000 * 0.325) and option.minutes == 5.0


def test_what_is_fast_enough_whole_comes_first() -> None:
    budget = Budget(min_speedup=2.4)
    options = ranked(budget)
    assert options[0].share == 1
    found = decide(options, [], budget, 2.4)
    assert found.to_do.key == options[0].key and found.reachable


def test_just_as_much_is_pruned_as_the_speed_needs() -> None:
    budget = Budget(min_speedup=4)
    first = ranked(budget)[0]
    names = [part.name for part in first.parts]
    assert names == ["ChannelPrune", "QuantPost", "QuantAware", "Distillation"] and first.quantized
    # 2.5 / (0.1 + 0.9 share) is to be 4 and 3 % more.
    assert first.share == pytest.approx((2.5 / 4.12 - 0.1) / 0.9, abs=0.015)
    timed = SpeedupSearch(engine="openvino", precisions=list(first.precisions), kept_multiply_adds=first.share)
    assert first.best[1] == "int8" and {"fp32", "int8"} <= set(first.precisions)
    aim = PruneSettings(channel=ChannelAim(target_speedup=4.12), timed=timed)
    assert first.settings == StageSettings(prune=aim)
    assert first.minutes == 15.0 and first.speedup < first.high


def test_a_largest_latency_is_a_wish_for_speed() -> None:
    assert wanted_speedup(Budget(max_latency_ms=2.5), model().whole) == pytest.approx(4)
    assert wanted_speedup(Budget(max_latency_ms=2.5, min_speedup=6), model().whole) == 6
    assert wanted_speedup(Budget(max_latency_ms=50.0), model().whole) == 1


def test_what_nothing_can_reach_is_said_at_once() -> None:
    budget = Budget(min_speedup=50)
    found = decide(ranked(budget), [], budget, 50)
    assert not found.reachable and not found.open
    assert found.option is not None and found.option.share == 1
    assert "no strategy is predicted to be 50 times as fast" in found.why and "the nearest is" in found.why


def test_what_the_error_bar_holds_is_tried_since_it_is_measured_before_training() -> None:
    most = max(option.speedup for option in ranked(Budget(min_speedup=50)))
    wanted = 1.05 * most  # made-up error bars are a tenth wide
    found = decide(ranked(Budget(min_speedup=wanted)), [], Budget(min_speedup=wanted), wanted)
    assert found.reachable and found.option is not None and found.option.speedup < wanted < found.option.high


def test_a_model_without_channels_is_never_pruned() -> None:
    assert all(option.share == 1 for option in ranked(Budget(min_speedup=9), can_prune=False))


def second(changes: dict[str, Any], budget: Budget, wanted: float) -> tuple[Option, Decision]:
    """What comes after the first option came to something."""
    options = ranked(budget)
    first = decide(options, [], budget, wanted).option
    assert first is not None
    tried = [attempt(first, **changes)]
    again = rank(model(), tried, budget, QUANTIZE, COSTS, PRECISIONS)
    return first, decide(again, tried, budget, wanted)


def test_too_slow_corrects_the_prediction_and_more_is_pruned() -> None:
    budget = Budget(min_speedup=4)
    first, found = second({"fastest": 3.4, "speedup": 3.4}, budget, 4.0)
    assert found.option is not None and found.open and found.option.quantized
    # Four fifths of the speed come of the same pruning, so that the next one aims a fifth higher.
    assert found.option.share < first.share - 0.05
    # What was tried says how much to prune, better than a measurement before training did.
    channel = ChannelAim(kept_multiply_adds=found.option.share)
    assert found.option.settings == StageSettings(prune=PruneSettings(channel=channel))
    assert "is 3.40 times as fast" in found.why


def test_what_came_of_a_measurement_before_training_corrects_the_next_aim() -> None:
    budget = Budget(min_speedup=4)
    first, found = second({"met": True, "fastest": 4.8, "speedup": 4.8, "drop": 0.005, "timed": 4.2}, budget, 4.0)
    assert found.option is not None
    aim = 4.12 * 4.2 / 4.8
    chosen = found.option.settings.prune
    assert (
        chosen is not None
        and chosen.timed is not None
        and chosen.channel.target_speedup == pytest.approx(aim, abs=1e-3)
    )
    assert chosen.timed.kept_multiply_adds == pytest.approx(first.share * 4.2 / aim, abs=1e-3)
    # What came to more and what came to less are taken together, and what is near is begun with.
    more = attempt(first, fastest=4.8, timed=4.2, share=0.4)
    less = more.model_copy(update={"key": "less", "fastest": 3.6, "timed": 3.6, "share": 0.5})
    options = rank(model(), [more, less], budget, QUANTIZE, COSTS, PRECISIONS)
    third = next(option for option in options if option.quantized and option.share < 1)
    assert third.aim == pytest.approx(4.12 * (4.2 / 4.8) ** 0.5)
    assert third.begin == pytest.approx(0.5 * 3.6 / third.aim)
    assert third.high == pytest.approx(third.speedup / 0.99), "what was tried is known"


def test_what_was_not_as_fast_whole_as_it_had_been_measured_is_pruned() -> None:
    budget = Budget(min_speedup=2.4)
    whole = ranked(budget)[0]
    assert (
        whole.share == 1 and whole.quantized and not any(each.share < 1 and each.quantized for each in ranked(budget))
    )
    tried = [attempt(whole, fastest=1.8, speedup=1.8)]
    again = rank(model(), tried, budget, QUANTIZE, COSTS, PRECISIONS)
    pruned = next(option for option in again if option.share < 1 and option.quantized)
    # How much is to go is measured, for nothing was tried pruned.
    assert pruned.aim > 0 and pruned.speedup == pytest.approx(2.4 * 1.03, rel=0.03)
    assert decide(again, tried, budget, 2.4).option != whole


def test_a_correction_is_right_where_something_was_tried_and_fades_towards_the_whole_model() -> None:
    for share, factor in ((0.25, 2), (1.0, 1), (0.5, 2**0.5), (0.1, 2)):
        assert attempts.correction({1.0: 1.0, 0.25: 2.0}, share) == pytest.approx(factor)
    budget = Budget(min_speedup=4)
    option = ranked(budget)[0]
    # Of what pruning really left, and not of what it was told to leave.
    tried = [attempt(option, share=0.3, fastest=1.5 * predicted(0.3, True))]
    told = attempts.corrections(tried, predicted)[True]
    assert told == {0.3: pytest.approx(1.5), 1.0: 1}


def test_what_pruning_and_int8_lost_is_tried_without_int8() -> None:
    budget = Budget(min_speedup=4, max_quality_drop=0.01)
    _, found = second({"lost": 0.05, "speedup": 1.0}, budget, 4.0)
    assert found.option is not None and not found.option.quantized and "loses 0.0500" in found.why


def test_what_int8_lost_alone_is_not_pruned_besides() -> None:
    budget = Budget(min_speedup=2.4, max_quality_drop=0.01)
    _, found = second({"lost": 0.05, "speedup": 1.0}, budget, 2.4)
    assert found.option is None or not found.option.quantized


@pytest.mark.parametrize(("lost", "with_int8"), [(0.009, True), (0.015, True), (0.05, False)])
def test_what_pruning_alone_clearly_lost_is_not_quantized_besides(lost: float, with_int8: bool) -> None:
    budget = Budget(min_speedup=4, max_quality_drop=0.01)
    options = ranked(budget)
    pruned = next(option for option in options if option.share < 1 and not option.quantized)
    tried = [attempt(pruned, lost=lost, share=0.999, fastest=3.9, speedup=1.0)]
    found = decide([option for option in options if option.quantized], tried, budget, 4.0)
    assert found.option is not None and (found.option.share < 1) == with_int8


@pytest.mark.parametrize(
    ("pruned_lost", "share", "without_int8"), [(0.0, 0.5, True), (0.02, 0.5, False), (0.02, 0.01, True)]
)
def test_what_pruning_lost_before_int8_is_not_had_back_without_it(
    pruned_lost: float, share: float, without_int8: bool
) -> None:
    budget = Budget(min_speedup=4, max_quality_drop=0.01)
    options = ranked(budget)
    first = next(option for option in options if option.share < 1 and option.quantized)
    tried = [attempt(first, lost=0.03, share=share, fastest=4.1, speedup=1.0, pruned_lost=pruned_lost)]
    found = decide([option for option in options if not option.quantized], tried, budget, 4.0)
    assert (found.option is not None) == without_int8


@pytest.mark.parametrize("fastest", [3.9, 4.1])
def test_what_lost_too_much_is_not_pruned_more_however_fast_it_was(fastest: float) -> None:
    budget = Budget(min_speedup=4, max_quality_drop=0.01)
    option = next(option for option in ranked(budget) if option.share < 1)
    tried = [attempt(option, key="before", lost=0.05, share=option.share + 0.1, fastest=fastest, speedup=1.0)]
    found = decide([option], tried, budget, 4.0)
    assert found.again == tried[0] and not found.reachable
    assert ("4.10 times as fast, and lost 0.0500 of quality" in found.why) == (fastest > 4)


@pytest.mark.parametrize(("fastest", "lost", "hopeless"), [(4.3, 0.03, True), (4.6, 0.03, False), (4.3, 0.015, False)])
def test_what_clearly_lost_too_much_at_about_that_speed_is_not_pruned_a_little_less(
    fastest: float, lost: float, hopeless: bool
) -> None:
    budget = Budget(min_speedup=4, max_quality_drop=0.01)
    for option in (each for each in ranked(budget) if each.share < 1):
        tried = [attempt(option, key="more", share=option.share - 0.1, lost=lost, fastest=fastest, speedup=1.0)]
        assert (decide([option], tried, budget, 4.0).option is None) == hopeless
        # Nor is it without int8, where pruning had lost that before.
        tried = [tried[0].model_copy(update={"quantized": True, "pruned_lost": lost})]
        assert (decide([option], tried, budget, 4.0).option is None) == hopeless


def test_what_met_the_budget_is_done_again() -> None:
    budget = Budget(min_speedup=4)
    _, found = second({"met": True}, budget, 4.0)
    assert found.again is not None and found.option is None and not found.open and "met the budget" in found.why


def test_where_more_was_cut_out_than_the_speed_needs_less_is() -> None:
    budget = Budget(min_speedup=4)
    first, found = second({"met": True, "fastest": 4.8, "speedup": 4.8, "drop": 0.005}, budget, 4.0)
    assert found.option is not None and found.open and found.option.share > first.share + 0.05
    assert "4.80 times as fast" in found.why and "cuts out less" in found.why


@pytest.mark.parametrize("changes", [{"drop": 0.0}, {"speedup": 4.3}, {"share": 1.0}, {"minutes": 100.0}])
def test_else_what_met_the_budget_stays(changes: dict[str, Any]) -> None:
    budget = Budget(min_speedup=4, time_limit_minutes=60)
    made = {"met": True, "fastest": 4.8, "speedup": 4.8, "drop": 0.005, **changes}
    _, found = second(made, budget, 4.0)
    assert found.again is not None and found.option is None and "met the budget" in found.why


def test_of_what_met_the_budget_the_one_that_lost_least_is_kept() -> None:
    budget = Budget(min_speedup=4)
    option = ranked(budget)[0]
    fast = attempt(option, key="fast", met=True, fastest=4.8, speedup=4.8, drop=0.008, latency_ms=2.0)
    slower = fast.model_copy(
        update={"key": "slower", "share": 0.99, "fastest": 4.2, "speedup": 4.2, "drop": 0.005, "latency_ms": 2.3}
    )
    worse = slower.model_copy(update={"drop": 0.009})
    assert decide([], [fast, slower], budget, 4.0).again == slower
    assert decide([], [fast, worse], budget, 4.0).again == fast
    # A latency that may be taken is a wish, too: what just holds it did not cut out too much.
    assert attempts.overshot(fast, budget)
    assert not attempts.overshot(fast, Budget(min_speedup=4, max_latency_ms=2.1))
    assert attempts.overshot(fast, Budget(max_latency_ms=2.3))


def tries(budget: Budget) -> list[Attempt]:
    """As many as there may be, each a little nearer to the speed and none there."""
    option = ranked(budget)[0]
    return [
        attempt(option, key=f"try {n}", share=0.9 - n / 10, fastest=2.6 + n / 10, kept=2.6 + n / 10)
        for n in range(MOST_ATTEMPTS)
    ]


def test_in_the_end_the_nearest_is_done_again() -> None:
    budget = Budget(min_speedup=4)
    tried = tries(budget)
    found = decide(ranked(budget), tried, budget, 4.0)
    assert found.again == tried[-1] and not found.reachable and not found.open
    assert "cannot be met: 4 strategies were tried" in found.why and "2.90 times" in found.why
    # Where none kept more of the speed than another, what was done last need not be done again.
    equal = [each.model_copy(update={"kept": 2.6}) for each in tried]
    assert decide(ranked(budget), equal, budget, 4.0).again == equal[-1]


def test_in_the_end_all_channels_are_kept_where_that_comes_nearer() -> None:
    budget = Budget(min_speedup=4, time_limit_minutes=100)
    options = ranked(budget)
    whole = next(option for option in options if option.share == 1)
    tried = [each.model_copy(update={"lost": 0.2, "kept": 1.0}) for each in tries(budget)]
    found = decide(options, tried, budget, 4.0)
    assert found.option == whole and not found.reachable and found.open and "cannot be met" in found.why
    done = attempt(whole, fastest=2.5, kept=2.4)
    after = decide(options, [*tried, done], budget, 4.0)
    assert after.again == done and not after.open and "2.40 times as fast" in after.why
    # Not where it is too late, or where what was tried comes as near.
    late = Budget(min_speedup=4, time_limit_minutes=sum(each.minutes for each in tried) + whole.minutes - 1)
    for known, limited in ((tried, late), ([*tried[:3], tried[3].model_copy(update={"kept": 2.5})], budget)):
        assert decide(options, known, limited, 4.0).again == known[-1]


def test_the_time_limit_ends_it() -> None:
    budget = Budget(min_speedup=4, time_limit_minutes=20)
    _, found = second({"fastest": 3.4, "kept": 3.4}, budget, 4.0)
    assert found.again is not None and "the time limit is 20" in found.why


def test_attempts_are_kept_for_the_same_job_only(tmp_path: Path) -> None:
    option = ranked(Budget(min_speedup=4))[0]
    made = attempt(option)
    attempts.add("mine", "abc", made, tmp_path)
    attempts.add("mine", "abc", made.model_copy(update={"key": "other"}), tmp_path)
    assert [each.key for each in attempts.read("mine", "abc", tmp_path)] == [option.key, "other"]
    assert attempts.read("mine", "changed", tmp_path) == [] and attempts.read("yours", "abc", tmp_path) == []
    # The same again takes its place.
    attempts.add("mine", "abc", made.model_copy(update={"fastest": 9.0}), tmp_path)
    assert [each.fastest for each in attempts.read("mine", "abc", tmp_path)][-1] == 9.0
    (tmp_path / "mine.json").write_text('{"schema_version": 1, "of": "abc", "attempts": [{"key": 1}]}')
    with pytest.raises(InputError, match="attempts.0"):
        attempts.read("mine", "abc", tmp_path)
