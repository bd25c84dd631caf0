"""Quantization schemes: which layers of a model run in int8, over which ranges and with which values.

An activation is quantized over one clipping range, a weight symmetrically with one threshold a channel. Biases that
follow a layer may be replaced, which is how the mean error of a quantized weight is corrected; and a weight may be
rounded otherwise than to the nearest integers, which is how a layer's output is kept closer than its weight.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from act.errors import InputError
from act.program.layers import OPERATORS, Layer, bias_of, quantizable_layers
from act.program.model import InferenceModel
from act.quantization.ranges import Range
from act.quantization.weights import dequantize_weight, weight_thresholds
from act.results.quantization import PackedIntegers, SchemeFile

_MULTIPLYING = (*OPERATORS, "depthwise_conv2d_transpose", "conv3d", "conv3d_transpose", "matmul", "bmm")


@dataclass(frozen=True)
class Scheme:
    """Which layers are quantized, and how."""

    layers: tuple[str, ...]  # their names, in program order
    activations: Mapping[str, Range]
    weights: Mapping[str, npt.NDArray[np.float32]]  # clipping thresholds, > 0, float32 [channels]
    biases: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)  # new values, in their own shapes
    # The int8 values of those weights that are not simply rounded to the nearest, in the weights' shapes.
    integers: Mapping[str, npt.NDArray[np.int8]] = field(default_factory=dict)
    # Of tensors that no layer reads, by their names in the ONNX model; some engines run what stands between layers in
    # int8, too (`act/engines/onnx_int8.py`). And what was seen of them, for engines that have a zero point anyhow.
    further: Mapping[str, Range] = field(default_factory=dict)
    extremes: Mapping[str, Range] = field(default_factory=dict)

    @property
    def symmetric(self) -> bool:
        """Tell whether no activation needs a zero point."""
        return all(span.symmetric for span in self.activations.values())

    def to_file(self) -> SchemeFile:
        """Return it as it is written: plain numbers, exact for float32; integers in base64, in C order."""
        integers = {
            name: PackedIntegers(shape=list(values.shape), base64=base64.b64encode(values.tobytes()).decode("ascii"))
            for name, values in self.integers.items()
        }
        return SchemeFile(
            layers=list(self.layers),
            activations={name: astuple(span) for name, span in self.activations.items()},
            weights={name: values.tolist() for name, values in self.weights.items()},
            biases={name: values.tolist() for name, values in self.biases.items()},
            integers=integers,
            further={name: astuple(span) for name, span in self.further.items()},
            extremes={name: astuple(span) for name, span in self.extremes.items()},
        )

    def write(self, path: Path) -> None:
        self.to_file().write(path)

    @classmethod
    def read(cls, path: Path) -> Scheme:
        """Read what `write` wrote; `InputError` where it does not fit, or the integers of a weight are damaged."""
        file = SchemeFile.read(path)
        weights, biases = (
            {name: np.array(values, dtype=np.float32) for name, values in given.items()}
            for given in (file.weights, file.biases)
        )
        activations, further, extremes = (
            {name: Range(*ends) for name, ends in spans.items()}
            for spans in (file.activations, file.further, file.extremes)
        )
        integers = {name: _integers(path, name, packed) for name, packed in file.integers.items()}
        return cls(tuple(file.layers), activations, weights, biases, integers, further, extremes)


def _integers(path: Path, name: str, packed: PackedIntegers) -> npt.NDArray[np.int8]:
    try:
        values = np.frombuffer(base64.b64decode(packed.base64, validate=True), dtype=np.int8)
        return values.reshape(packed.shape).copy()
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{path}: the integers of the weight {name} are damaged: {error}") from None


def make_scheme(model: InferenceModel, layers: Collection[Layer], ranges: Mapping[str, Range]) -> Scheme:
    """Return the scheme that quantizes these layers over these activation ranges and with absolute-maximum weights."""
    return Scheme(
        tuple(layer.name for layer in layers),
        {layer.activation: ranges[layer.activation] for layer in layers},
        {layer.weight: weight_thresholds(model.weight(layer.weight), layer.axis) for layer in layers},
    )


def quantized_layers(model: InferenceModel, scheme: Scheme) -> list[Layer]:
    """Return the layers of the fp32 model that a scheme quantizes, in program order."""
    return [layer for layer in quantizable_layers(model) if layer.name in scheme.layers]


def without_others(model: InferenceModel, scheme: Scheme, op_types: Collection[str]) -> Scheme:
    """Return the scheme without the layers of other types, for an engine that would have to run those in float."""
    return only(model, scheme, {layer.name for layer in quantizable_layers(model, op_types)})


def only(model: InferenceModel, scheme: Scheme, names: Collection[str]) -> Scheme:
    """Return the scheme without the layers of other names."""
    layers = quantized_layers(model, scheme)
    staying = [layer for layer in layers if layer.name in names]
    if len(staying) == len(layers):
        return scheme
    activations, weights = {layer.activation for layer in staying}, {layer.weight for layer in staying}
    dropped = {bias_of(model, layer) for layer in layers if layer not in staying}
    return replace(
        scheme,
        layers=tuple(layer.name for layer in staying),
        activations={name: span for name, span in scheme.activations.items() if name in activations},
        weights={name: values for name, values in scheme.weights.items() if name in weights},
        biases={name: values for name, values in scheme.biases.items() if name not in dropped},
        integers={name: values for name, values in scheme.integers.items() if name in weights},
    )


def with_values(model: InferenceModel, scheme: Scheme) -> InferenceModel:
    """Return a copy of the model with the scheme's biases, and with weights that round to the scheme's integers.

    `InputError` names a bias or a weight that the model does not have in that shape.
    """
    result = model.copy()
    layers = {layer.weight: layer for layer in quantizable_layers(model)} if scheme.integers else {}
    shapes = {name: values.shape for given in (scheme.biases, scheme.integers) for name, values in given.items()}
    for name, shape in shapes.items():
        if not result.is_weight(name) or result.shape(name) != shape:
            raise InputError(f"the quantization scheme has values of another model: {name}")
    for name, values in scheme.biases.items():
        result.set_weight(name, values)
    for name, integers in scheme.integers.items():
        result.set_weight(name, dequantize_weight(integers, scheme.weights[name], layers[name].axis))
    return result


BY_SEARCH = "kept in float by the search, which found that better than int8"
AS_GIVEN = "in float in the given model, whose quantization was taken over"


def left_in_float(
    model: InferenceModel, scheme: Scheme, why_able: str = BY_SEARCH, wrong: Mapping[str, str] | None = None
) -> list[dict[str, str]]:
    """Return the operators that multiply in float, in program order: `name`, `type` and `why`.

    Args:
        why_able: why layers that could be quantized are not.
        wrong: the same of single layers, by name.
    """
    able = {layer.name for layer in quantizable_layers(model)}
    found = []
    for op in [op for op in model.ops if op.type in _MULTIPLYING and op.output_arg_names]:
        name = str(op.output_arg_names[0])
        weights = [each for each in op.input_arg_names if model.is_weight(each)]
        if name in scheme.layers:
            continue
        if name in able:
            why = (wrong or {}).get(name, why_able)
        elif not weights:
            why = "multiplies two activations, which have no weight to be stored in int8"
        elif op.type not in OPERATORS:
            why = f"{op.type} has no int8 form here"
        elif not all(map(model.owns_weight, weights)):
            why = "shares its weight with another operator"
        else:
            why = "its weight or its activation is turned, grouped or shaped in a way that has no int8 form here"
        found.append({"name": name, "type": str(op.type), "why": why})
    return found
