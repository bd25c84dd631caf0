"""Pictures as a model's input: opened one by one, turned as they were taken, fitted to a size, normalised.

A picture that would take too much memory is refused before it is unpacked.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image, ImageOps
from pydantic import Field, model_validator

from act.errors import InputError
from act.samples.dataset import Array, FeedSpec
from act.settings.data import Data

LARGEST_PIXELS = 100_000_000
# Those that Pillow reads by itself; others start programs, or hold more than a picture.
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".webp": "WEBP", ".ppm": "PPM"}
_CHANNELS = (1, 3)
# Of a 16-bit picture, in those of an 8-bit one.
_DEEP_MODES, _DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N"), 257

Fit = Literal["crop", "stretch", "letterbox"]
Size = Annotated[list[Annotated[int, Field(ge=1, le=8192)]], Field(min_length=2, max_length=2)]


class PictureSettings(Data):
    """How a picture becomes an input."""

    fit: Fit | None = None
    """how a picture comes to the model's height and width. `crop`: resized to the shorter side `resize`, cut from the
    middle; `stretch`: each side by itself; `letterbox`: as large as fits, filled up with `fill`. When left out: `crop`,
    or `stretch` where `resize` is null"""
    resize: int | None = Field(default=256, ge=1, le=8192)
    """length of the shorter side that `crop` cuts from"""
    size: Size | None = None
    """[height, width]; what the model's input asks for when left out"""
    fill: int = Field(default=114, ge=0, le=255, description="the grey that `letterbox` fills up with")
    corner: bool = Field(default=False, description="`letterbox`: the picture is not in the middle, but top left")
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    antialias: bool = True
    """take the mean of what is made smaller, as Pillow does; false: only the nearest pixels count, as in OpenCV and
    TensorFlow"""
    order: Literal["RGB", "BGR"] = "RGB"
    layout: Literal["auto", "NCHW", "NHWC"] = "auto"
    """order of the input's axes; found by where its 3 or 1 channels stand when left out"""
    scale: float = Field(default=1 / 255, gt=0)
    """an input is (pixel x scale - mean) / std, a pixel 0 to 255"""
    mean: list[float] = Field(default=[0.485, 0.456, 0.406], min_length=1, max_length=3, description="in this `order`")
    std: list[Annotated[float, Field(gt=0)]] = Field(default=[0.229, 0.224, 0.225], min_length=1, max_length=3)

    @model_validator(mode="after")
    def _sizes_fit(self) -> PictureSettings:
        crops = self.fit_of() == "crop"
        if crops and self.resize is None:
            raise ValueError("`fit: crop` needs `resize`, the length of the shorter side that is cut from")
        if crops and self.size is not None and self.resize is not None and max(self.size) > self.resize:
            larger = f"`size` is {self.size}, larger than `resize` {self.resize}"
            raise ValueError(f"{larger}: raise that, or set it to null to stretch")
        if {len(self.mean), len(self.std)} - {1, 3} or len(self.mean) != len(self.std):
            raise ValueError("`mean` and `std` must both have one value, or both three")
        if not self.antialias and self.interpolation not in ("nearest", "bilinear"):
            raise ValueError("`antialias: false` is there for the interpolations `nearest` and `bilinear`")
        return self

    def fit_of(self) -> Fit:
        """Return how pictures are fitted, where that is not said by its name."""
        return self.fit or ("stretch" if self.resize is None else "crop")


@dataclass(frozen=True)
class Frame:
    """Where a picture went: its pixel (x, y) is at (x * across + left, y * down + top) of the input.

    Attributes:
        size: (width, height) of the picture.
    """

    size: tuple[int, int]
    across: float
    down: float
    left: float
    top: float


@dataclass(frozen=True)
class Preparation:
    """Makes inputs of one shape out of pictures."""

    settings: PictureSettings
    channels: int
    last: bool  # whether the channels are the last axis
    height: int
    width: int

    @classmethod
    def of(cls, settings: PictureSettings, feed: FeedSpec) -> Preparation:
        """Return what a model's input asks for; `InputError` where that is no picture, or has no size."""
        where = f"the model's input `{feed.name}`"
        shape, kind = feed.shape, np.dtype(feed.dtype).kind
        places = {"NCHW": [1], "NHWC": [3], "auto": [1, 3]}[settings.layout]
        found = [place for place in places if len(shape) == 4 and shape[place] in _CHANNELS]
        if not found or kind not in "fu":
            told = f"{where} is {feed.dtype} {list(shape)}; use `arrays` or `function`"
            raise InputError(
                f"reader `{settings.reader}` feeds [N, 3 or 1, height, width] or channels last, but {told}"
            )
        last = found[0] == 3
        height, width = settings.size or (shape[1:3] if last else shape[2:])
        if -1 in (height, width):
            cure = f"set `data.size: [height, width]` for the reader `{settings.reader}`"
            raise InputError(f"{where} takes pictures of any size; {cure}")
        if settings.fit_of() == "crop" and settings.resize is not None and max(height, width) > settings.resize:
            shorter = f"a picture of which the shorter side is `data.resize` {settings.resize}"
            cure = "raise it, or set it to null to stretch the pictures"
            raise InputError(f"{height} x {width} pixels cannot be cut from {shorter}: {cure}")
        channels = shape[found[0]]
        if len(settings.mean) not in (1, channels):
            told = f"`data.mean` and `data.std` have {len(settings.mean)} values"
            raise InputError(f"{told}, but {where} has {channels} channel: give one value each")
        return cls(settings, channels, last, height, width)

    def opened(self, path: Path, where: str) -> Image.Image:
        """Open a picture as the model sees it, in colour or grey."""
        return open_picture(path, where, self.channels == 3)

    def fitted(self, image: Image.Image, resample: Image.Resampling | None = None) -> tuple[Image.Image, Frame]:
        """Bring a picture to the input's height and width; tell where it went.

        Args:
            resample: instead of the settings' interpolation, for what is no picture but a map of classes.
        """
        fit = self.settings.fit_of()
        if fit == "letterbox":
            return self._letterboxed(image, resample)
        box = (0.0, 0.0, float(image.width), float(image.height))
        if fit == "crop":
            assert self.settings.resize is not None
            factor = self.settings.resize / min(image.size)
            longer = [max(round(length * factor), self.settings.resize) for length in image.size]
            # Only what is kept is computed: a strip a pixel high and a million long would fill the memory.
            left, top = ((whole - part) // 2 for whole, part in zip(longer, (self.width, self.height)))
            across, down = image.width / longer[0], image.height / longer[1]
            right, bottom = (
                min((left + self.width) * across, image.width),
                min((top + self.height) * down, image.height),
            )
            box = (left * across, top * down, right, bottom)
        across, down = self.width / (box[2] - box[0]), self.height / (box[3] - box[1])
        frame = Frame(image.size, across, down, -box[0] * across, -box[1] * down)
        return self._resized(image, (self.width, self.height), box, resample), frame

    def _letterboxed(self, image: Image.Image, resample: Image.Resampling | None) -> tuple[Image.Image, Frame]:
        factor = min(self.width / image.width, self.height / image.height)
        width, height = (max(1, round(length * factor)) for length in image.size)
        left, top = (0, 0) if self.settings.corner else ((self.width - width) // 2, (self.height - height) // 2)
        fill = self.settings.fill if resample is None else 0
        grey: Any = (fill,) * 3 if image.mode == "RGB" else fill
        canvas = Image.new(image.mode, (self.width, self.height), grey)
        box = (0.0, 0.0, float(image.width), float(image.height))
        canvas.paste(self._resized(image, (width, height), box, resample), (left, top))
        return canvas, Frame(image.size, width / image.width, height / image.height, left, top)

    def _resized(
        self,
        image: Image.Image,
        size: tuple[int, int],
        box: tuple[float, float, float, float],
        resample: Image.Resampling | None,
    ) -> Image.Image:
        kind = resample if resample is not None else Image.Resampling[self.settings.interpolation.upper()]
        if self.settings.antialias or kind == Image.Resampling.NEAREST:
            return image.resize(size, kind, box=box)
        # Pillow's `transform` looks at the nearest pixels alone, `resize` at all that an output pixel covers.
        across, down = (box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1]
        pixels = np.pad(np.asarray(image), [(1, 1), (1, 1), *[(0, 0)] * (image.mode == "RGB")], mode="edge")
        affine = (across, 0.0, box[0] + 1, 0.0, down, box[1] + 1)
        return Image.fromarray(pixels).transform(size, Image.Transform.AFFINE, affine, resample=kind)

    def normalised(self, image: Image.Image, dtype: str = "float32") -> Array:
        """Return an input of the model, [channels, height, width], or with the channels last."""
        settings = self.settings
        pixels = np.asarray(image, dtype=np.float32).reshape(self.height, self.width, -1)
        if settings.order == "BGR":
            pixels = pixels[:, :, ::-1]
        mean, std = np.array(settings.mean, dtype=np.float32), np.array(settings.std, dtype=np.float32)
        values = (pixels * np.float32(settings.scale) - mean) / std
        return np.ascontiguousarray(values if self.last else values.transpose(2, 0, 1), dtype=dtype)


def open_picture(path: Path, where: str, colour: bool) -> Image.Image:
    """Open a picture, in RGB or grey of 8 bits, upright; `InputError` where it is none, or too large.

    Sixteen bits become eight, what is transparent is put on white, and it is turned as its EXIF data say, as OpenCV
    does.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{where}: not a kind of picture that is read here ({', '.join(FORMATS)}); convert it")
    return _opened(path, where, lambda image: _flat(image, colour))


def open_map(path: Path, where: str) -> Array:
    """Read a picture of class numbers, one channel or a palette, uint8 [height, width]."""
    image = _opened(path, where, lambda image: image.copy())
    if image.mode in ("1", "L", "P"):
        return np.asarray(image).astype(np.uint8)
    if image.mode in _DEEP_MODES and (values := np.asarray(image)).max(initial=0) < 256:
        return values.astype(np.uint8)
    bands = np.asarray(image)
    if bands.ndim == 3 and bands.dtype == np.uint8 and (bands[..., :3] == bands[..., :1]).all():
        return bands[..., 0]
    raise InputError(f"{where}: {image.mode} is no map of classes; save one grey value, the class, at each pixel")


def _opened(path: Path, where: str, take: Any) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # we refuse more than it warns of
            # Files are not always what their name says: ImageNet has a PNG called JPEG.
            with Image.open(path, formats=sorted(set(FORMATS.values()))) as image:
                if image.width * image.height > LARGEST_PIXELS:
                    raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
                found: Image.Image = take(image)
                return found
    except FileNotFoundError:
        raise InputError(f"{where}: no such file; correct the list or copy the picture there") from None
    except Image.DecompressionBombError as error:
        cure = f"at most {LARGEST_PIXELS} pixels are read: shrink it or leave it out"
        raise InputError(f"{where}: too large, {error}; {cure}") from None
    except Exception as error:  # Pillow and its codecs raise a dozen kinds on damaged files
        cause = " ".join(str(error).split())
        raise InputError(f"{where}: not a picture, or damaged: {cause}; mend it or leave it out") from None


def _flat(image: Image.Image, colour: bool) -> Image.Image:
    """Return a picture of 8 bits without transparency, upright."""
    # The tag stands in the file, and not in what is made of it.
    turned: Image.Image = ImageOps.exif_transpose(image)  # type: ignore[assignment]
    if turned.mode in _DEEP_MODES:
        turned = Image.fromarray(np.rint(np.asarray(turned).clip(0, 65535) / _DEEP).astype(np.uint8))
    if "A" in turned.getbands() or "transparency" in turned.info:
        seen = turned.convert("RGBA")
        white = Image.new("RGBA", seen.size, "white")
        turned = Image.alpha_composite(white, seen)
    return turned.convert("RGB" if colour else "L")
