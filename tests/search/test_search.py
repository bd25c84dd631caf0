"""The search: what it tries, what it gives up, and that a killed one goes on to the same end."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from act.engines.evaluation import Evaluation
from act.metrics import Quality
from act.results.ptq_search import Trial, TrialSettings
from act.search import sampler
from act.search.measure import Result, TrialJob, is_hopeless, judge
from act.search.runners import Runner, run_here
from act.search.sampler import ForestSampler
from act.search.search import Journal, Search, is_complete
from act.settings import PtqSearch
from tests.support.small_space import SPACE

SAMPLES = 400
REFERENCE = Quality(0.8, [0.8] * SAMPLES)


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sampler's forests be small: nothing here depends on how good its suggestions are."""
    monkeypatch.setattr(sampler, "TREES", 5)


class Killed(Exception):
    """Stands for a kill in the middle of a search."""


@dataclass
class Here(Search):
    """A search beside what runs its trials."""

    runner: Runner = field(kw_only=True)


class World:
    """Made-up qualities by setting; counts what is measured."""

    def __init__(self, stop_after: int | None = None, bad: Callable[[TrialSettings], bool] = lambda _: False) -> None:
        self.measured: list[tuple[TrialSettings, int | None]] = []
        self._stop_after = stop_after
        self._bad = bad

    def quality(self, setting: TrialSettings) -> float:
        lost = (
            0.02 * (setting.ptq_algo == "avg")
            + 0.01 * setting.activation_symmetric
            + 0.005 * (not setting.bias_correct)
        )
        return 0.8 - lost - 0.001 * setting.batch_num / 16 + 0.002 * setting.float_layers

    def search(self, journal: Path, seed: int = 0, workers: int = 1) -> Here:
        made: dict[int, TrialSettings] = {}

        def job(setting: TrialSettings) -> TrialJob:
            files = {"number": str(len(made)).encode()}
            made[len(made)] = setting
            return TrialJob(Evaluation("openvino", "top1", Path(), None), files, ".", REFERENCE)

        def work(job: TrialJob) -> Result:
            setting = made[int(job.files["number"])]

            def quality_on(samples: int | None) -> Quality:
                if self._stop_after is not None and len(self.measured) >= self._stop_after:
                    raise Killed
                self.measured.append((setting, samples))
                value = self.quality(setting)
                return Quality(value, [value] * (samples or SAMPLES))

            if self._bad(setting):
                self.measured.append((setting, None))
                return Result(-math.inf, {}, 0, "crash: ended by SIGSEGV", 0)
            return judge(quality_on, job.fp32, job.least)

        return Here(
            ForestSampler(SPACE, seed),
            lambda setting: 0.3 - 0.05 * setting.activation_symmetric + 0.01 * setting.float_layers,
            job,
            REFERENCE,
            Journal(journal),
            runner=partial(run_here, workers, work),
        )


def run(search: Here, trials: int, side_by_side: int = 2) -> list[Trial]:
    search.run(PtqSearch(max_quant_count=trials, side_by_side=side_by_side), lambda _: None, search.runner)
    return search.trials


def plain(trials: list[Trial]) -> list[tuple[TrialSettings, float | None]]:
    return [(trial.settings, trial.quality) for trial in trials]


def quality(trial: Trial) -> float:
    assert trial.quality is not None
    return trial.quality


def test_the_number_of_trials_is_kept_and_no_setting_comes_twice(tmp_path: Path) -> None:
    trials = run(World().search(tmp_path / "journal"), 13)
    assert len(trials) == 13
    assert len({trial.settings for trial in trials}) == 13
    assert [trial.id for trial in trials] == list(range(13))


def test_a_small_space_is_used_up(tmp_path: Path) -> None:
    assert len(run(World().search(tmp_path / "journal"), 10_000)) == SPACE.size


@pytest.mark.parametrize("stop_after", [1, 5, 6, 17])
def test_a_killed_search_goes_on_to_the_same_end_and_measures_nothing_twice(tmp_path: Path, stop_after: int) -> None:
    whole = World()
    wanted = plain(run(whole.search(tmp_path / "other"), 16))
    killed, resumed = World(stop_after=stop_after), World()
    with pytest.raises(Killed):
        run(killed.search(tmp_path / "journal"), 16)
    assert plain(run(resumed.search(tmp_path / "journal"), 16)) == wanted
    finished = {setting for setting, samples in killed.measured if samples is None}
    again = finished & {setting for setting, _ in resumed.measured}
    # What was at work beside the one that stopped it has not reached the journal.
    assert len(again) < PtqSearch().side_by_side


def test_a_cut_off_line_of_the_journal_is_left_out(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    wanted = plain(run(World().search(journal), 6))
    journal.write_text(journal.read_text()[:-20])
    world = World()
    assert plain(run(world.search(journal), 6)) == wanted
    assert len({setting for setting, _ in world.measured}) == 1


def test_the_seed_decides(tmp_path: Path) -> None:
    first, second, other = (
        plain(run(World().search(tmp_path / f"{number}", seed), 20)) for number, seed in enumerate((0, 0, 1))
    )
    assert first == second
    assert first != other


@pytest.mark.parametrize("workers", [2, 7])
def test_the_number_of_workers_does_not_decide(tmp_path: Path, workers: int) -> None:
    alone = plain(run(World().search(tmp_path / "alone"), 20, side_by_side=7))
    assert plain(run(World().search(tmp_path / "together", workers=workers), 20, side_by_side=7)) == alone


def test_so_many_are_suggested_at_a_time(tmp_path: Path) -> None:
    search = World().search(tmp_path / "journal")
    asked: list[tuple[int, int]] = []
    suggest = search.sampler.suggest
    search.sampler.suggest = lambda history, count: asked.append((len(history), count)) or suggest(history, count)  # type: ignore[func-returns-value, method-assign]
    run(search, 11, side_by_side=5)
    assert asked == [(0, 5), (5, 5), (10, 5)]
    assert len(search.trials) == 11


def test_each_trial_is_told_of_and_kept_as_it_ends(tmp_path: Path) -> None:
    world, kept = World(), []
    search = world.search(tmp_path / "journal")
    search.run(
        PtqSearch(max_quant_count=8, side_by_side=4),
        lambda trial: kept.append((trial.settings, len((tmp_path / "journal").read_text().splitlines()))),
        search.runner,
    )
    assert [lines for _, lines in kept] == list(range(1, 9))
    assert [setting for setting, _ in kept] == [trial.settings for trial in search.trials]


def test_an_engine_that_fails_is_a_trial_and_no_candidate(tmp_path: Path) -> None:
    world = World(bad=lambda setting: not setting.activation_symmetric)
    search = world.search(tmp_path / "journal")
    trials = run(search, 12)
    failed = [trial for trial in trials if trial.failure]
    assert failed and all("SIGSEGV" in str(trial.failure) for trial in failed)
    assert failed[0].quality is None and failed[0].drop is None
    assert search.candidates() and all(trial.settings.activation_symmetric for trial in search.candidates())


def test_candidates_are_the_pareto_front_of_whole_trials(tmp_path: Path) -> None:
    search = World().search(tmp_path / "journal")
    trials = run(search, 30)
    chosen = search.front()
    for trial in chosen:
        better = [
            other
            for other in trials
            if quality(other) >= quality(trial) and other.cost <= trial.cost and other.settings != trial.settings
        ]
        assert all((quality(o), o.cost) == (quality(trial), trial.cost) for o in better)
    assert quality(chosen[0]) == max(quality(trial) for trial in trials)
    assert chosen[-1].cost == min(trial.cost for trial in trials)
    assert search.candidates() == chosen, "it has a symmetric one already"


def test_the_best_symmetric_trial_goes_on_though_off_the_front(tmp_path: Path) -> None:
    class Dear(World):
        def search(self, journal: Path, seed: int = 0, workers: int = 1) -> Here:
            search = super().search(journal, seed, workers)
            search.cost = lambda setting: 0.3 + 0.1 * setting.activation_symmetric
            return search

    search = Dear().search(tmp_path / "journal")
    trials = run(search, 30)
    chosen = search.candidates()
    symmetric = [trial for trial in chosen if trial.settings.activation_symmetric]
    assert len(symmetric) == 1 < len(chosen)
    assert quality(symmetric[0]) == max(quality(t) for t in trials if t.settings.activation_symmetric)
    assert [quality(trial) for trial in chosen] == sorted((quality(t) for t in chosen), reverse=True)


def test_a_hopeless_trial_costs_a_quarter(tmp_path: Path) -> None:
    class Poor(World):
        def quality(self, setting: TrialSettings) -> float:
            return 0.1 if setting.ptq_algo == "avg" else super().quality(setting)

    world = Poor()
    search = world.search(tmp_path / "journal")
    trials = run(search, 20)
    poor = [trial for trial in trials if trial.settings.ptq_algo == "avg"]
    assert poor and all(trial.samples == SAMPLES // 4 and not is_complete(trial, REFERENCE) for trial in poor)
    assert not {trial.id for trial in poor} & {trial.id for trial in search.candidates()}
    assert all(quality(trial) == pytest.approx(0.1) for trial in poor)


def test_only_what_could_be_no_candidate_is_given_up(tmp_path: Path) -> None:
    trials = run(World().search(tmp_path / "journal"), 40)
    whole = [trial for trial in trials if is_complete(trial, REFERENCE)]
    given_up = [trial for trial in trials if trial not in whole]
    assert whole and given_up
    for trial in given_up:
        rivals = [other for other in whole if other.cost <= trial.cost and quality(other) > quality(trial)]
        assert any(other.settings.activation_symmetric >= trial.settings.activation_symmetric for other in rivals)


def test_trials_go_on_behind_the_samples_that_they_were_run_on_and_luck_above_fp32_gives_none_up() -> None:
    asked: list[int | None] = []

    def quality_on(count: int | None) -> Quality:
        asked.append(count)
        return REFERENCE.head(count or SAMPLES)

    result = judge(quality_on, REFERENCE, min(0.9, REFERENCE.value))
    assert asked == [SAMPLES // 4, SAMPLES // 2, None] and result.samples == SAMPLES


@pytest.mark.parametrize(
    ("losses", "hopeless"),
    [
        ([0.0] * 64, False),
        ([0.079] * 64, False),
        ([0.081] * 64, True),
        ([1.0] * 10 + [0.0] * 54, False),  # 0.16 lost, and far from certain
        ([1.0] * 40 + [0.0] * 24, True),
    ],
)
def test_hopeless_means_all_but_certain(losses: list[float], hopeless: bool) -> None:
    assert is_hopeless(0.8 - float(np.mean(losses)), float(np.std(losses)) / 8, 0.72) is hopeless
