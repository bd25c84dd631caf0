"""`calibrate.json`, `ranges.json`, `schemes/ID.json` and `given_quantization.json`: what activations hold, and which
layers are quantized."""

from pydantic import Field, JsonValue

from act.results.artifact import Artifact, Part

GIVEN_QUANTIZATION = "given_quantization.json"
"""In the folder of `prepare`, where the user's model was quantized already."""


class Calibration(Artifact):
    """What the statistics of the activations are of."""

    batch_num: list[int] = Field(default_factory=list)  # numbers of batches that the search may choose from
    activations: list[str] = Field(default_factory=list)  # that layers read
    equalised: list[str] = Field(default_factory=list)  # those whose channels were equalised
    smooth_strength: list[float] = Field(default_factory=list)  # strengths that the search may choose from
    # Of each channel of the activations that can be smoothed, the largest absolute value.
    largest: dict[str, list[float]] = Field(default_factory=dict)


class Ranges(Artifact):
    """The least and the largest value of every tensor, by threshold rule, without symmetry."""

    rules: dict[str, dict[str, tuple[float, float]]]


class PackedIntegers(Part):
    """An int8 array in C order."""

    shape: list[int]
    base64: str


class SchemeFile(Artifact):
    """A quantization scheme in plain numbers, exact for float32."""

    layers: list[str]  # by name
    activations: dict[str, tuple[float, float]]  # by tensor its least and its largest value
    weights: dict[str, JsonValue]  # by weight its thresholds
    biases: dict[str, JsonValue]  # corrected ones
    integers: dict[str, PackedIntegers]  # weights whose integers were chosen
    further: dict[str, tuple[float, float]]
    extremes: dict[str, tuple[float, float]]


class GivenQuantization(Artifact):
    """What the user's own model rounds, which was quantized already.

    Its weights need no word: they are floats that lie on the grid of their integers.
    """

    activations: dict[str, tuple[float, float] | None]
    """by tensor its least and its largest value; None where they are no two numbers that are known before it runs"""
