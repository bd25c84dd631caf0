"""The quantization scheme of a trial's settings, and what it is expected to cost on the target.

Ranges and weight thresholds are computed once, so that a further trial costs milliseconds; with another strength of
smoothing it costs the conversion of another model.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import onnx

from act.onnx_graph.conversion import to_onnx
from act.program.layers import Layer, last_layers, quantizable_layers
from act.program.model import InferenceModel
from act.program.passes.smoothing import smooth
from act.quantization.ranges import Range
from act.quantization.scheme import Scheme
from act.quantization.statistics import TensorStatistics
from act.quantization.thresholds import clip_by
from act.quantization.weights import corrected_biases, weight_thresholds
from act.results.ptq_search import TrialSettings

# What a MAC costs next to fp32: int8 multiplies four at a time, but depthwise convolutions wait for memory,
# and a zero point is paid for on top. Coarse (it ranks OpenVINO's latencies of the demo model), but the same every
# time; the benchmark measures whatever this lets through.
INT8_COST = {"conv2d": 0.25, "depthwise_conv2d": 0.9, "conv2d_transpose": 0.25, "matmul_v2": 0.25, "mul": 0.25}
ZERO_POINT_COST = 0.02
MOST_HELD_PARAMETERS = 100_000_000
"""Of smoothed models together that are held; twice four bytes each, as a program and as ONNX."""
LARGEST_SHARE_OF_LAST = 0.1
"""Of all layers' weights, up to which the last layers may stay in float for the sake of the outputs alone."""


@dataclass(eq=False)
class Smoothed:
    """The model as schemes with one strength of smoothing quantize it, and its weights' thresholds by kind."""

    model: InferenceModel
    thresholds: dict[tuple[str, str], npt.NDArray[np.float32]] = field(default_factory=dict)

    @cached_property
    def fp32_onnx(self) -> onnx.ModelProto:
        """Return the model as ONNX."""
        return to_onnx(self.model)


@dataclass(eq=False)
class SchemeMaker:
    """Makes schemes of one model."""

    model: InferenceModel
    layers: Sequence[Layer]  # those that may be quantized, in program order
    statistics: Mapping[int, Mapping[str, TensorStatistics]]  # by number of batches, of every activation that is read
    macs: Mapping[str, int]  # by layer
    order: Sequence[str] = ()  # in which layers are left in floating point, most sensitive first
    # Of each channel of what can be smoothed, the largest absolute value: float32 [channels], by activation.
    largest: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    _ranges: dict[tuple[object, ...], dict[str, Range]] = field(default_factory=dict)
    _smoothed: dict[float | None, Smoothed] = field(default_factory=dict)

    def ranges(self, setting: TrialSettings) -> dict[str, Range]:
        """Return the range of every activation under the rule of a setting."""
        key = (setting.ptq_algo, setting.hist_percent, setting.batch_num, setting.activation_symmetric)
        if key not in self._ranges:
            clip = clip_by(setting.ptq_algo, setting.hist_percent)
            statistics = self.statistics[setting.batch_num]
            self._ranges[key] = {name: clip(each, setting.activation_symmetric) for name, each in statistics.items()}
        return self._ranges[key]

    def chosen(self, setting: TrialSettings) -> list[Layer]:
        """Return the layers that a setting quantizes: those of its types but for the last and the most sensitive ones
        among them.

        What the last layers round goes straight into the outputs, of which a task may need more than their similarity
        shows: boxes a hundredth of their spread off overlap too little. So they go with the first that is left in
        float, where they are a small part of the model; the last layer of many classes takes its place by sensitivity.
        One layer always stays.
        """
        able = {layer.name: layer for layer in self.layers if layer.op_type in setting.quantizable_op_type}
        if setting.float_layers == 0:
            return list(able.values())
        ends = [name for name in able if name in self._last]
        others = [name for name in self.order if name in able and name not in ends]
        left = [*ends, *others[: setting.float_layers]][: len(able) - 1]
        return [layer for name, layer in able.items() if name not in left]

    @cached_property
    def _last(self) -> set[str]:
        """Return the last layers; none where they hold much of the model's weights."""
        last = {layer.name for layer in last_layers(self.model, self.layers)}
        sizes = {layer.name: math.prod(self.model.shape(layer.weight)) for layer in self.layers}
        share = sum(sizes[name] for name in last) / sum(sizes.values())
        return last if share <= LARGEST_SHARE_OF_LAST else set()

    def smoothed(self, strength: float | None) -> Smoothed:
        """Return the model for schemes with a strength of smoothing, which is of use until another strength is asked
        for: of large models not every one is held."""
        if strength not in self._smoothed:
            model, held = self.model, [each for each in self._smoothed if each is not None]
            if (len(held) + 1) * model.count_parameters() > MOST_HELD_PARAMETERS:
                for other in held:
                    self._smoothed.pop(other).model.discard()
            if strength is not None:
                model = smooth(model, quantizable_layers(model), self.largest, strength)
            self._smoothed[strength] = Smoothed(model)
        return self._smoothed[strength]

    def make(self, setting: TrialSettings, layers: Sequence[Layer] | None = None) -> Scheme:
        """Return the scheme that quantizes the layers of a setting, or others, as the setting says; it is one of
        `smoothed`'s model."""
        names = {layer.name for layer in (self.chosen(setting) if layers is None else layers)}
        smoothed = self.smoothed(setting.smooth_strength)
        layers = [layer for layer in quantizable_layers(smoothed.model) if layer.name in names]
        ranges, statistics = self.ranges(setting), self.statistics[setting.batch_num]
        weights = {layer.weight: _thresholds(smoothed, layer, setting.weight_quantize_type) for layer in layers}
        biases = {}
        if setting.bias_correct:
            means = {layer.activation: statistics[layer.activation].channel_means for layer in layers}
            biases = corrected_biases(smoothed.model, layers, weights, means)
        return Scheme(
            tuple(layer.name for layer in layers),
            {layer.activation: ranges[layer.activation] for layer in layers},
            weights,
            biases,
            further=ranges,
            extremes={name: each.extremes for name, each in statistics.items()},
        )

    def cost(self, setting: TrialSettings) -> float:
        """Return what the model's MACs cost under a setting, as a share of their cost in fp32."""
        return self._cost(self.chosen(setting), self.ranges(setting))

    def cost_of(self, scheme: Scheme) -> float:
        """Return the same of a scheme, of whatever origin."""
        return self._cost([layer for layer in self.layers if layer.name in scheme.layers], scheme.activations)

    def _cost(self, layers: Sequence[Layer], ranges: Mapping[str, Range]) -> float:
        total = sum(self.macs.values())
        if total == 0:
            return 1.0
        saved = sum(
            self.macs.get(layer.name, 0)
            * (1 - INT8_COST[layer.op_type] - (ZERO_POINT_COST if ranges[layer.activation].zero_point else 0))
            for layer in layers
        )
        return 1 - saved / total


def _thresholds(smoothed: Smoothed, layer: Layer, kind: str) -> npt.NDArray[np.float32]:
    key = (layer.weight, kind)
    if key not in smoothed.thresholds:
        smoothed.thresholds[key] = weight_thresholds(smoothed.model.weight(layer.weight), layer.axis, kind)
    return smoothed.thresholds[key]
