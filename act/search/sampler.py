"""Samplers: which quantization settings to try next, guided by random forests, and the Pareto front of those tried.

The forest is the surrogate of SMAC (Hutter, Hoos, Leyton-Brown: Sequential Model-Based Optimization for General
Algorithm Configuration, 2011) with expected improvement, without its random suggestions in between, of which 30 trials
have none to spare; quality and cost are made one by random augmented Chebyshev weights as in ParEGO (Knowles 2006), and
trials side by side by the constant liar (Ginsbourger et al. 2010). `benchmarks.sampler` compares it with chance.
Suggestions depend on the seed and the history alone, so that a search that was killed goes on as if it had not been.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from statistics import median_high

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata  # type: ignore[import-untyped]
from sklearn.ensemble import RandomForestRegressor

from act.results.ptq_search import TrialSettings
from act.search.space import PARAMETERS, Space

Floats = NDArray[np.float64]

TREES = 30
CANDIDATES = 500  # random ones among which the acquisition is maximised
NEIGHBOURS = 20  # of each of the best settings so far
MOST_CENTRES = 8
QUALITY_FIRST = (9, 1)  # of the beta distribution of quality's weight, whose mean is 0.9
FEWEST = 4  # observations below which a forest says nothing
AUGMENTATION = 0.05  # Knowles's rho
DRAWS = 200  # in vain before the whole space is listed instead


@dataclass(frozen=True)
class Observation:
    """One trial's result: its quality, minus infinity where it failed, and its cost in any unit."""

    setting: TrialSettings
    quality: float
    cost: float


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points (quality, cost) that no other dominates, the highest quality first.

    A point dominates another that has at most its quality at no less cost; of equal points the earliest stays.
    """
    indices: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (-points[i][0], points[i][1])):
        if not indices or points[index][1] < points[indices[-1]][1]:
            indices.append(index)
    return indices


@dataclass
class ForestSampler:
    """Suggests the space's first settings, then those of which random forests expect the most improvement.

    With the history the seed, 0 or more, decides every suggestion.
    """

    space: Space
    seed: int

    def suggest(self, history: Sequence[Observation], count: int) -> list[TrialSettings]:
        """Return `count` different settings that were never tried, fewer where the space has no more; `history` has all
        results so far, in the order of the trials."""
        grown = list(history)
        while len(grown) < len(history) + count:
            # Not one generator for the sampler's life: a search that is resumed could not find its place in it.
            rng = np.random.default_rng([self.seed, len(grown)])
            setting = self.next_setting(grown, rng)
            if setting is None:
                break
            grown.append(_lie(setting, history))
        return [observation.setting for observation in grown[len(history) :]]

    def next_setting(self, history: Sequence[Observation], rng: np.random.Generator) -> TrialSettings | None:
        """Return one new setting, or None where all were tried."""
        tried = {observation.setting for observation in history}
        if (promising := next((setting for setting in self.space.first() if setting not in tried), None)) is not None:
            return promising
        candidates = self._candidates(history, tried, rng) if len(history) >= FEWEST else []
        if not candidates:
            return draw(self.space, tried, rng)
        return candidates[int(np.argmax(self._improvement(history, candidates, rng)))]

    def _candidates(
        self, known: Sequence[Observation], tried: Set[TrialSettings], rng: np.random.Generator
    ) -> list[TrialSettings]:
        """Return settings not yet tried, in random order, so that the first of equals is a random one."""
        if self.space.size <= CANDIDATES + len(tried):
            settings = list(self.space)
        else:
            settings = [self.space.sample(rng) for _ in range(CANDIDATES)]
            # The front begins with the best quality.
            for index in front([(o.quality, o.cost) for o in known])[:MOST_CENTRES]:
                settings += self.space.neighbours(known[index].setting, rng, NEIGHBOURS)
        left = [setting for setting in dict.fromkeys(settings) if setting not in tried]
        return [left[i] for i in rng.permutation(len(left))]

    def _improvement(
        self, known: Sequence[Observation], candidates: list[TrialSettings], rng: np.random.Generator
    ) -> Floats:
        """Return the expected improvement of each candidate under random weights of quality and cost."""
        features = self.space.encode([observation.setting for observation in known])
        losses = (_ranks([-o.quality for o in known]), _ranks([o.cost for o in known]))
        asked = self.space.encode(candidates)
        quality, cost = (_predict(features, loss, asked, int(rng.integers(2**31))) for loss in losses)
        weight = rng.beta(*QUALITY_FIRST)
        scores = _chebyshev(quality, cost, weight)
        return _expected_improvement(scores.mean(0), scores.std(0), float(_chebyshev(*losses, weight).min()))


def importance(space: Space, history: Sequence[Observation]) -> dict[str, float]:
    """Return how much each parameter matters for quality: its share of the fall in a forest's variance.

    The shares' sum is 1; all are 0 where fewer than 4 results are known or all have the same quality.
    """
    shares = dict.fromkeys(PARAMETERS, 0.0)
    if len(history) < FEWEST or len({observation.quality for observation in history}) == 1:
        return shares
    features = space.encode([observation.setting for observation in history])
    forest = _fit(features, _ranks([observation.quality for observation in history]), 0)
    for name, share in zip(space.feature_owner, forest.feature_importances_):
        shares[name] += float(share)
    return shares


def draw(space: Space, tried: Set[TrialSettings], rng: np.random.Generator) -> TrialSettings | None:
    """Return a random setting that was not tried, every parameter uniform over its choices; None where all were."""
    for _ in range(DRAWS):
        setting = space.sample(rng)
        if setting not in tried:
            return setting
    left = [setting for setting in space if setting not in tried]
    return left[int(rng.integers(len(left)))] if left else None


def _lie(setting: TrialSettings, history: Sequence[Observation]) -> Observation:
    """Return a trial that is still to be run, as if its result were an ordinary one."""
    if not history:
        return Observation(setting, 0.0, 0.0)
    # Values that were observed, not the mean of the middle two: infinities have no mean.
    return Observation(setting, median_high(o.quality for o in history), median_high(o.cost for o in history))


def _ranks(values: Sequence[float]) -> Floats:
    """Return ranks scaled to 0 .. 1, which keep a few terrible trials from hiding all other differences."""
    ranks = rankdata(values)
    return (ranks - ranks.min()) / max(float(np.ptp(ranks)), 1.0)


def _fit(features: Floats, target: Floats, seed: int) -> RandomForestRegressor:
    # SMAC's share of features in each split.
    forest = RandomForestRegressor(TREES, max_features=5 / 6, n_jobs=1, random_state=seed)
    return forest.fit(features, target)


def _predict(features: Floats, target: Floats, asked: Floats, seed: int) -> Floats:
    """Return what each tree predicts: float64 [trees, n]."""
    rows = asked.astype(np.float32)
    trees = _fit(features, target, seed).estimators_
    return np.stack([tree.predict(rows, check_input=False) for tree in trees])


def _chebyshev(quality: Floats, cost: Floats, weight: float) -> Floats:
    """Return ParEGO's augmented Chebyshev scalar of two losses in 0 .. 1."""
    first, second = weight * quality, (1 - weight) * cost
    return np.maximum(first, second) + AUGMENTATION * (first + second)


def _expected_improvement(mean: Floats, spread: Floats, best: float) -> Floats:
    """Return by how much a normally distributed loss falls below the best one on average."""
    gain, spread = best - mean, np.maximum(spread, 1e-12)
    return gain * norm.cdf(gain / spread) + spread * norm.pdf(gain / spread)
