"""`python -m benchmarks.sampler`: does the search's random forest find better settings than chance, in equal trials?

Every setting of a small space is measured once on OpenVINO, for each of the models (`benchmarks.table`; minutes the
first time, then kept). On those tables samplers are replayed with many seeds, in rounds as the search has them: random
suggestions and the forest as it is; and, because the forest begins with settings that are known to be good, also the
forest without them and random suggestions after them, so that its surrogate is judged beside its start. After each
trial two figures are taken:

- regret: how far the best quality so far is below the table's best;
- volume: the hypervolume of quality and cost so far, as a share of the whole table's. The reference point is what
  nobody would take: a tenth of fp32's quality lost, at fp32's cost.

A sampler's figure in one seed is the mean over all trials, which is the area under its curve. Compared is the mean
difference over paired seeds with its 95 % bootstrap interval. On each model and in both figures the forest must be
ahead of random: the interval must lie on its side of 0. The other two pairs, forest without its start beside random and
forest beside random after the same start, are reported and decide nothing: where the start alone all but reaches the
best, nothing measurable is left to be ahead by. Prints tables, writes `benchmarks/results/sampler.json` and
`docs/sampler.svg`, and ends with code 1, naming the figure, where the forest is not ahead.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from act import machine
from act.errors import exit_on_input_error
from act.results.benchmark import Interval
from act.results.ptq_search import TrialSettings
from act.search.sampler import ForestSampler, Observation
from act.search.space import Space
from act.timing.statistics import Floats, mean_difference
from benchmarks.bench import ROOT, conclude
from benchmarks.hypervolume import hypervolume
from benchmarks.random_sampler import RandomSampler
from benchmarks.table import SUBSPACES, Table, table

RESULT = ROOT / "benchmarks" / "results" / "sampler.json"
PICTURE = ROOT / "docs" / "sampler.svg"
DEFAULT = ("recogniser", "detector")
TRIALS, SEEDS, PROCESSES = 30, 40, 2
SHOWN = (5, 10, 15, 20, 30)  # trials
ROUND = 2  # trials that a search suggests together
FIRST_SEED = 1000  # the forest's form was chosen with seeds below
LOST_SHARE, FP32_COST = 0.1, 1.0


class RandomAfterStart(RandomSampler):
    """Suggests the settings that `ForestSampler` begins with, then at random."""

    def next_setting(self, history: Any, rng: np.random.Generator) -> TrialSettings | None:
        tried = {observation.setting for observation in history}
        begin = next((setting for setting in self.space.first() if setting not in tried), None)
        return begin or super().next_setting(history, rng)


class _StartlessSpace(Space):
    def first(self) -> list[TrialSettings]:
        return []


class ForestWithoutStart(ForestSampler):
    """`ForestSampler` that begins with random settings, the same as `RandomSampler`'s."""

    def __init__(self, space: Space, seed: int) -> None:
        super().__init__(_StartlessSpace(**{field.name: getattr(space, field.name) for field in fields(space)}), seed)


RANDOM, STARTED = "random", "random after the forest's start"
FOREST, STARTLESS = "forest", "forest without its start"
SAMPLERS: Mapping[str, type[ForestSampler]] = {
    RANDOM: RandomSampler,
    STARTLESS: ForestWithoutStart,
    STARTED: RandomAfterStart,
    FOREST: ForestSampler,
}
# Which is compared with which, and whether it must be ahead.
PAIRS = ((FOREST, RANDOM, True), (STARTLESS, RANDOM, False), (FOREST, STARTED, False))
FIGURES = ("regret", "volume")  # the first is better low, the second high
Curves = Mapping[str, Floats]  # by sampler: float64 [seeds, figures, trials]


def main() -> int:
    """Run everything; 1 when the forest is not ahead somewhere."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampler", description="The forest beside chance.")
    parser.add_argument("--models", nargs="+", choices=list(SUBSPACES), default=list(DEFAULT), help="(default: two)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"how many (default: {SEEDS})")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    results: dict[str, Any] = {"machine": machine.describe(), "trials": TRIALS, "seeds": arguments.seeds, "models": {}}
    misses: list[str] = []
    drawn: dict[str, Curves] = {}
    with exit_on_input_error():
        for model in dict.fromkeys(arguments.models):
            found = table(model)
            drawn[model] = replay_all(found, arguments.seeds)
            results["models"][model], missed = _compare(model, found, drawn[model])
            misses += missed
    draw(drawn, PICTURE)
    return conclude(RESULT, results, misses, f", {PICTURE.relative_to(ROOT)}")


def replay_all(found: Table, seeds: int, samplers: Mapping[str, type[ForestSampler]] = SAMPLERS) -> Curves:
    """Return each sampler's curves of each seed."""
    jobs = [(kind, seed) for kind in samplers.values() for seed in range(FIRST_SEED, FIRST_SEED + seeds)]
    with ProcessPoolExecutor(PROCESSES) as pool:
        replays = pool.map(partial(_replay, found), *zip(*jobs))
        curves = list(tqdm(replays, total=len(jobs), desc="replays", unit="search", leave=False))
    return dict(zip(samplers, np.array(curves).reshape(len(samplers), seeds, len(FIGURES), -1)))


def _replay(found: Table, kind: type[ForestSampler], seed: int) -> Floats:
    return curves_of(found, replay(found, kind(found.space, seed)))


def replay(found: Table, sampler: ForestSampler) -> list[Observation]:
    """Search for `TRIALS` trials, in rounds, with results that are looked up."""
    history: list[Observation] = []
    while len(history) < TRIALS and (suggested := sampler.suggest(history, ROUND)):
        history += [found.results[setting] for setting in suggested]
    return history[:TRIALS]


def curves_of(found: Table, history: list[Observation]) -> Floats:
    """Return regret and volume after each trial, float64 [figures, trials]."""
    qualities = [observation.quality for observation in found.results.values()]
    lowest = min(quality for quality in qualities if math.isfinite(quality))
    best = np.maximum.accumulate([max(observation.quality, lowest) for observation in history])
    possible = _volume(found, list(found.results.values()))
    volumes = [_volume(found, history[: count + 1]) / possible for count in range(len(history))]
    return np.array([max(qualities) - best, volumes])


def _volume(found: Table, observations: list[Observation]) -> float:
    worst = ((1 - LOST_SHARE) * found.reference, FP32_COST)
    return hypervolume([(observation.quality, observation.cost) for observation in observations], worst)


def _compare(model: str, found: Table, curves: Curves) -> tuple[dict[str, Any], list[str]]:
    """Print the tables of one model; return the results, and where the forest is not ahead."""
    qualities = sorted(observation.quality for observation in found.results.values())
    low, middle, high = (qualities[round(share * (len(qualities) - 1))] for share in (0, 0.5, 1))
    seeds = len(curves[FOREST])
    print(f"\n{model}: {found.space.size} settings, quality {low:.4f} to {high:.4f}, median {middle:.4f}", end="")
    print(f" (fp32 {found.reference:.4f}); {TRIALS} trials, {seeds} seeds")
    results: dict[str, Any] = {"settings": found.space.size, "quality": {"fp32": found.reference, "best": high}}
    misses: list[str] = []
    for index, figure in enumerate(FIGURES):
        print(f"  {figure:34}" + "".join(f"   after {trial:2} trials      " for trial in SHOWN))
        results[figure] = {}
        for name, values in curves.items():
            quartiles = np.percentile(values[:, index], [25, 50, 75], axis=0)
            cells = [quartiles[:, trial - 1] for trial in SHOWN]
            print(f"    {name:32}" + "  ".join(f"{cell[1]:.4f} ({cell[0]:.4f}-{cell[2]:.4f})" for cell in cells))
            results[figure][name] = dict(zip(("q1", "median", "q3"), quartiles.tolist()))
        results[figure]["pairs"] = []
        for ours, theirs, must_lead in PAIRS:
            gain, share = ahead(figure, curves[ours][:, index], curves[theirs][:, index])
            better = f"better by {gain.value:+.5f} ({gain.low:+.5f} to {gain.high:+.5f}) in the mean of the trials"
            print(f"    {ours} beside {theirs}: {better}, ahead in {share:.0%} of the seeds")
            results[figure]["pairs"].append({"of": ours, "beside": theirs, **gain.model_dump(), "seeds_ahead": share})
            if must_lead and gain.low <= 0:
                misses.append(f"{model}: {figure}: {ours} is not ahead of {theirs}: {better}")
    return results, misses


def ahead(figure: str, ours: Floats, theirs: Floats) -> tuple[Interval, float]:
    """Return by how much a sampler's mean over the trials is better, and in which share of seeds (a tie is half one).

    Args:
        figure: one of `FIGURES`.
        ours: curves, float64 [seeds, trials].
        theirs: of the same seeds, float64 [seeds, trials].
    """
    sign = -1 if figure == "regret" else 1
    first, second = sign * ours.mean(1), sign * theirs.mean(1)
    return mean_difference(first, second, 0), float(np.mean((first > second) + 0.5 * (first == second)))


def draw(models: Mapping[str, Curves], path: Path) -> None:
    """Draw medians with their quartile bands, a row a model; the same numbers give the same file."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "sampler", "svg.fonttype": "none", "font.size": 9})
    titles = {"regret": "quality below the best setting's", "volume": "share of the possible hypervolume"}
    colours = dict(zip(SAMPLERS, ("tab:gray", "tab:green", "tab:orange", "tab:blue")))
    figure, axes = pyplot.subplots(len(models), 2, figsize=(9, 3 * len(models)), squeeze=False, layout="constrained")
    for row, (model, curves) in zip(axes, models.items()):
        for index, (axis, name) in enumerate(zip(row, FIGURES)):
            for sampler, values in curves.items():
                low, median, high = np.percentile(values[:, index], [25, 50, 75], axis=0)
                trials = np.arange(1, len(median) + 1)
                axis.plot(trials, median, color=colours[sampler], label=sampler)
                axis.fill_between(trials, low, high, color=colours[sampler], alpha=0.15, linewidth=0)
            # The first trials of a search without a start are far off and would hide all that follows.
            tail = np.concatenate([np.percentile(values[:, index, 3:], [25, 75], axis=0) for values in curves.values()])
            axis.set_ylim((0, tail.max() * 1.05) if name == "regret" else (tail.min() * 0.95, 1.005))
            axis.set(title=f"{model}: {titles[name]}", xlabel="trials", xlim=(1, TRIALS))
            axis.grid(alpha=0.3)
    axes[0, 0].legend()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
