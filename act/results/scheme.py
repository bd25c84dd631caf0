"""`schemes/ID.json`: which layers are quantized, and over which ranges."""

from __future__ import annotations

from pydantic import JsonValue

from act.results.artifact import Artifact, Part


class PackedIntegers(Part):
    """An int8 array in C order."""

    shape: list[int]
    base64: str


class SchemeFile(Artifact):
    """A quantization scheme in plain numbers, exact for float32.

    Attributes:
        layers: by name.
        activations, further, extremes: by tensor its least and its largest value.
        weights: by weight its thresholds.
        biases: corrected ones.
        integers: weights whose integers were chosen.
    """

    layers: list[str]
    activations: dict[str, tuple[float, float]]
    weights: dict[str, JsonValue]
    biases: dict[str, JsonValue]
    integers: dict[str, PackedIntegers]
    further: dict[str, tuple[float, float]]
    extremes: dict[str, tuple[float, float]]
