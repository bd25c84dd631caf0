"""Pictures with boxes around objects, as COCO's annotation files have them.

A label is float64 [1 + boxes, 6] in pixels of the model's input: first the picture's own place there, then each box; as
`act.metrics.coco_map` reads it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field
from tqdm import tqdm

from act.errors import InputError
from act.samples.dataset import PADDING, Array, FeedSpec, Gathering, Ragged, Samples
from act.samples.listing import inside, thinned
from act.samples.pictures import Frame, PictureSettings, Preparation
from act.settings.base import Text
from act.settings.data import Labels

LARGEST_FILE = 1_000_000_000  # bytes


class Settings(PictureSettings):
    """Pictures with boxes around objects: COCO's annotation files, and folders of the pictures that these name."""

    path: Text = Field(description="folder that holds the files and folders below")
    calibration_annotations: Text = "calibration.json"
    calibration_images: Text = Field(default="calibration", description="folder of the calibration pictures")
    evaluation_annotations: Text = "evaluation.json"
    evaluation_images: Text = Field(default="evaluation", description="folder of the evaluation pictures")
    classes: Literal["place", "id"] = "place"
    """a box's class, as the model counts them: its category's place among all, sorted by their numbers, or that number
    itself"""
    calibration: int = Field(default=128, ge=1, le=1_000_000, description="pictures at most")
    evaluation: int = Field(default=512, ge=1, le=1_000_000, description="pictures at most")

    @property
    def labels(self) -> Labels | None:
        return "boxes"


@dataclass
class _Picture:
    path: Path
    where: str
    boxes: list[list[float]] = field(default_factory=list)  # class, left, top, width, height, whether it is a crowd


def read(settings: Settings, feeds: Sequence[FeedSpec], class_count: int, scratch: Path) -> tuple[Samples, Samples]:
    """Read the calibration samples (no labels) and the evaluation samples with their boxes.

    Beside the picture, inputs of two numbers are fed as Paddle's detectors want them: by `im_shape` the input's height
    and width, by `scale_factor` 1, so that boxes are in pixels of the input.
    """
    root = Path(settings.path)
    images = [feed for feed in feeds if len(feed.shape) == 4]
    if len(images) != 1 or any(feed.shape[1:] != (2,) for feed in feeds if feed not in images):
        told = ", ".join(f"`{feed.name}` {list(feed.shape)}" for feed in feeds)
        raise InputError(f"reader `{settings.reader}` feeds one picture, its size and scale, but the inputs are {told}")
    preparation = Preparation.of(settings, images[0])
    taken: list[Samples] = []
    for role in ("calibration", "evaluation"):
        annotations, folder = (str(getattr(settings, f"{role}_{key}")) for key in ("annotations", "images"))
        named = thinned(_pictures(root, annotations, folder, settings.classes), getattr(settings, role))
        inputs, labels = Gathering(scratch), []
        for each in tqdm(named, desc="reading pictures", unit="picture", leave=False, delay=2):
            fitted, frame = preparation.fitted(preparation.opened(each.path, each.where))
            inputs.add(preparation.normalised(fitted, images[0].dtype))
            labels.append(_label(each, frame))
        others = _sizes([feed for feed in feeds if feed not in images], preparation, len(named))
        given = {images[0].name: inputs.ragged(), **others}
        taken.append(Samples({feed.name: given[feed.name] for feed in feeds}, Ragged.of(labels)))
    return Samples(taken[0].feeds), taken[1]


def _sizes(feeds: Iterable[FeedSpec], preparation: Preparation, count: int) -> dict[str, Ragged]:
    size, one = (preparation.height, preparation.width), (1, 1)
    values = {feed.name: np.array(one if "scale" in feed.name else size, dtype=feed.dtype) for feed in feeds}
    return {name: Ragged.of([value] * count) for name, value in values.items()}


def _label(picture: _Picture, frame: Frame) -> Array:
    """Return a picture's place and its boxes in the input: class, left, top, right, bottom, whether it is a crowd."""
    rows = [[float(PADDING), 0.0, 0.0, *map(float, frame.size), 0.0]]
    rows += [
        [kind, left, top, left + width, top + height, crowd] for kind, left, top, width, height, crowd in picture.boxes
    ]
    label = np.array(rows, dtype=np.float64)
    label[:, [1, 3]] = label[:, [1, 3]] * frame.across + frame.left
    label[:, [2, 4]] = label[:, [2, 4]] * frame.down + frame.top
    return label


def _pictures(root: Path, annotations: str, folder: str, classes: str) -> list[_Picture]:
    """Return the pictures of an annotation file with their boxes, in its order."""
    path = inside(root, annotations, f"`data` names the annotations {annotations!r}, which")
    content = _content(path)
    place = inside(root, folder, f"`data` names the folder {folder!r}, which")
    found: dict[Any, _Picture] = {}
    for number, image in enumerate(content["images"]):
        where = f"{path}, image {number}"
        name = image.get("file_name")
        if not isinstance(name, str) or not isinstance(image.get("id"), int):
            raise InputError(f"{where}: needs a number `id` and a text `file_name`")
        file = inside(place, name, f"{where}: {name!r}")
        found[image["id"]] = _Picture(file, f"{where}: {file}")
    numbers = sorted(each["id"] for each in content["categories"] if isinstance(each.get("id"), int))
    known = {each: index if classes == "place" else each for index, each in enumerate(numbers)}
    for number, box in enumerate(content["annotations"]):
        where = f"{path}, annotation {number}"
        if box.get("image_id") not in found:
            raise InputError(f"{where}: its `image_id` {box.get('image_id')!r:.40} is none of the images")
        if box.get("category_id") not in known:
            raise InputError(f"{where}: its `category_id` {box.get('category_id')!r:.40} is none of the categories")
        found[box["image_id"]].boxes.append([float(known[box["category_id"]]), *_corners(box, where)])
    if not found:
        raise InputError(f"{path}: names no images")
    return list(found.values())


def _corners(box: Mapping[str, Any], where: str) -> list[float]:
    values = box.get("bbox")
    fits = isinstance(values, list) and len(values) == 4 and all(isinstance(v, int | float) for v in values)
    if not fits or not all(map(math.isfinite, values)) or min(values[2:]) < 0:  # type: ignore[arg-type, index]
        raise InputError(f"{where}: its `bbox` is {values!r:.60}; it must be [left, top, width, height] in pixels")
    return [*map(float, values), float(bool(box.get("iscrowd")))]  # type: ignore[arg-type]


def _content(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(f"{path}: {path.stat().st_size / 1e9:.1f} GB are more than is read; give fewer pictures")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; set `data.calibration_annotations` and the like") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {' '.join(str(error).split())}") from None
    keys = ("images", "annotations", "categories")
    for key in keys:
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise InputError(f"{path}: no list `{key}` of objects; COCO's files have {', '.join(keys)}")
    return content
