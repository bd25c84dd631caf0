"""What every sampler must do, and that the forest finds better settings than chance does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from act.results.ptq_search import TrialSettings
from act.search import sampler as sampler_module
from act.search.sampler import ForestSampler, Observation, front, importance
from act.search.space import PARAMETERS, Space
from benchmarks.hypervolume import hypervolume
from benchmarks.random_sampler import RandomSampler

SPACE = Space(
    ptq_algo=("abs_max", "avg", "hist", "mse", "KL"),
    hist_percent=(0.999, 0.9999, 0.99999),
    batch_num=(4, 16),
    activation_symmetric=(False, True),
    weight_quantize_type=("abs_max", "channel_wise_abs_max", "channel_wise_mse"),
    bias_correct=(False, True),
    quantizable_op_type=(
        ("conv2d",),
        ("conv2d", "depthwise_conv2d"),
        ("conv2d", "depthwise_conv2d", "matmul_v2", "mul"),
    ),
    float_layers=(0, 1, 2, 4, 8, 16),
)
TINY = Space(("avg", "hist"), (0.999, 0.9999), (8,), (True, False), ("abs_max",), (False, True), (("mul",),), (0, 1))
SAMPLERS = [RandomSampler, ForestSampler]

Measure = Callable[[TrialSettings], tuple[float, float]]
Make = type[RandomSampler] | type[ForestSampler]


def plain(setting: TrialSettings) -> tuple[float, float]:
    """A quality with one terrible region, and a cost that falls as quality does."""
    quality = 0.9 + 0.01 * setting.float_layers**0.5 + 0.02 * setting.bias_correct - 0.03 * setting.activation_symmetric
    if setting.ptq_algo == "abs_max":
        quality = 0.01
    return quality, 1.0 + 0.1 * setting.float_layers - 0.2 * setting.activation_symmetric


def constant(setting: TrialSettings) -> tuple[float, float]:
    return 0.5, 1.0


def failing(setting: TrialSettings) -> tuple[float, float]:
    return (-math.inf, math.inf) if setting.activation_symmetric else plain(setting)


def observe(settings: Sequence[TrialSettings], measure: Measure) -> list[Observation]:
    return [Observation(setting, *measure(setting)) for setting in settings]


def search(sampler: ForestSampler, measure: Measure, trials: int, count: int = 1) -> list[Observation]:
    history: list[Observation] = []
    while len(history) < trials:
        history += observe(sampler.suggest(history, count), measure)
    return history


@pytest.fixture(params=SAMPLERS)
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Give each sampler; few trees will do for what does not depend on how good the suggestions are."""
    monkeypatch.setattr(sampler_module, "TREES", 5)
    found: Make = request.param
    return found


@pytest.mark.parametrize("measure", [plain, constant, failing])
def test_suggestions_are_new_and_in_the_space(make: Make, measure: Measure) -> None:
    settings = [observation.setting for observation in search(make(SPACE, 3), measure, 24)]
    assert set(settings) <= set(SPACE)
    assert len(set(settings)) == len(settings)


@pytest.mark.parametrize("count", [1, 5, 1000])
@pytest.mark.parametrize("measure", [plain, constant])
def test_a_tiny_space_is_exhausted_exactly(make: Make, count: int, measure: Measure) -> None:
    history = search(make(TINY, 0), measure, TINY.size, count)
    assert len(history) == TINY.size
    assert {observation.setting for observation in history} == set(TINY)
    assert make(TINY, 0).suggest(history, count) == []


def test_a_resumed_search_goes_on_as_an_uninterrupted_one(make: Make) -> None:
    whole = search(make(SPACE, 5), plain, 20)
    for length in range(len(whole)):
        assert make(SPACE, 5).suggest(whole[:length], 1) == [whole[length].setting]


def test_calls_before_do_not_matter(make: Make) -> None:
    history = search(make(SPACE, 1), plain, 10)
    sampler = make(SPACE, 1)
    expected = sampler.suggest(history, 3)
    sampler.suggest(history[:4], 2)
    sampler.suggest([], 1)
    assert sampler.suggest(history, 3) == expected


def test_the_first_of_several_is_the_one_alone(make: Make) -> None:
    history = search(make(SPACE, 2), plain, 12)
    assert make(SPACE, 2).suggest(history, 4)[:1] == make(SPACE, 2).suggest(history, 1)


def test_the_seed_matters(make: Make) -> None:
    history = search(RandomSampler(SPACE, 9), plain, 12) + observe(SPACE.first(), plain)
    assert len({tuple(make(SPACE, seed).suggest(history, 3)) for seed in range(5)}) == 5


@pytest.mark.parametrize("length", [0, 1, 2])
@pytest.mark.parametrize("count", [0, 1, 12])
def test_short_histories(make: Make, length: int, count: int) -> None:
    history = search(RandomSampler(SPACE, 4), plain, length)
    settings = make(SPACE, 4).suggest(history, count)
    assert len(set(settings)) == len(settings) == count
    assert not {observation.setting for observation in history} & set(settings)


def test_several_suggestions_are_different(make: Make) -> None:
    history = search(make(SPACE, 6), plain, 11)
    settings = make(SPACE, 6).suggest(history, 8)
    assert len(set(settings)) == 8
    assert not {observation.setting for observation in history} & set(settings)


def test_the_forest_begins_with_the_first_settings() -> None:
    first = SPACE.first()
    assert ForestSampler(SPACE, 0).suggest([], 20)[: len(first)] == first
    history = observe([first[1], first[0]], plain)
    assert ForestSampler(SPACE, 0).suggest(history, 4) == first[2:6]


def test_expected_improvement_against_draws() -> None:
    mean, spread = np.array([0.2, 0.5, 0.9]), np.array([0.3, 0.1, 0.4])
    draws = np.random.default_rng(0).normal(mean, spread, size=(400_000, 3))
    expected = np.maximum(0.4 - draws, 0).mean(0)
    np.testing.assert_allclose(sampler_module._expected_improvement(mean, spread, 0.4), expected, rtol=0.02)
    certain = sampler_module._expected_improvement(np.array([0.1, 0.7]), np.zeros(2), 0.4)
    np.testing.assert_allclose(certain, [0.3, 0.0], atol=1e-9)


class Rugged:
    """A random function with interactions: quality, of which a quarter is terrible, and a cost."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        settings = list(SPACE)
        features = SPACE.encode(settings)
        features /= np.maximum(features.max(0), 1)
        # Few parameters matter much, as is usual; which ones, and to which side, is random.
        # The last parameter has one choice.
        strengths = dict(zip(PARAMETERS, [*rng.permutation([3, 2, 1.5, 1, 0.5, 0.3, 0.2, 0.1]), 0], strict=True))
        scale = np.array([strengths[key] for key in SPACE.feature_owner])
        pairs = rng.normal(size=(scale.size, scale.size)) * 0.7 * np.sqrt(np.outer(scale, scale))
        quality = features @ (rng.normal(size=scale.size) * scale) + np.sum(features @ pairs * features, axis=1)
        loss = (quality.max() - quality) / quality.std()
        loss[loss > np.quantile(loss, 0.75)] *= 20
        cost = features @ (rng.normal(size=scale.size) * scale)
        self.table = {s: (-float(q), float(c)) for s, q, c in zip(settings, loss, cost / cost.std())}
        self.reference = (-float(np.quantile(loss, 0.6)), float(cost.max() / cost.std()))

    def run(self, sampler: ForestSampler, trials: int) -> tuple[float, float]:
        """The best quality's regret, and the share of the possible hypervolume."""
        points = [(o.quality, o.cost) for o in search(sampler, self.table.__getitem__, trials, count=2)]
        possible = hypervolume(list(self.table.values()), self.reference)
        return -max(quality for quality, _ in points), hypervolume(points, self.reference) / possible


def test_the_forest_is_better_than_chance() -> None:
    forest, chance = [], []
    for seed in range(4):
        function = Rugged(seed)
        forest.append(function.run(ForestSampler(SPACE, seed), 30))
        chance.append(function.run(RandomSampler(SPACE, seed), 30))
    (regret, volume), (chance_regret, chance_volume) = np.median(forest, axis=0), np.median(chance, axis=0)
    assert regret < chance_regret
    assert volume > chance_volume


def test_the_forest_looks_for_low_cost_where_quality_is_the_same() -> None:
    def cost(setting: TrialSettings) -> float:
        return 10.0 * setting.activation_symmetric - setting.float_layers

    history = observe(SPACE.first(), lambda s: (0.5, cost(s)))
    history += search(RandomSampler(SPACE, 2), lambda s: (0.5, cost(s)), 30)
    usual = np.median([observation.cost for observation in history])
    chosen = [ForestSampler(SPACE, seed).suggest(history, 1)[0] for seed in range(10)]
    assert all(cost(setting) < usual for setting in chosen)


@pytest.mark.parametrize(
    ("key", "measure"),
    [
        ("activation_symmetric", lambda s: 0.9 - 0.1 * s.activation_symmetric),
        ("ptq_algo", lambda s: {"abs_max": 0.1, "avg": 0.9, "hist": 0.95, "mse": 0.8, "KL": 0.5}[s.ptq_algo]),
        ("float_layers", lambda s: 0.9 + 0.001 * s.float_layers),
        ("quantizable_op_type", lambda s: -len(s.quantizable_op_type)),
    ],
)
def test_importance_finds_the_only_parameter_that_matters(key: str, measure: Callable[[TrialSettings], float]) -> None:
    history = search(RandomSampler(SPACE, 1), lambda s: (measure(s), 1.0), 60)
    shares = importance(SPACE, history)
    assert set(shares) == set(PARAMETERS)
    assert sum(shares.values()) == pytest.approx(1)
    assert all(share >= 0 for share in shares.values())
    assert shares[key] > 0.8
    assert importance(SPACE, history) == shares


def test_importance_without_grounds_is_zero() -> None:
    zeros = dict.fromkeys(PARAMETERS, 0.0)
    assert importance(SPACE, []) == zeros
    assert importance(SPACE, search(RandomSampler(SPACE, 0), plain, 3)) == zeros
    assert importance(SPACE, search(RandomSampler(SPACE, 0), constant, 20)) == zeros


def test_a_parameter_without_a_choice_has_no_importance() -> None:
    space = replace(SPACE, bias_correct=(True,))
    assert importance(space, search(RandomSampler(space, 0), plain, 30))["bias_correct"] == 0


Point = tuple[float, float]


def dominates(one: Point, other: Point) -> bool:
    return one != other and one[0] >= other[0] and one[1] <= other[1]


@pytest.mark.parametrize("seed", range(30))
def test_the_front_is_what_no_point_dominates(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Few different values, so that equal points and points equal in one coordinate are common.
    points: list[Point] = [(float(q), float(c)) for q, c in rng.integers(0, 7, size=(rng.integers(1, 40), 2))]
    expected = [
        i for i, p in enumerate(points) if not any(dominates(other, p) for other in points) and p not in points[:i]
    ]
    assert front(points) == sorted(expected, key=lambda i: -points[i][0])


def test_small_fronts() -> None:
    assert front([]) == []
    assert front([(0.5, 3.0)]) == [0]
    assert front([(0.5, 3.0), (0.5, 3.0), (0.9, 4.0), (0.4, 3.5)]) == [2, 0]
    assert front([(-math.inf, 3.0), (0.5, math.inf)]) == [1, 0]
