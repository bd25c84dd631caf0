"""Lines of text drawn with real fonts and degraded like photographs, as PP-OCR's models want them.

Each line has a random stream of its own, made from the seed, its role and its number, so that it does not depend on
how many others are drawn. A text belongs to the calibration or to the evaluation samples by its checksum, so the two
never share one. Preprocessing follows PP-OCR: height fixed, ratio kept, (pixel / 255 - 0.5) / 0.5, blue first, zeros
to the right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from tqdm import tqdm

from act.errors import InputError
from act.params import TextLines
from act.quality import PADDING
from act.samples import Array, Ragged, Samples
from tasks.prepare.source import resolve

Role = Literal["calibration", "evaluation"]
Picture = npt.NDArray[np.float32]

_ROLES: tuple[Role, ...] = ("calibration", "evaluation")
_FONT_FOLDER = "matplotlib/mpl-data/fonts/ttf"
_FONT_NAMES = ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif", "STIXGeneral")
_CASES = (str.lower, str.capitalize, str.upper)
_CALIBRATION_SHARE = 5  # one text in five
_MOST_WORDS = 3
_MOST_TRIES = 1000


def read(settings: TextLines, feed: str, class_count: int) -> tuple[Samples, Samples]:
    """Draw the calibration samples (no labels) and the evaluation samples (labels) for the input named `feed`.

    Args:
        class_count: how many classes the model tells apart; -1 when it does not say.

    Feeds are float32 [3, height, width] in [-1, 1]. Labels of `recognition` are int64 class numbers filled up with
    `PADDING`; labels of `direction` are int64 [1]: 1 when the line is upside down.

    Raises:
        InputError: the list of words or the alphabet is missing or unusable, or belongs to another model.
    """
    words = _read_words(Path(settings.path))
    classes = _read_alphabet(settings) if settings.task == "recognition" else {}
    if classes:
        if class_count not in (-1, len(classes) + 1):
            raise InputError(
                f"{settings.alphabet}: {len(classes)} characters with the space and one blank make {len(classes) + 1} "
                f"classes, but the model has {class_count}; name the alphabet that the model was trained with"
            )
        words = [word for word in words if all(case(c) in classes for c in word for case in _CASES)]
        if not words:
            raise InputError(f"{settings.path}: no word of it can be written with the alphabet {settings.alphabet}")
    painter = _Painter(settings, words)
    calibration = _draw(painter, settings, "calibration", settings.calibration)
    evaluation = _draw(painter, settings, "evaluation", settings.evaluation)
    return (
        Samples({feed: Ragged.of([picture for picture, _, _ in calibration])}),
        Samples(
            {feed: Ragged.of([picture for picture, _, _ in evaluation])},
            Ragged.of(_labels(settings, classes, [(text, turned) for _, text, turned in evaluation])),
        ),
    )


def _draw(painter: _Painter, settings: TextLines, role: Role, count: int) -> list[tuple[Picture, str, bool]]:
    lines = []
    for number in tqdm(range(count), desc=f"drawing {role}", unit="line", leave=False, delay=2):
        turned = settings.task == "direction" and number % 2 == 1
        picture, text = painter.line(role, number, turned)
        lines.append((picture, text, turned))
    return lines


def _labels(settings: TextLines, classes: dict[str, int], lines: Sequence[tuple[str, bool]]) -> list[Array]:
    if settings.task == "direction":
        return [np.array([turned], dtype=np.int64) for _, turned in lines]
    longest = max(len(text) for text, _ in lines)
    return [
        np.array([classes[c] for c in text] + [PADDING] * (longest - len(text)), dtype=np.int64) for text, _ in lines
    ]


class _Painter:
    """Draws lines.

    Args:
        settings: size and seed.
        words: what the lines are made of.
    """

    def __init__(self, settings: TextLines, words: Sequence[str]) -> None:
        self._settings = settings
        self._words = words
        self._fonts = _find_fonts()

    def line(self, role: Role, number: int, turned: bool) -> tuple[Picture, str]:
        """One picture, float32 [3, height, width], and its text; `turned`: by 180 degrees."""
        rng = np.random.default_rng([self._settings.seed, _ROLES.index(role), number])
        height, width = self._settings.height, self._settings.width
        for _ in range(_MOST_TRIES):
            text, font = self._text(rng), self._font(rng)
            if _role_of(text) != role:
                continue
            image = _degrade(_write(text, font, rng), rng)
            fitted = int(np.ceil(image.width * height / image.height))
            if fitted <= width:
                break
        else:
            raise InputError(
                f"{self._settings.path}: its words do not fit into {width} x {height} pixels; raise `width` or lower "
                "`height`, or use shorter and more words"
            )
        if turned:
            image = image.transpose(Image.Transpose.ROTATE_180)
        pixels = np.asarray(image.resize((fitted, height), Image.Resampling.BILINEAR), dtype=np.float32)
        picture = np.zeros((3, height, width), dtype=np.float32)
        picture[:, :, :fitted] = (pixels[:, :, ::-1].transpose(2, 0, 1) / 255 - 0.5) / 0.5
        return picture, text

    def _text(self, rng: np.random.Generator) -> str:
        case = _CASES[rng.integers(len(_CASES))]
        count = int(rng.integers(1, _MOST_WORDS + 1))
        return " ".join(case(self._words[rng.integers(len(self._words))]) for _ in range(count))

    def _font(self, rng: np.random.Generator) -> ImageFont.FreeTypeFont:
        return ImageFont.truetype(str(self._fonts[rng.integers(len(self._fonts))]), size=int(rng.integers(20, 33)))


def _write(text: str, font: ImageFont.FreeTypeFont, rng: np.random.Generator) -> Image.Image:
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text))
    paper = rng.integers(140, 256, size=3)
    ink = rng.integers(0, 110, size=3)
    if rng.random() < 0.3:
        paper, ink = ink, paper
    size = (right - left + 6, bottom - top + 8)
    image = Image.new("RGB", size, tuple(int(value) for value in paper))
    ImageDraw.Draw(image).text((3 - left, 4 - top), text, font=font, fill=tuple(int(value) for value in ink))
    return image.rotate(
        float(rng.uniform(-2.5, 2.5)),
        resample=Image.Resampling.BICUBIC,
        fillcolor=tuple(int(value) for value in paper),
    )


def _degrade(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    blurred = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.7))))
    noisy = np.asarray(blurred, dtype=np.float32) + rng.normal(0, rng.uniform(5, 30), (image.height, image.width, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def _role_of(text: str) -> Role:
    checksum = hashlib.sha256(text.encode()).digest()[0]
    return "calibration" if checksum % _CALIBRATION_SHARE == 0 else "evaluation"


def _find_fonts() -> list[Path]:
    folder = Path(str(distribution("matplotlib").locate_file(_FONT_FOLDER)))
    return sorted(path for path in folder.glob("*.ttf") if path.stem.split("-")[0] in _FONT_NAMES)


def _read_words(path: Path) -> list[str]:
    words = list(dict.fromkeys(_read_text(path).split()))
    if not words:
        raise InputError(f"{path}: holds no words; put one word on each line")
    return words


def _read_alphabet(settings: TextLines) -> dict[str, int]:
    """Class number of each character: the blank is 0, then the lines of the file, then the space."""
    assert settings.alphabet is not None
    characters = _read_text(resolve(Path(settings.alphabet), "alphabet")).split("\n")
    characters = [character.strip("\r") for character in characters if character.strip("\r")]
    return {character: number for number, character in enumerate([*characters, " "], start=1)}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {error}") from None
