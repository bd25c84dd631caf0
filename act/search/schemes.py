"""The quantization scheme of a trial's settings, and what it is expected to cost on the target.

Ranges and weight thresholds are computed once, so that a further trial costs milliseconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from act.program.layers import Layer
from act.program.model import InferenceModel
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


@dataclass(eq=False)
class SchemeMaker:
    """Makes schemes of one model."""

    model: InferenceModel
    layers: Sequence[Layer]  # those that may be quantized, in program order
    statistics: Mapping[int, Mapping[str, TensorStatistics]]  # by number of batches, of every activation that is read
    macs: Mapping[str, int]  # by layer
    order: Sequence[str] = ()  # in which layers are left in floating point, most sensitive first
    _ranges: dict[tuple[object, ...], dict[str, Range]] = field(default_factory=dict)
    _weights: dict[tuple[str, str], npt.NDArray[np.float32]] = field(default_factory=dict)

    def ranges(self, setting: TrialSettings) -> dict[str, Range]:
        """Return the range of every activation under the rule of a setting."""
        key = (setting.ptq_algo, setting.hist_percent, setting.batch_num, setting.activation_symmetric)
        if key not in self._ranges:
            clip = clip_by(setting.ptq_algo, setting.hist_percent)
            statistics = self.statistics[setting.batch_num]
            self._ranges[key] = {name: clip(each, setting.activation_symmetric) for name, each in statistics.items()}
        return self._ranges[key]

    def chosen(self, setting: TrialSettings) -> list[Layer]:
        """Return the layers that a setting quantizes: those of its types but for the most sensitive ones among them."""
        able = {layer.name: layer for layer in self.layers if layer.op_type in setting.quantizable_op_type}
        left = [name for name in self.order if name in able][: setting.float_layers]
        return [layer for name, layer in able.items() if name not in left]

    def make(self, setting: TrialSettings, layers: Sequence[Layer] | None = None) -> Scheme:
        """Return the scheme that quantizes the layers of a setting, or others, as the setting says."""
        layers = self.chosen(setting) if layers is None else layers
        ranges, statistics = self.ranges(setting), self.statistics[setting.batch_num]
        weights = {layer.weight: self._thresholds(layer, setting.weight_quantize_type) for layer in layers}
        biases = {}
        if setting.bias_correct:
            means = {layer.activation: statistics[layer.activation].channel_means for layer in layers}
            biases = corrected_biases(self.model, layers, weights, means)
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
        total = sum(self.macs.values())
        if total == 0:
            return 1.0
        ranges = self.ranges(setting)
        saved = sum(
            self.macs.get(layer.name, 0)
            * (1 - INT8_COST[layer.op_type] - (ZERO_POINT_COST if ranges[layer.activation].zero_point else 0))
            for layer in self.chosen(setting)
        )
        return 1 - saved / total

    def _thresholds(self, layer: Layer, kind: str) -> npt.NDArray[np.float32]:
        key = (layer.weight, kind)
        if key not in self._weights:
            self._weights[key] = weight_thresholds(self.model.weight(layer.weight), layer.axis, kind)
        return self._weights[key]
