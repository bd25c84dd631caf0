"""The space of settings against its own enumeration, and its settings as numbers and as JSON."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from act.results.ptq_search import TrialSettings
from act.search.space import PARAMETERS, Space
from tests.support.small_space import setting

ALL_TYPES = ("conv2d", "depthwise_conv2d", "matmul_v2", "mul")
SPACE = Space(
    ptq_algo=("abs_max", "hist", "avg", "mse"),
    hist_percent=(0.999, 0.9999, 1.0),
    batch_num=(4, 16),
    activation_symmetric=(True, False),
    weight_quantize_type=("abs_max", "channel_wise_abs_max", "channel_wise_mse"),
    bias_correct=(False, True),
    quantizable_op_type=(("conv2d",), ALL_TYPES),
    float_layers=(0, 1, 4),
    smooth_strength=(None, 0.5),
)
WITHOUT_HIST = replace(SPACE, ptq_algo=("avg", "KL"))
ONLY_HIST = replace(SPACE, ptq_algo=("hist",))
ONE = Space(("avg",), (0.9999,), (8,), (True,), ("abs_max",), (False,), (("mul",),), (0,))
SPACES = [SPACE, WITHOUT_HIST, ONLY_HIST, ONE]


def by_brute_force(space: Space) -> set[TrialSettings]:
    choices: list[tuple[Any, ...]] = [
        space.ptq_algo,
        (None, *space.hist_percent),
        space.batch_num,
        space.activation_symmetric,
        space.weight_quantize_type,
        space.bias_correct,
        space.quantizable_op_type,
        space.float_layers,
        space.smooth_strength,
    ]
    found = set()
    for algorithm, share, *others in itertools.product(*choices):
        if (algorithm == "hist") == (share is not None):
            found.add(setting(algorithm, share, *others))
    return found


def changed(one: TrialSettings, other: TrialSettings) -> set[str]:
    """The parameters in which two settings differ; a share that follows from the rule is none."""
    names = {name for name in PARAMETERS if getattr(one, name) != getattr(other, name)}
    return names - {"hist_percent"} if "ptq_algo" in names else names


@pytest.mark.parametrize("space", SPACES)
def test_size_and_iteration(space: Space) -> None:
    listed, expected = list(space), by_brute_force(space)
    assert len(listed) == space.size == len(expected)
    assert set(listed) == expected


def test_size_by_hand() -> None:
    assert SPACE.size == (3 + 3) * 2 * 2 * 3 * 2 * 2 * 3 * 2
    assert ONE.size == 1


@pytest.mark.parametrize("space", SPACES)
def test_samples_cover_the_space_and_nothing_else(space: Space) -> None:
    rng = np.random.default_rng(0)
    samples = [space.sample(rng) for _ in range(max(1200, 4 * space.size))]
    assert set(samples) <= set(space)
    assert len(set(samples)) > 0.9 * space.size
    for algorithm in space.ptq_algo:
        share = np.mean([sample.ptq_algo == algorithm for sample in samples])
        assert share == pytest.approx(1 / len(space.ptq_algo), abs=0.04)


@pytest.mark.parametrize("space", SPACES)
def test_first_settings_are_in_the_space(space: Space) -> None:
    first = space.first()
    assert 1 <= len(first) <= 6
    assert len(set(first)) == len(first)
    assert all(setting in space for setting in first)


def test_first_settings_in_order_of_merit() -> None:
    first = SPACE.first()
    found = [(s.ptq_algo, s.hist_percent, s.activation_symmetric, s.float_layers, s.smooth_strength) for s in first]
    assert found == [
        ("hist", 0.9999, False, 0, None),
        ("avg", None, False, 4, None),
        ("mse", None, False, 0, 0.5),
        ("abs_max", None, False, 4, 0.5),
        ("hist", 0.9999, True, 0, None),
        ("avg", None, True, 4, None),
    ]
    assert all(s.bias_correct and s.quantizable_op_type == ALL_TYPES for s in first)


@pytest.mark.parametrize("space", [SPACE, WITHOUT_HIST, ONLY_HIST])
def test_neighbours_differ_in_one_or_two_parameters(space: Space) -> None:
    rng = np.random.default_rng(1)
    numbers = set()
    for _ in range(20):
        setting = space.sample(rng)
        neighbours = space.neighbours(setting, rng, 20)
        assert 10 < len(neighbours) <= 20
        assert len(set(neighbours)) == len(neighbours)
        assert all(neighbour in space for neighbour in neighbours)
        numbers |= {len(changed(setting, neighbour)) for neighbour in neighbours}
    assert numbers == {1, 2}


def test_neighbours_reach_every_parameter() -> None:
    rng = np.random.default_rng(2)
    setting = next(s for s in SPACE if s.ptq_algo == "hist")
    reached = [changed(setting, neighbour) for neighbour in SPACE.neighbours(setting, rng, 150)]
    assert set.union(*reached) == set(PARAMETERS)


def test_neighbours_where_there_are_few() -> None:
    rng = np.random.default_rng(3)
    assert ONE.neighbours(next(iter(ONE)), rng, 5) == []
    pair = replace(ONE, activation_symmetric=(True, False))
    one, other = pair
    assert pair.neighbours(one, rng, 5) == [other]


@pytest.mark.parametrize("space", SPACES)
def test_encoding_tells_all_settings_apart(space: Space) -> None:
    settings = list(space)
    rows = space.encode(settings)
    assert rows.dtype == np.float64
    assert rows.shape == (space.size, len(space.feature_owner))
    assert np.isfinite(rows).all()
    # The forests see float32.
    assert len(np.unique(rows.astype(np.float32), axis=0)) == space.size


def test_encoding_by_hand() -> None:
    rows = SPACE.encode(
        [
            setting("hist", 0.999, 16, True, "channel_wise_mse", False, ("conv2d",), 1, 0.5),
            setting("avg", None, 4, False, "abs_max", True, ALL_TYPES, 0, None),
        ]
    )
    np.testing.assert_allclose(rows[0], [0, 1, 0, 0, 3, 4, 1, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0.5], atol=1e-9)
    np.testing.assert_allclose(rows[1], [0, 0, 1, 0, 0, 2, 0, 1, 0, 0, 1, 1, 1, 1, 1, 0, -1], atol=1e-9)


def test_only_a_parameters_own_columns_change_with_it() -> None:
    owner, rng = np.array(SPACE.feature_owner), np.random.default_rng(4)
    assert set(owner) == set(PARAMETERS)
    setting = next(s for s in SPACE if s.ptq_algo == "avg")
    for neighbour in SPACE.neighbours(setting, rng, 100):
        one, other = SPACE.encode([setting, neighbour])
        assert set(owner[one != other]) - {"hist_percent"} == changed(setting, neighbour)


def test_different_settings_are_different_json() -> None:
    assert len({setting.model_dump_json() for setting in SPACE}) == SPACE.size


def test_json_by_hand() -> None:
    assert setting("hist", 0.999, 16, True, "abs_max", False, ("conv2d", "mul"), 4, 0.3).model_dump(mode="json") == {
        "ptq_algo": "hist",
        "hist_percent": 0.999,
        "batch_num": 16,
        "activation_symmetric": True,
        "weight_quantize_type": "abs_max",
        "bias_correct": False,
        "quantizable_op_type": ["conv2d", "mul"],
        "float_layers": 4,
        "smooth_strength": 0.3,
    }


def test_samples_are_json() -> None:
    rng = np.random.default_rng(5)
    sample = SPACE.sample(rng)
    for each in (sample, *SPACE.neighbours(sample, rng, 10)):
        assert TrialSettings.model_validate_json(each.model_dump_json()) == each
