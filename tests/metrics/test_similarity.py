"""Similarity by parts: each kind of value counts by its own spread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from act.comparison import Comparison, RealParts, channel_axis
from act.metrics import Quality, scorer, with_known
from act.samples.dataset import Array, Ragged, Samples

RNG = np.random.default_rng(0)
SIZES = np.array([300, 200, 1, 0.1, 0.02, 0.02], np.float32)  # two of boxes, four of scores
DETECTIONS = [(RNG.random((40, 6)) ** 3 * SIZES).astype(np.float32) for _ in range(12)]


def quality(change: Callable[[Array], Any], reference: list[Array]) -> Quality:
    feeds = Ragged.of(reference)
    metric = scorer("similarity", Samples({"x": feeds}), Samples({"found": feeds}))
    for each in reference:
        metric.add([np.asarray(change(each))])
    return metric.quality()


def test_what_is_known_of_the_fp32_outputs_is_found_once_and_read_with_them(tmp_path: Path) -> None:
    classes = [np.array([number % 3, 1], np.int32) for number in range(12)]
    feeds = {"found": Ragged.of(DETECTIONS), "classes": Ragged.of(classes)}
    with_known("similarity", Samples(feeds)).save(tmp_path / "reference")
    read = Samples.load(tmp_path / "reference")
    assert set(read.known) == {"parts"}
    scorers = [scorer("similarity", Samples(feeds), each) for each in (Samples(feeds), read)]
    for metric in scorers:
        for values, numbers in zip(DETECTIONS, classes):
            metric.add([values * np.float32(0.9), 0 * numbers])
    assert scorers[0].quality() == scorers[1].quality()


def test_equal_outputs_score_1_and_means_score_0() -> None:
    assert quality(lambda x: x, DETECTIONS).value == 1
    mean = np.mean(DETECTIONS, axis=(0, 1))
    assert quality(lambda x: np.broadcast_to(mean, x.shape), DETECTIONS).value == pytest.approx(0, abs=1e-6)


def test_lost_scores_are_seen_beside_large_boxes() -> None:
    found = quality(lambda x: x * [1, 1, 0, 0, 0, 0], DETECTIONS)
    assert found.value == pytest.approx(2 / 6)
    assert found.beside["worst_part"] == 0 and found.notes["worst_part"].startswith("output `found`, axis 2, index ")


def test_probabilities_of_classes_that_hardly_occur_say_nothing_alone() -> None:
    likely = [np.eye(500)[number % 3] * 12 + RNG.normal(size=500) for number in range(12)]
    given = [(np.exp(each) / np.exp(each).sum()).astype(np.float32) for each in likely]
    assert quality(lambda x: np.where(x < 1e-3, 3 * x, x), given).value > 0.99
    assert quality(lambda x: x[[1, 0, *range(2, 500)]], given).value < 0.5


def test_the_worst_part_is_told_by_name() -> None:
    found = quality(lambda x: x * [1, 1, 1, 1, 1, 0.9], DETECTIONS)
    assert found.notes == {"worst_part": "output `found`, axis 2, index 5"}
    assert 0.9 < found.beside["worst_part"] < found.value < 1


@pytest.mark.parametrize("change", [lambda x: x * 1.5, lambda x: x + 0.1])
def test_scale_and_offset_of_a_single_number_count(change: Callable[[Array], Array]) -> None:
    numbers = [np.array([0.3 + 0.01 * n], np.float32) for n in range(8)]
    assert quality(change, numbers).value == 0
    assert quality(lambda x: x, numbers).value == 1


def test_a_constant_output_counts_by_agreement() -> None:
    constant = [np.full((3, 4), 8, np.float32)] * 3
    assert quality(lambda x: x * (1 + 1e-5), constant).value == pytest.approx(1, abs=1e-3)
    assert quality(lambda x: x * 1.01, constant).value == 0


def test_class_numbers_count_by_agreement_in_each_class() -> None:
    masks = [(np.arange(100).reshape(10, 10) < 10).astype(np.int32)] * 3
    found = quality(lambda x: x * 0, masks)
    assert found.value == 0.5 and found.notes == {"worst_part": "output `found`, class 1"}


def test_other_shapes_and_what_is_not_finite_score_0() -> None:
    assert quality(lambda x: x[:-1], DETECTIONS).value == 0
    assert quality(lambda x: x * np.nan, DETECTIONS).value == 0


def test_samples_may_differ_in_length() -> None:
    tokens = [RNG.normal(size=(length, 8)).astype(np.float32) * np.geomspace(1, 99, 8) for length in (3, 9, 4, 6, 5)]
    assert quality(lambda x: x, tokens).value == 1
    assert quality(lambda x: x * [*[1] * 7, 0], tokens).notes["worst_part"].endswith("axis 2, index 7")


def test_the_quality_of_a_selection_is_that_of_its_samples() -> None:
    found = quality(lambda x: x + SIZES / 20, DETECTIONS)
    weights = np.eye(len(DETECTIONS))[:1]
    assert found.kind.figure(found.statistics)(weights)[0] == pytest.approx(found.scores[0])
    assert found.value == pytest.approx(np.mean(found.scores))


def test_the_channel_axis_is_the_one_that_tells_kinds_apart() -> None:
    assert channel_axis(DETECTIONS) == 1
    assert channel_axis([each.T for each in DETECTIONS]) == 0
    smooth = np.add.outer(np.sin(np.arange(30) / 9), np.cos(np.arange(40) / 9))
    masks = [1 / (1 + np.exp(5 - n * smooth)) for n in range(3, 9)]
    maps = [np.stack([1 - mask, mask]).astype(np.float32) for mask in masks]
    assert channel_axis(maps) == 0
    assert channel_axis([np.zeros((2, 3), np.float32)] * 4) is None


def test_an_error_may_exceed_the_spread() -> None:
    (parts,) = Comparison([DETECTIONS]).parts
    assert isinstance(parts, RealParts)
    wanted = [np.stack(DETECTIONS)]
    found = [wanted[0] + 2 * np.sqrt(parts.variance)]
    assert Comparison([DETECTIONS]).relative_error(found, wanted) == pytest.approx(4)
