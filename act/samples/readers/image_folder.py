"""Pictures in a folder, in ImageNet's layout, prepared as classifiers are evaluated: resized, cut, normalised.

Pictures are opened one by one and kept on the disk, so that their number takes no memory; one that would take too much
by itself is refused before it is unpacked.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from PIL import Image
from pydantic import Field, model_validator
from tqdm import tqdm

from act.errors import InputError
from act.samples.dataset import Array, FeedSpec, Gathering, Ragged, Samples
from act.samples.readers import only_feed
from act.settings.base import Text
from act.settings.data import Data

LARGEST_PIXELS = 100_000_000
LONGEST_LIST = 64_000_000  # bytes
# Those that Pillow reads by itself; others start programs, or hold more than a picture.
_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".webp": "WEBP", ".ppm": "PPM"}


class Settings(Data):
    """Pictures in a folder, in ImageNet's layout: a list names them, each with or without its class number."""

    path: Text = Field(description="folder that holds the pictures and the lists, at whatever depth")
    calibration_list: str | None = Field(default=None, min_length=1)
    """text file inside the folder, a line `relative/path.jpg CLASS` a picture, the class optional; all pictures of the
    folder, sorted, when left out"""
    evaluation_list: str | None = Field(default=None, min_length=1)
    """likewise; when left out, the pictures of `calibration_list` are dealt out to both"""
    calibration: int = Field(default=128, ge=1, le=1_000_000, description="pictures at most, evenly from the list")
    evaluation: int = Field(default=512, ge=1, le=1_000_000, description="pictures at most, evenly from the list")
    resize: int | None = Field(default=256, ge=1, le=8192)
    """length of the shorter side; null: the picture is stretched to `size`"""
    size: list[Annotated[int, Field(ge=1, le=8192)]] | None = Field(default=None, min_length=2, max_length=2)
    """[height, width] cut from the middle; what the model's input asks for when left out"""
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    order: Literal["RGB", "BGR"] = "RGB"
    scale: float = Field(default=1 / 255, gt=0)
    """an input is (pixel x scale - mean) / std, a pixel 0 to 255"""
    mean: list[float] = Field(default=[0.485, 0.456, 0.406], min_length=1, max_length=3, description="in this `order`")
    std: list[Annotated[float, Field(gt=0)]] = Field(default=[0.229, 0.224, 0.225], min_length=1, max_length=3)

    @model_validator(mode="after")
    def _sizes_fit(self) -> Settings:
        if self.resize is not None and self.size is not None and max(self.size) > self.resize:
            larger = f"`size` is {self.size}, larger than `resize` {self.resize}"
            raise ValueError(f"{larger}: raise that, or set it to null to stretch")
        if {len(self.mean), len(self.std)} - {1, 3} or len(self.mean) != len(self.std):
            raise ValueError("`mean` and `std` must both have one value, or both three")
        return self


class _Entry(NamedTuple):
    path: Path
    label: int | None
    where: str  # it is named, for messages


def read(settings: Settings, feeds: Sequence[FeedSpec], class_count: int, scratch: Path) -> tuple[Samples, Samples]:
    """Read the calibration samples (no labels) and the evaluation samples (labelled where the list has classes)."""
    feed = only_feed(settings.reader, feeds)
    channels, size = _shape(settings, feed)
    calibration = _entries(settings.path, settings.calibration_list)
    if settings.evaluation_list not in (None, settings.calibration_list):
        evaluation = _entries(settings.path, settings.evaluation_list)
    elif len(calibration) > 1:
        calibration, evaluation = calibration[0::2], calibration[1::2]
    else:
        cause = "it takes two, to calibrate on one and judge by another"
        raise InputError(f"{settings.path}: {len(calibration)} pictures; {cause}")
    calibration, evaluation = _thinned(calibration, settings.calibration), _thinned(evaluation, settings.evaluation)
    unlabelled = [entry for entry in evaluation if entry.label is None]
    if unlabelled and len(unlabelled) != len(evaluation):
        raise InputError(f"{unlabelled[0].where}: has no class number, though others have one; give all or none")
    labels = None if unlabelled else Ragged.of([np.array([entry.label], dtype=np.int64) for entry in evaluation])
    pictures = Gathering(scratch), Gathering(scratch)
    for gathering, entries in zip(pictures, (calibration, evaluation)):
        for entry in tqdm(entries, desc="reading pictures", unit="picture", leave=False, delay=2):
            gathering.add(_prepared(_open(entry, channels), settings, size))
    return Samples({feed.name: pictures[0].ragged()}), Samples({feed.name: pictures[1].ragged()}, labels)


def _shape(settings: Settings, feed: FeedSpec) -> tuple[int, tuple[int, int]]:
    """Return how many channels the model wants, and the height and width of its pictures."""
    if len(feed.shape) != 4 or feed.dtype != "float32" or feed.shape[1] not in (1, 3):
        found = f"the model's input `{feed.name}` is {feed.dtype} {list(feed.shape)}; use `arrays` or `function`"
        raise InputError(f"reader `image_folder` feeds float32 [N, 3 or 1, height, width], but {found}")
    where, channels = f"the model's input `{feed.name}`", feed.shape[1]
    height, width = settings.size or feed.shape[2:]
    if -1 in (height, width):
        cure = "set `data.size: [height, width]` for the reader `image_folder`"
        raise InputError(f"{where} takes pictures of any size; {cure}")
    if settings.resize is not None and max(height, width) > settings.resize:
        shorter = f"a picture of which the shorter side is `data.resize` {settings.resize}"
        cure = "raise it, or set it to null to stretch the pictures"
        raise InputError(f"{height} x {width} pixels cannot be cut from {shorter}: {cure}")
    if len(settings.mean) not in (1, channels):
        found = f"`data.mean` and `data.std` have {len(settings.mean)} values"
        raise InputError(f"{found}, but {where} has {channels} channel: give one value each")
    return channels, (height, width)


def _entries(folder: str, list_file: str | None) -> list[_Entry]:
    """Return what the list names, in its order; all pictures of the folder when there is no list."""
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{folder}: no such folder; the reader `image_folder` needs it")
    if list_file is None:
        found = sorted(path for path in root.rglob("*") if path.suffix.lower() in _FORMATS and path.is_file())
        if not found:
            raise InputError(f"{folder}: no pictures in it; looked for {', '.join(_FORMATS)}")
        return [_Entry(_inside(root, path, str(path)), None, str(path)) for path in found]
    path = _inside(root, root / list_file, f"`data` names the list {list_file!r}, which")
    try:
        if path.stat().st_size > LONGEST_LIST:
            raise InputError(f"{path}: {path.stat().st_size / 1e6:.0f} MB are no list of pictures; name a text file")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list: {error}; name a text file inside {folder}") from None
    entries = [_entry(root, line.strip(), f"{path}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]
    if not entries:
        raise InputError(f"{path}: names no pictures; write a line `relative/path.jpg CLASS` for each")
    return entries


def _entry(root: Path, line: str, where: str) -> _Entry:
    name, _, last = line.rpartition(" " if " " in line else "\t")
    if not name or not last.lstrip("+-").isdecimal():
        name, last = line, ""
    if last and not 0 <= int(last[:20]) < 2**31:
        raise InputError(f"{where}: the class is {last[:20]}; classes are counted from 0")
    return _Entry(_inside(root, root / name.strip(), f"{where}: {name.strip()!r}"), int(last) if last else None, where)


def _inside(root: Path, path: Path, what: str) -> Path:
    """Return the path, unless it leads out of the folder: a list from elsewhere must not reach other files."""
    try:
        if path.resolve().is_relative_to(root.resolve()):
            return path
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte, links in a circle
        raise InputError(f"{what} is no path: {error}; name a picture inside {root}") from None
    raise InputError(f"{what} leads out of {root}; name what lies inside it")


def _thinned(entries: Sequence[_Entry], count: int) -> list[_Entry]:
    """Return at most so many, evenly from the whole list, which may be sorted by class."""
    count = min(count, len(entries))
    return [entries[position * len(entries) // count] for position in range(count)]


def _open(entry: _Entry, channels: int) -> Image.Image:
    where = entry.where if entry.where == str(entry.path) else f"{entry.where}: {entry.path}"
    if entry.path.suffix.lower() not in _FORMATS:
        raise InputError(f"{where}: not a kind of picture that is read here ({', '.join(_FORMATS)}); convert it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # we refuse more than it warns of
            # Files are not always what their name says: ImageNet has a PNG called JPEG.
            with Image.open(entry.path, formats=sorted(set(_FORMATS.values()))) as image:
                if image.width * image.height > LARGEST_PIXELS:
                    raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
                return image.convert("RGB" if channels == 3 else "L")
    except FileNotFoundError:
        raise InputError(f"{where}: no such file; correct the list or copy the picture there") from None
    except Image.DecompressionBombError as error:
        cure = f"at most {LARGEST_PIXELS} pixels are read: shrink it or leave it out"
        raise InputError(f"{where}: too large, {error}; {cure}") from None
    except Exception as error:  # Pillow and its codecs raise a dozen kinds on damaged files
        cause = " ".join(str(error).split())
        raise InputError(f"{where}: not a picture, or damaged: {cause}; mend it or leave it out") from None


def _prepared(image: Image.Image, settings: Settings, size: tuple[int, int]) -> Array:
    """Return an input of the model, float32 [channels, height, width]."""
    height, width = size
    box = None
    if settings.resize is not None:
        factor = settings.resize / min(image.size)
        longer = [max(round(length * factor), settings.resize) for length in image.size]
        # Only what is kept is computed: a strip a pixel high and a million long would fill the memory.
        left, top = ((whole - part) // 2 for whole, part in zip(longer, (width, height)))
        across, down = image.width / longer[0], image.height / longer[1]
        right, bottom = min((left + width) * across, image.width), min((top + height) * down, image.height)
        box = (left * across, top * down, right, bottom)
    image = image.resize((width, height), Image.Resampling[settings.interpolation.upper()], box=box)
    pixels = np.asarray(image, dtype=np.float32).reshape(height, width, -1)
    if settings.order == "BGR":
        pixels = pixels[:, :, ::-1]
    mean, std = np.array(settings.mean, dtype=np.float32), np.array(settings.std, dtype=np.float32)
    normalised = (pixels * np.float32(settings.scale) - mean) / std
    return np.ascontiguousarray(normalised.transpose(2, 0, 1), dtype=np.float32)
