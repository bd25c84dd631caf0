"""Metrics of classes, masks and pairs beside scikit-learn and SciPy, on all samples and on selections of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]
from sklearn import metrics as sklearn

from act.metrics import Quality, scorer
from act.samples.dataset import PADDING, Ragged, Samples

COUNT, CLASSES = 60, 4


def measured(metric: Any, outputs: list[Any], labels: list[Any], feeds: dict[str, list[Any]] | None = None) -> Quality:
    given = {name: Ragged.of(values) for name, values in (feeds or {"x": [np.zeros(1)] * len(labels)}).items()}
    found = scorer(metric, Samples(given, Ragged.of(labels)))
    for each in outputs:
        found.add([each])
    return found.quality()


def weighted(quality: Quality, times: Any) -> float:
    return float(quality.kind.figure(quality.statistics)(np.asarray(times, dtype=np.float64)[None])[0])


@pytest.mark.parametrize(
    ("metric", "reference"),
    [
        ("accuracy", sklearn.accuracy_score),
        ("f1", lambda wanted, found: sklearn.f1_score(wanted, found, average="macro")),
        ({"name": "f1", "positive": 2}, lambda w, f: sklearn.f1_score(w == 2, f == 2)),
        ("matthews", sklearn.matthews_corrcoef),
    ],
)
def test_classes_are_counted_as_scikit_learn_does(metric: Any, reference: Callable[..., float]) -> None:
    rng = np.random.default_rng(0)
    wanted = rng.integers(0, CLASSES, COUNT)
    outputs = np.eye(CLASSES)[wanted] + rng.normal(0, 0.6, (COUNT, CLASSES))
    quality = measured(metric, list(outputs.astype(np.float32)), [np.array([each]) for each in wanted])
    found = outputs.argmax(axis=1)
    assert quality.value == pytest.approx(reference(wanted, found))
    times = rng.integers(0, 3, COUNT)
    assert weighted(quality, times) == pytest.approx(reference(np.repeat(wanted, times), np.repeat(found, times)))


def test_tokens_count_one_by_one_where_they_have_a_label() -> None:
    outputs = [np.eye(3)[[0, 1, 2, 2]], np.eye(3)[[1, 1, 0, 0]]]
    labels = [np.array([PADDING, 1, 2, 0]), np.array([1, PADDING, PADDING, 1])]
    assert measured("accuracy", outputs, labels).value == pytest.approx(3 / 5)


def test_top5_asks_for_the_label_among_five() -> None:
    values = np.arange(8.0)
    assert measured("top5", [values, values], [np.array([3]), np.array([2])]).scores == [1.0, 0.0]


@pytest.mark.parametrize("last", [False, True])
def test_masks_are_summed_over_all_samples(last: bool) -> None:
    rng = np.random.default_rng(0)
    wanted = rng.integers(-1, 3, (5, 6, 7))
    outputs = rng.normal(size=(5, 3, 6, 7)) + 2 * (wanted[:, None] == np.arange(3)[None, :, None, None])
    found, counted = outputs.argmax(axis=1), wanted != PADDING
    given = list(np.moveaxis(outputs, 1, -1) if last else outputs)
    labels = list(wanted.astype(np.int16))
    each = sklearn.jaccard_score(wanted[counted], found[counted], average=None)
    assert measured("mean_iou", given, labels).value == pytest.approx(each.mean())
    assert measured({"name": "mean_iou", "only": 1}, given, labels).value == pytest.approx(each[1])
    whole = sklearn.f1_score(wanted[counted], found[counted], average="macro")
    assert measured("dice", given, labels).value == pytest.approx(whole)
    assert measured("dice", [each.argmax(axis=-1 if last else 0) for each in given], labels).value == pytest.approx(
        whole
    )


def test_one_channel_is_a_mask_by_its_threshold_and_a_smaller_one_is_stretched() -> None:
    wanted = np.zeros((4, 4), np.int16)
    wanted[:2] = 1
    output = np.array([[[0.9, 0.8], [0.1, 0.4]]], np.float32)
    assert measured({"name": "mean_iou", "only": 1}, [output], [wanted]).value == 1.0
    assert measured({"name": "mean_iou", "only": 1, "threshold": 0.3}, [output], [wanted]).value == pytest.approx(
        8 / 12
    )


@pytest.mark.parametrize(("metric", "reference"), [("spearman", stats.spearmanr), ("pearson", stats.pearsonr)])
def test_pairs_of_token_embeddings_are_correlated_as_scipy_does(metric: str, reference: Any) -> None:
    rng = np.random.default_rng(0)
    pairs = rng.normal(size=(COUNT, 2, 5, 8))
    pairs[:, 1] += pairs[:, 0] * rng.integers(0, 4, COUNT)[:, None, None]
    mask = np.array([1, 1, 1, 0, 0])
    pooled = pairs[:, :, :3].mean(axis=2)
    norms = np.linalg.norm(pooled, axis=2).prod(axis=1)
    found = (pooled[:, 0] * pooled[:, 1]).sum(axis=1) / norms
    wanted = np.round(3 * found + rng.normal(0, 0.5, COUNT))  # with ties
    labels = [np.array([each]) for each in wanted for _ in range(2)]
    outputs = list(pairs.reshape(2 * COUNT, 5, 8))
    quality = measured(metric, outputs, labels, {"attention_mask": [mask] * 2 * COUNT})
    assert quality.value == pytest.approx(reference(found, wanted)[0])
    times = np.repeat(rng.integers(0, 3, COUNT), 2)
    expected = reference(np.repeat(found, times[::2]), np.repeat(wanted, times[::2]))[0]
    assert weighted(quality, times) == pytest.approx(expected)
    scores = measured(metric, list(found[:, None]), labels[::2])
    assert scores.value == pytest.approx(quality.value)
