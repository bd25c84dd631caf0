"""`schemes/ID.json`: which layers are quantized, and over which ranges."""

from __future__ import annotations

from pydantic import JsonValue

from act.results.artifact import Artifact, Part


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
