"""What a detector's outputs mean: boxes in pixels of its input with a score for each class, by family of models.

A decoder takes the outputs of one sample and the input's height and width, and returns `Found`. `guess` tells by shapes
which one is meant, where only one can be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from act.errors import InputError, quoted
from act.samples.dataset import Array

Size = tuple[int, int]
_STRIDES = ((8, 16, 32), (8, 16, 32, 64))
_ANCHORS = 3  # boxes at each place, of YOLOv5 and YOLOv7
# Boxes of a whole input in shares of its sides never exceed this, and in pixels always do.
_LARGEST_SHARE = 2.0
_FEW = 1000  # boxes that are left by NMS, at most


class Found(NamedTuple):
    """Boxes float [n, 4] as left, top, right, bottom in pixels, scores float [n, classes]; or, where the model has
    thinned them out itself, scores float [n] and `classes` int [n]."""

    boxes: Array
    scores: Array
    classes: Array | None = None


def yolov5(outputs: Sequence[Array], size: Size) -> Found:
    """Read rows of centre, width and height, objectness, and scores: YOLOv5, YOLOv7, YOLOv6 and YOLOX decoded."""
    rows = _rows(outputs[0])
    return Found(_from_centres(rows[:, :4]), rows[:, 4:5] * rows[:, 5:])


def yolov8(outputs: Sequence[Array], size: Size) -> Found:
    """Read columns of centre, width and height, and scores: YOLOv8, YOLOv11."""
    rows = _rows(outputs[0])
    rows = rows.T if rows.shape[0] < rows.shape[1] else rows
    return Found(_from_centres(rows[:, :4]), rows[:, 4:])


def yolox(outputs: Sequence[Array], size: Size) -> Found:
    """Read rows as `yolov5`, with centres as offsets in the cells of three grids, and logarithms of the sides."""
    rows = _rows(outputs[0])
    places, strides = grid(size, _STRIDES[0])
    _same(len(rows), len(places), size)
    centres = (rows[:, :2] + places) * strides
    sides = np.exp(np.clip(rows[:, 2:4], -20, 20)) * strides
    return Found(_from_centres(np.concatenate([centres, sides], axis=1)), rows[:, 4:5] * rows[:, 5:])


def nanodet(outputs: Sequence[Array], size: Size) -> Found:
    """Read scores and distributions of the distances to a box's sides, of three or four grids or all in one output:
    NanoDet, PicoDet, PP-YOLOE without its end (generalized focal loss; Li et al., 2020)."""
    scores, distances = _scores_and_distances(outputs, size)
    strides = next(each for each in _STRIDES if _cells(size, each) == len(scores))
    places, steps = grid(size, strides)
    centres = (places + 0.5) * steps
    bins = distances.reshape(len(distances), 4, -1)
    weights = np.exp(bins - bins.max(axis=2, keepdims=True))
    sides = (weights @ np.arange(bins.shape[2])) / weights.sum(axis=2) * steps
    boxes = np.concatenate([centres - sides[:, :2], centres + sides[:, 2:]], axis=1)
    return Found(boxes, scores if scores.min(initial=0) >= 0 else 1 / (1 + np.exp(-scores)))


def boxes_scores(outputs: Sequence[Array], size: Size) -> Found:
    """Read one output of boxes and one of scores by class, in either order: PP-YOLOE before NMS, decoded SSD."""
    rows = [_rows(each) for each in outputs[:2]]
    boxes, scores = rows if rows[0].shape[1] == 4 and rows[1].shape != (4, len(rows[0])) else rows[::-1]
    scores = scores.T if len(scores) != len(boxes) else scores
    return Found(_in_pixels(boxes, size), scores)


def nms(outputs: Sequence[Array], size: Size) -> Found:
    """Read boxes, scores and classes in outputs of their own, and how many count where there is a fourth."""
    tables = [each for each in outputs if each.ndim >= 2 and each.shape[-1] == 4]
    if not tables:
        raise InputError(f"outputs of shapes {_shapes(outputs)} are no boxes, scores and classes")
    boxes = tables[0].reshape(-1, 4)
    flat = [each.reshape(-1) for each in outputs if each is not tables[0] and each.size == len(boxes)]
    whole = [bool(np.all(each == np.rint(each))) for each in flat]
    if len(flat) < 2:
        raise InputError(f"outputs of shapes {_shapes(outputs)} are no boxes, scores and classes")
    classes = flat[whole.index(True)] if True in whole else flat[-1]
    scores = next(each for each in flat if each is not classes)
    counts = [int(each.reshape(-1)[0]) for each in outputs if each.size == 1]
    count = counts[0] if counts and len(boxes) > 1 else len(boxes)
    return Found(_in_pixels(boxes[:count], size), scores[:count], classes[:count].astype(np.int64))


def paddle_nms(outputs: Sequence[Array], size: Size) -> Found:
    """Read rows of class, score, and box: Paddle's `multiclass_nms`; a class below 0 is none."""
    rows = outputs[0].reshape(-1, 6)
    rows = rows[rows[:, 0] >= 0]
    return Found(_in_pixels(rows[:, 2:], size), rows[:, 1], rows[:, 0].astype(np.int64))


def end2end(outputs: Sequence[Array], size: Size) -> Found:
    """Read rows of box, score, and class: YOLOv10 and exports with their own NMS."""
    rows = outputs[0].reshape(-1, 6)
    return Found(_in_pixels(rows[:, :4], size), rows[:, 4], rows[:, 5].astype(np.int64))


DECODERS: dict[str, Callable[[Sequence[Array], Size], Found]] = {
    each.__name__: each for each in (yolov5, yolov8, yolox, nanodet, boxes_scores, nms, paddle_nms, end2end)
}


def guess(shapes: Sequence[tuple[int, ...]], size: Size) -> str:
    """Return the name of the decoder that outputs of these shapes, without the batch axis, are meant for.

    Raises:
        InputError: there is none, or several could be meant.
    """
    found = _possible([tuple(length for length in shape if length != 1) or (1,) for shape in shapes], size)
    if len(found) == 1:
        return found[0]
    told = f"outputs of shapes {[list(shape) for shape in shapes]} for an input of {size[0]} x {size[1]}"
    cure = f"set `metric.decoder` to one of {quoted(found or DECODERS)}"
    raise InputError(f"{told} may be read in {'several ways' if found else 'no way that is known'}; {cure}")


def _possible(shapes: Sequence[tuple[int, ...]], size: Size) -> list[str]:
    cells = [_cells(size, each) for each in _STRIDES]
    if len(shapes) == 1:
        if shapes[0][-1] == 6 and len(shapes[0]) <= 2 and shapes[0][0] <= _FEW and shapes[0][0] not in cells:
            return ["paddle_nms", "end2end"]
        if len(shapes[0]) != 2:
            return []
        rows, columns = shapes[0]
        if columns > rows:
            return ["yolov8"] if columns in cells and rows > 4 else []
        if rows in [_ANCHORS * each for each in cells] and columns > 5:
            return ["yolov5"]
        if rows in cells and columns > 5:
            return ["yolov5", "yolox", *(["nanodet"] if columns > 32 else [])]
        return []
    if len(shapes) == 2:
        sides = [shape for shape in shapes if len(shape) == 2 and 4 in shape]
        return ["boxes_scores"] if sides else (["paddle_nms"] if shapes[0][-1] == 6 else _distances(shapes, cells))
    if len(shapes) in (3, 4) and any(len(shape) == 2 and shape[1] == 4 for shape in shapes):
        return ["nms"]
    return _distances(shapes, cells)


def _distances(shapes: Sequence[tuple[int, ...]], cells: Sequence[int]) -> list[str]:
    if len(shapes) % 2 or not all(len(shape) in (2, 3) for shape in shapes):
        return []
    for axis in (0, 1):
        places = sum(shape[axis] if len(shape) == 2 else shape[1] * shape[2] for shape in shapes)
        if places in [2 * each for each in cells]:
            return ["nanodet"]
    return []


def grid(size: Size, strides: Sequence[int]) -> tuple[Array, Array]:
    """Return the column and row of each cell of an input's grids, float64 [cells, 2], and its side, [cells, 1]."""
    places, steps = [], []
    for stride in strides:
        height, width = (-(-length // stride) for length in size)
        rows, columns = np.mgrid[:height, :width]
        places.append(np.stack([columns.reshape(-1), rows.reshape(-1)], axis=1))
        steps.append(np.full((height * width, 1), stride))
    return np.concatenate(places).astype(np.float64), np.concatenate(steps).astype(np.float64)


def _cells(size: Size, strides: Sequence[int]) -> int:
    return sum(-(-size[0] // stride) * -(-size[1] // stride) for stride in strides)


def _scores_and_distances(outputs: Sequence[Array], size: Size) -> tuple[Array, Array]:
    """Return what comes in pairs of outputs for each grid, or side by side in one, for all cells: the larger grids
    first."""
    parts = [each.reshape(len(each), -1).T if each.ndim == 3 else _rows(each) for each in outputs]
    if len(parts) == 1:
        parts = [parts[0][:, :-32], parts[0][:, -32:]]  # eight bins a side
    elif sum(map(len, parts)) not in [2 * _cells(size, each) for each in _STRIDES]:
        parts = [part.T for part in parts]
    kinds = sorted({part.shape[1] for part in parts})
    if len(kinds) != 2:
        raise InputError(f"outputs of shapes {_shapes(outputs)} are no scores and distances of grids")
    # Distances have four sides of at least eight bins; where both could, they come behind the scores.
    wide = [kind for kind in kinds if kind % 4 == 0 and kind >= 32] or kinds
    last = parts[-1].shape[1]
    sides = last if last in wide else wide[0]
    found = []
    for is_distance in (False, True):
        chosen = [part for part in parts if (part.shape[1] == sides) == is_distance]
        found.append(np.concatenate(sorted(chosen, key=len, reverse=True)).astype(np.float64))
    if len(found[0]) not in [_cells(size, each) for each in _STRIDES] or len(found[0]) != len(found[1]):
        raise InputError(
            f"outputs of shapes {_shapes(outputs)} do not fill the grids of an input of {size[0]} x {size[1]}"
        )
    return found[0], found[1]


def _rows(values: Array) -> Array:
    """Return a matrix, float64, without axes of length 1."""
    rows = values.reshape([length for length in values.shape if length != 1] or [1]) if values.ndim > 2 else values
    if rows.ndim != 2:
        raise InputError(f"an output of shape {list(values.shape)} is no table of boxes; set `metric.decoder`")
    return rows.astype(np.float64)


def _from_centres(rows: Array) -> Array:
    half = rows[:, 2:4] / 2
    return np.concatenate([rows[:, :2] - half, rows[:, :2] + half], axis=1)


def _in_pixels(boxes: Array, size: Size) -> Array:
    boxes = boxes.astype(np.float64)
    if len(boxes) and np.abs(boxes).max() <= _LARGEST_SHARE:
        boxes = boxes * [size[1], size[0], size[1], size[0]]
    return boxes


def _same(rows: int, cells: int, size: Size) -> None:
    if rows != cells:
        raise InputError(f"{rows} boxes do not fill the {cells} cells of an input of {size[0]} x {size[1]}")


def _shapes(outputs: Sequence[Array]) -> list[list[int]]:
    return [list(each.shape) for each in outputs]
