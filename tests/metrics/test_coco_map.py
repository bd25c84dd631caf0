"""COCO's average precision beside its own evaluation, and what each family of detectors gives out."""

from __future__ import annotations

import contextlib
import io
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from act.errors import InputError
from act.metrics import quality_of, resampled, scorer
from act.metrics.coco_map import Metric
from act.metrics.coco_map.decoders import DECODERS, grid, guess
from act.metrics.coco_map.matching import matched
from act.samples.dataset import Ragged, Samples

SIZE = (64, 64)


def scene(rng: np.random.Generator) -> tuple[Any, Any]:
    """Draw the boxes that a picture has, some of them crowds, and what a poor detector finds, of few scores."""
    count = int(rng.integers(0, 8))
    corners = rng.uniform(0, 300, (count, 2))
    truths = np.column_stack([rng.integers(0, 3, count), corners, corners + rng.uniform(25, 90, (count, 2))])
    near = truths[rng.integers(0, max(count, 1), 30 * (count > 0))]
    boxes = near[:, 1:] + rng.normal(0, 4, (len(near), 4))
    stray = rng.uniform(0, 300, (5, 2))
    boxes = np.concatenate([boxes, np.column_stack([stray, stray + rng.uniform(5, 90, (5, 2))])])
    kinds = np.concatenate([near[:, 0], rng.integers(0, 4, 5)])
    scores = rng.choice(np.linspace(0.1, 1, 12), len(kinds))
    found = np.column_stack([kinds, scores, boxes])
    return found, np.column_stack([truths, rng.random(count) < 0.2])


def by_pycocotools(scenes: list[tuple[Any, Any]]) -> tuple[float, float]:
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    images, truths, results = (list[dict[str, Any]]() for _ in range(3))
    for number, (found, wanted) in enumerate(scenes):
        images.append({"id": number})
        for kind, left, top, right, bottom, crowd in wanted:
            box = [left, top, right - left, bottom - top]
            truths.append({"id": len(truths) + 1, "image_id": number, "category_id": int(kind), "bbox": box,
                           "area": box[2] * box[3], "iscrowd": int(crowd)})  # fmt: skip
        for kind, score, left, top, right, bottom in found:
            box = [left, top, right - left, bottom - top]
            results.append({"image_id": number, "category_id": int(kind), "bbox": box, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        known = coco.COCO()
        known.dataset = {"images": images, "annotations": truths, "categories": [{"id": n} for n in range(4)]}
        known.createIndex()
        run = evaluation.COCOeval(known, known.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return float(run.stats[0]), float(run.stats[1])


def test_the_figures_are_those_of_pycocotools_on_all_pictures_and_on_any_selection_of_them() -> None:
    rng = np.random.default_rng(0)
    scenes = [scene(rng) for _ in range(40)]
    quality = quality_of(Metric, [matched(*each) for each in scenes])
    assert (quality.value, quality.beside["ap50"]) == pytest.approx(by_pycocotools(scenes), abs=1e-9)
    times = rng.integers(0, 3, len(scenes))
    chosen = [each for each, count in zip(scenes, times) for _ in range(count)]
    weighted = Metric.figure(quality.statistics)(times[None].astype(float))
    assert weighted[0] == pytest.approx(by_pycocotools(chosen)[0], abs=0.01)  # equal scores stand in another order


def test_a_difference_of_two_models_has_an_interval_that_forgets_what_both_share() -> None:
    rng = np.random.default_rng(1)
    scenes = [scene(rng) for _ in range(30)]
    one = quality_of(Metric, [matched(*each) for each in scenes])
    worse = quality_of(Metric, [matched(found[::2], wanted) for found, wanted in scenes])
    first, same, second = resampled([one, one, worse], 0)
    assert (first == same).all() and (first - second).mean() > 0
    assert (first - second).std() < min(first.std(), second.std())


BOX, KIND, CLASSES = np.array([8.0, 16.0, 40.0, 48.0]), 2, 3


def truth() -> Samples:
    label = np.array([[-1, 0, 0, 64, 64, 0], [KIND, *BOX, 0]], dtype=np.float64)
    return Samples({"x": Ragged.of([np.zeros((3, *SIZE), np.float32)])}, Ragged.of([label]))


def centre() -> np.ndarray[Any, Any]:
    return np.concatenate([(BOX[:2] + BOX[2:]) / 2, BOX[2:] - BOX[:2]])


def rows(count: int, *columns: Any) -> np.ndarray[Any, Any]:
    """Return an output of many boxes, one of which is likely."""
    values = np.zeros((count, sum(map(len, columns))), np.float32)
    values[:, 2:4] = 1
    values[7] = np.concatenate(columns)
    return values


def one_hot(length: int = CLASSES) -> np.ndarray[Any, Any]:
    return np.eye(length)[KIND] * 0.9


def yolov5() -> list[Any]:
    return [rows(3 * 84, centre(), [1.0], one_hot())]


def yolov8() -> list[Any]:
    return [rows(84, centre(), one_hot()).T]


def yolox() -> list[Any]:
    places, strides = grid(SIZE, (8, 16, 32))
    offsets, sides = centre()[:2] / strides[7] - places[7], np.log(centre()[2:] / strides[7])
    return [rows(84, offsets, sides, [1.0], one_hot())]


def nanodet() -> list[Any]:
    places, strides = grid(SIZE, (8, 16, 32))
    inside = 35
    at = (places[inside] + 0.5) * strides[inside]
    bins = np.full((84, 4, 8), -30.0, np.float32)
    for side, distance in enumerate(np.concatenate([at - BOX[:2], BOX[2:] - at]) / strides[inside]):
        low = int(distance)
        bins[inside, side, low : low + 2] = np.log(np.maximum([low + 1 - distance, distance - low], 1e-9))
    scores = np.zeros((84, CLASSES), np.float32)
    scores[inside] = one_hot()
    grids = [[part[start:stop] for start, stop in pairwise([0, 64, 80, 84])] for part in (scores, bins.reshape(84, 32))]
    return [*grids[0], *grids[1]]


def boxes_scores() -> list[Any]:
    return [rows(100, one_hot()).T * (np.arange(100) == 7), rows(100, BOX / 64)]


def nms() -> list[Any]:
    return [np.stack([BOX / 64, BOX * 0]), np.array([KIND, 0.0]), np.array([0.9, 0.5]), np.array([1.0])]


def paddle_nms() -> list[Any]:
    return [np.array([[KIND, 0.9, *BOX], [-1, 0, 0, 0, 0, 0]])]


@pytest.mark.parametrize("outputs", [yolov5, yolov8, yolox, nanodet, boxes_scores, nms, paddle_nms])
def test_a_box_is_found_where_each_family_of_detectors_says_it_is(outputs: Any) -> None:
    name, values = outputs.__name__, outputs()
    metric = scorer({"name": "coco_map", "decoder": name}, truth())
    metric.add(values)
    assert metric.quality().value == pytest.approx(1.0)
    assert DECODERS[name](values, SIZE).boxes.shape[1] == 4
    if name in ("yolox", "paddle_nms"):
        with pytest.raises(InputError, match=f"several ways; set `metric.decoder` to one of .*`{name}`"):
            guess([each.shape for each in values], SIZE)
    else:
        assert guess([each.shape for each in values], SIZE) == name
