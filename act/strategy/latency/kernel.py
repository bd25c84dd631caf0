"""A kernel as an engine runs it: what was fused into it, the shapes and the precisions of its inputs and outputs.

Engines tell all of this of a loaded model (`Engine.profile`), so that fusing is never guessed: OpenVINO in its executed
graph, ONNX Runtime in its optimised graph and its profiler's events.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

Shape = tuple[int, ...]

BYTES = {"f64": 8, "i64": 8, "f32": 4, "i32": 4, "f16": 2, "bf16": 2, "i8": 1, "u8": 1, "bool": 1, "boolean": 1}
INTEGERS = ("i8", "u8")
_TRANSPOSED = ("Deconvolution", "ConvTranspose", "QLinearConvTranspose")
_PRODUCTS = (
    *("FullyConnected", "MatMul", "FusedMatMul", "Gemm", "FusedGemm"),
    *("QLinearMatMul", "QGemm", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"),
)
_CONVOLUTIONS = (*_TRANSPOSED, "Convolution", "GroupConvolution", "Conv", "FusedConv", "QLinearConv", "ConvInteger")


@dataclass(frozen=True)
class Tensor:
    """An input or output of a kernel: the shape and the engine's name of the precision."""

    shape: Shape
    precision: str

    @cached_property
    def values(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.values * BYTES.get(self.precision, 4)


@dataclass(frozen=True)
class Kernel:
    """One kernel."""

    kind: str  # the engine's name of it
    output: Tensor
    inputs: tuple[Tensor, ...] = ()  # activations
    weights: tuple[Shape, ...] = ()  # of its constants
    operators: tuple[str, ...] = ()  # the ONNX types that it was made of, in order
    group: int | None = None  # of a convolution; None where the engine does not tell
    strides: Shape = ()  # along each spatial axis, as `window`; empty where the engine does not tell
    window: Shape = ()
    channels_last: bool = False
    blocked: bool = False  # whether it computes on blocks of channels, as an operator of its own beside a plain one

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Kernel:
        """Return the kernel of what `Engine.profile` tells, or of what `to_json` gave."""
        attributes = told["attributes"]
        group = attributes.get("group")
        return cls(
            str(told["kind"]),
            Tensor(_shape(told["shape"]), str(told.get("makes", told["precision"]))),
            tuple(Tensor(_shape(each["shape"]), str(each["precision"])) for each in told["inputs"]),
            tuple(_shape(shape) for shape in told["weights"]),
            tuple(str(name) for name in told["operators"]),
            None if group is None else int(group),
            _shape(attributes.get("strides", ())),
            _shape(attributes.get("kernel_shape", ())),
            bool(attributes.get("channels_last", False)),
            bool(attributes.get("blocked", False)),
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, as `of` reads them."""
        attributes: dict[str, Any] = {"group": self.group, "strides": list(self.strides)}
        attributes |= {"kernel_shape": list(self.window), "channels_last": int(self.channels_last)}
        attributes["blocked"] = int(self.blocked)
        return {
            "kind": self.kind,
            "precision": self.output.precision,
            "shape": list(self.output.shape),
            "inputs": [{"shape": list(each.shape), "precision": each.precision} for each in self.inputs],
            "weights": [list(shape) for shape in self.weights],
            "operators": list(self.operators),
            "attributes": {name: value for name, value in attributes.items() if value},
        }

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.kind, self.output, self.inputs, self.weights, self.operators, self.group, self.window))

    @cached_property
    def multiplies(self) -> bool:
        return self.kind in _CONVOLUTIONS or self.kind in _PRODUCTS or "MatMul" in self.operators

    @property
    def convolves(self) -> bool:
        return self.kind in _CONVOLUTIONS

    @cached_property
    def computes_in(self) -> str:
        """Return `int8` where its first input is of 8-bit integers, else the precision of that input."""
        first = self.inputs[0].precision if self.inputs else self.output.precision
        return "int8" if first in INTEGERS else first

    @cached_property
    def groups(self) -> int:
        """Return the groups of a convolution; 1 for others."""
        if self.group is not None:
            return self.group
        # OpenVINO's weights have an axis of groups where there are several.
        spatial = max(0, len(self.output.shape) - 2)
        deep = self.weights and len(self.weights[0]) == spatial + 3
        return self.weights[0][0] if self.convolves and deep else 1

    @cached_property
    def channels(self) -> tuple[int, int]:
        """Return those of its first input and of its output; the last axis where there is no other."""
        axis = -1 if self.channels_last or len(self.output.shape) < 3 or not self._has_image else 1
        first = self.inputs[0].shape if self.inputs else self.output.shape
        return (_at(first, axis), _at(self.output.shape, axis))

    @cached_property
    def image(self) -> tuple[int, int]:
        """Return height and width of its output, 1 where there is none; of a product its rows and 1."""
        if not self._has_image:
            return math.prod(self.output.shape[:-1]), 1
        shape = self.output.shape[1:-1] if self.channels_last else self.output.shape[2:]
        return (shape[0], math.prod(shape[1:])) if shape else (1, 1)

    @cached_property
    def taps(self) -> int:
        """Return the values of a window."""
        if self.window:
            return math.prod(self.window)
        spatial = max(0, len(self.output.shape) - 2)
        return math.prod(self.weights[0][-spatial:]) if self.convolves and self.weights and spatial else 1

    @cached_property
    def met(self) -> tuple[float, float]:
        """Return the share of a convolution's taps that meets the image on average, and the share that ever does:
        engines skip taps that only meet padding, weights and all."""
        axes = slice(1, -1) if self.channels_last else slice(2, None)
        window = self.window or (self.weights[0][-(len(self.output.shape) - 2) :] if self.weights else ())
        if not self.convolves or self.kind in _TRANSPOSED or not self.inputs or not self._has_image:
            return 1.0, 1.0
        average = ever = 1.0
        for read, made, taps in zip(self.inputs[0].shape[axes], self.output.shape[axes], window):
            met = _met(read, made, taps)
            average, ever = average * met[0] / taps, ever * met[1] / taps
        return average, ever

    @cached_property
    def macs(self) -> int:
        """Return the multiply-accumulates of a convolution or a product; 0 for others."""
        before, after = self.channels
        if self.kind in _TRANSPOSED:
            return self.inputs[0].values * after // self.groups * self.taps if self.inputs else 0
        if self.convolves:
            return self.output.values * (before // self.groups) * self.taps
        if self.kind in _PRODUCTS:
            return self.output.values * before
        # Fused attention: two products, each as long as what is read has rows.
        if "MatMul" in self.operators and self.inputs:
            longest = max(self.inputs, key=lambda each: each.values)
            return self.operators.count("MatMul") * longest.values * _at(longest.shape, -2)
        return 0

    @cached_property
    def read_bytes(self) -> int:
        return sum(each.bytes for each in self.inputs)

    @cached_property
    def weight_bytes(self) -> int:
        """Return the bytes of constants, in the precision that it computes in."""
        width = 1 if self.computes_in == "int8" else BYTES.get(self.computes_in, 4)
        return width * sum(math.prod(shape) for shape in self.weights)

    @property
    def _has_image(self) -> bool:
        return len(self.output.shape) >= 3 and self.kind not in _PRODUCTS


def _shape(values: Any) -> Shape:
    return tuple(int(value) for value in values)


@lru_cache(maxsize=1 << 14)
def _met(read: int, made: int, taps: int) -> tuple[float, int]:
    """Count along one axis, from pixels that are read and made, how many taps meet the image on average, and ever."""
    if min(read, made) < 1:  # not told
        return taps, taps
    stride = max(1, round(read / made))
    padding = max(0, (made - 1) * stride + taps - read) // 2
    counts = []
    for tap in range(taps):
        first, last = -((tap - padding) // stride), (read - 1 + padding - tap) // stride
        counts.append(max(0, min(made - 1, last) - max(0, first) + 1))
    return sum(counts) / made, max(1, sum(count > 0 for count in counts))


def _at(shape: Shape, axis: int) -> int:
    return shape[axis] if -len(shape) <= axis < len(shape) else 1
