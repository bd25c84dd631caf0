"""Lines of text, and pages of them, drawn with real fonts and degraded like photographs, as PP-OCR's models want them.

Each sample has a random stream of its own, made from the seed, its role and its number. A text belongs to the
calibration or to the evaluation samples by its checksum, so the two never share one. Preprocessing follows PP-OCR:
(pixel / 255 - 0.5) / 0.5, blue first; of a line the height is fixed, the ratio kept, and there are zeros to the right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from pydantic import Field, model_validator
from tqdm import tqdm

from act.errors import InputError
from act.samples.dataset import PADDING, Array, FeedSpec, Gathering, Ragged, Samples
from act.samples.readers import only_feed
from act.settings.base import Seed, Text
from act.settings.data import Data, Labels
from act.settings.files import read_text, resolve

Role = Literal["calibration", "evaluation"]
Picture = npt.NDArray[np.float32]
Colour = tuple[int, ...]
Rng = np.random.Generator

_PAGE_STEP = 32
_LABELS: dict[str, Labels] = {"recognition": "sequence", "direction": "class", "detection": "nothing"}
_ROLES: tuple[Role, ...] = ("calibration", "evaluation")
_FONT_FOLDER = "matplotlib/mpl-data/fonts/ttf"
_FONT_NAMES = ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif", "STIXGeneral")
_CASES = (str.lower, str.capitalize, str.upper)
_CALIBRATION_SHARE = 5  # one text in five
_MOST_WORDS = 3
_MOST_TRIES = 1000
_LINE_SIZES, _PAGE_SIZES = (20, 33), (12, 41)  # of fonts: the smallest, and one more than the largest
_FEWEST_PAGE_LINES, _MOST_PAGE_LINES = 3, 10
_ON_OWN_PAPER = 0.7  # share of a page's lines; the others are labels with colours of their own
_MARGIN = 4  # pixels between the lines of a page
_MOST_MISSES = 30  # random places that were taken, or texts too wide, before a page counts as full


class Settings(Data):
    """Text drawn with real fonts and degraded like photographs, from a list of words and a seed.

    For `recognition` and `direction` a sample is one line, for `detection` a page with several, unlabelled.
    """

    path: Text = Field(description="text file with one word a line")
    task: Literal["recognition", "direction", "detection"] = "recognition"
    alphabet: str | None = None
    """file with one character a line, or a model's reference file; needed for `recognition`"""
    calibration: int = Field(default=128, ge=1, le=100_000)
    evaluation: int = Field(default=512, ge=1, le=100_000)
    height: int = Field(default=48, ge=8, le=4096)
    width: int = Field(default=320, ge=16, le=4096)
    seed: Seed = 0

    @model_validator(mode="after")
    def _task_has_what_it_needs(self) -> Settings:
        if self.task == "recognition" and self.alphabet is None:
            raise ValueError("`alphabet` is missing: the task `recognition` needs the model's alphabet file")
        if self.task == "detection" and (self.height % _PAGE_STEP or self.width % _PAGE_STEP):
            why = "because the network halves its pictures five times"
            found = f"`height` is {self.height} and `width` {self.width}"
            raise ValueError(f"{found}: the task `detection` needs multiples of {_PAGE_STEP}, {why}")
        return self

    @property
    def labels(self) -> Labels | None:
        return _LABELS[self.task]


def read(settings: Settings, feeds: Sequence[FeedSpec], class_count: int, scratch: Path) -> tuple[Samples, Samples]:
    """Draw the calibration samples (no labels) and the evaluation samples (labels) for the model's one input.

    Feeds are float32 [3, height, width] in [-1, 1]. Labels of `recognition` are int64 class numbers filled up with
    `PADDING`; labels of `direction` are int64 [1]: 1 when the line is upside down; `detection` has none.
    """
    feed = only_feed(settings.reader, feeds).name
    words = list(dict.fromkeys(read_text(Path(settings.path), "name a file with one word a line").split()))
    if not words:
        raise InputError(f"{settings.path}: holds no words; put one word on each line")
    classes = _read_alphabet(settings.alphabet) if settings.task == "recognition" and settings.alphabet else {}
    if classes:
        if class_count not in (-1, len(classes) + 1):
            found = f"{len(classes)} characters with the space and one blank make {len(classes) + 1} classes"
            cure = "name the alphabet that the model was trained with"
            raise InputError(f"{settings.alphabet}: {found}, but the model has {class_count}; {cure}")
        words = [word for word in words if all(case(c) in classes for c in word for case in _CASES)]
        if not words:
            raise InputError(f"{settings.path}: no word of it can be written with the alphabet {settings.alphabet}")
    calibration, _ = Painter(settings, words, "calibration").draw(settings.calibration, scratch)
    evaluation, texts = Painter(settings, words, "evaluation").draw(settings.evaluation, scratch)
    labels = None if settings.task == "detection" else Ragged.of(_labels(settings, classes, texts))
    return Samples({feed: calibration}), Samples({feed: evaluation}, labels)


def _labels(settings: Settings, classes: dict[str, int], texts: Sequence[str]) -> list[Array]:
    if settings.task == "direction":
        return list(np.arange(len(texts), dtype=np.int64)[:, None] % 2)
    labels = np.full((len(texts), max(map(len, texts))), PADDING, dtype=np.int64)
    for row, text in zip(labels, texts):
        row[: len(text)] = [classes[character] for character in text]
    return list(labels)


class Painter:
    """Draws the lines or pages of one role."""

    def __init__(self, settings: Settings, words: Sequence[str], role: Role) -> None:
        self._settings, self._words, self._role = settings, words, role
        folder = Path(str(distribution("matplotlib").locate_file(_FONT_FOLDER)))
        self._fonts = sorted(path for path in folder.glob("*.ttf") if path.stem.split("-")[0] in _FONT_NAMES)

    def draw(self, count: int, scratch: Path) -> tuple[Ragged, list[str]]:
        """Draw pictures, float32 [3, height, width], each second one turned in `direction`; return their texts, too."""
        pictures, texts = Gathering(scratch), []
        for number in tqdm(range(count), desc=f"drawing {self._role}", unit="picture", leave=False, delay=2):
            picture, text = self.picture(number)
            pictures.add(picture)
            texts.append(text)
        return pictures.ragged(), texts

    def picture(self, number: int) -> tuple[Picture, str]:
        """Draw one picture with its text, which depend on nothing but seed, role and number."""
        rng = np.random.default_rng([self._settings.seed, _ROLES.index(self._role), number])
        turned = self._settings.task == "direction" and number % 2 == 1
        return self._page(rng) if self._settings.task == "detection" else self._line(rng, turned)

    def _line(self, rng: Rng, turned: bool) -> tuple[Picture, str]:
        height, width = self._settings.height, self._settings.width
        for text, font in self._texts(rng, _LINE_SIZES):
            image = _degrade(_write(text, font, _colours(rng), rng), rng)
            fitted = int(np.ceil(image.width * height / image.height))
            if fitted <= width:
                break
        else:
            raise self._do_not_fit()
        if turned:
            image = image.transpose(Image.Transpose.ROTATE_180)
        picture = np.zeros((3, height, width), dtype=np.float32)
        picture[:, :, :fitted] = _as_input(image.resize((fitted, height), Image.Resampling.BILINEAR))
        return picture, text

    def _page(self, rng: Rng) -> tuple[Picture, str]:
        """Draw several lines of text that do not touch."""
        own = _colours(rng)
        image = Image.new("RGB", (self._settings.width, self._settings.height), own[0])
        wanted = int(rng.integers(_FEWEST_PAGE_LINES, _MOST_PAGE_LINES + 1))
        taken = np.zeros(image.size[::-1], dtype=bool)
        written: list[str] = []
        misses = 0
        for text, font in self._texts(rng, _PAGE_SIZES):
            line = _write(text, font, own if rng.random() < _ON_OWN_PAPER else _colours(rng), rng)
            place = _free_place(taken, line.size, rng)
            if place is not None:
                image.paste(line, place)
                written.append(text)
            misses += place is None
            if len(written) == wanted or misses == _MOST_MISSES:
                break
        if not written:
            raise self._do_not_fit()
        return _as_input(_degrade(image, rng)), "\n".join(written)

    def _texts(self, rng: Rng, sizes: tuple[int, int]) -> Iterator[tuple[str, ImageFont.FreeTypeFont]]:
        """Yield texts of this role, each with a font, as many as may be tried."""
        for _ in range(_MOST_TRIES):
            case = _CASES[rng.integers(len(_CASES))]
            count = int(rng.integers(1, _MOST_WORDS + 1))
            text = " ".join(case(self._words[rng.integers(len(self._words))]) for _ in range(count))
            path, size = self._fonts[rng.integers(len(self._fonts))], int(rng.integers(*sizes))
            is_for_calibration = hashlib.sha256(text.encode()).digest()[0] % _CALIBRATION_SHARE == 0
            if is_for_calibration == (self._role == "calibration"):
                yield text, _load_font(str(path), size)

    def _do_not_fit(self) -> InputError:
        size = f"{self._settings.width} x {self._settings.height} pixels"
        cure = "raise both" if self._settings.task == "detection" else "raise `width` or lower `height`"
        cause = f"its words do not fit into {size}; {cure}, or use shorter and more words"
        return InputError(f"{self._settings.path}: {cause}")


def _colours(rng: Rng) -> tuple[Colour, Colour]:
    """Draw the colours of the paper and of the ink, one light and one dark."""
    paper, ink = tuple(rng.integers(140, 256, size=3).tolist()), tuple(rng.integers(0, 110, size=3).tolist())
    return (ink, paper) if rng.random() < 0.3 else (paper, ink)


def _write(text: str, font: ImageFont.FreeTypeFont, colours: tuple[Colour, Colour], rng: Rng) -> Image.Image:
    """Return a piece of paper with a line on it, not quite level."""
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text))
    paper, ink = colours
    image = Image.new("RGB", (right - left + 6, bottom - top + 8), paper)
    ImageDraw.Draw(image).text((3 - left, 4 - top), text, font=font, fill=ink)
    return image.rotate(float(rng.uniform(-2.5, 2.5)), resample=Image.Resampling.BICUBIC, fillcolor=paper)


def _free_place(taken: npt.NDArray[np.bool_], size: tuple[int, int], rng: Rng) -> tuple[int, int] | None:
    """Draw a place, (left, top), for a line of (width, height), and mark it as taken; None if it is not free."""
    width, height = size
    if height > taken.shape[0] or width > taken.shape[1]:
        return None
    left, top = int(rng.integers(taken.shape[1] - width + 1)), int(rng.integers(taken.shape[0] - height + 1))
    if taken[max(top - _MARGIN, 0) : top + height + _MARGIN, max(left - _MARGIN, 0) : left + width + _MARGIN].any():
        return None
    taken[top : top + height, left : left + width] = True
    return left, top


def _as_input(image: Image.Image) -> Picture:
    pixels: Picture = np.asarray(image, dtype=np.float32)[:, :, ::-1].transpose(2, 0, 1)
    return (pixels / 255 - 0.5) / 0.5


def _degrade(image: Image.Image, rng: Rng) -> Image.Image:
    blurred = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.7))))
    noisy = np.asarray(blurred, dtype=np.float32) + rng.normal(0, rng.uniform(5, 30), (image.height, image.width, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


_load_font = cache(ImageFont.truetype)


def _read_alphabet(path: str) -> dict[str, int]:
    """Return the class number of each character: the blank is 0, then the lines of the file, then the space."""
    lines = read_text(resolve(Path(path), "alphabet"), "name a file with one character a line").split("\n")
    characters = [line.strip("\r") for line in lines if line.strip("\r")]
    return {character: number for number, character in enumerate([*characters, " "], start=1)}
