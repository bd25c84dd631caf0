"""Quantizers whose ranges train along with the weights: LSQ and PACT, of plain operators, so that gradients are exact.

- `lsq`: the scales of activations and weights get the gradient of rounding and clipping (Esser et al., "Learned step
  size quantization", 2020, equations 1 to 5), scaled by 1 / sqrt(values x levels).
- `pact`: the ends of the activations' ranges get the gradient of what is cut off (Choi et al., "PACT: parameterized
  clipping activation for quantized neural networks", 2018, equation 2), and an L2 penalty pulls them in, as there;
  rounding counts with the straight-through estimator, and weights keep their scales.

Each range trains as a factor of what it is at the start, for scales differ by orders of magnitude, and one step of the
optimiser must suit them all. Zero points stay.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.quantization.ranges import LEVELS, Range
from act.quantization.scheme import Scheme, quantized_layers
from act.samples.dataset import Array
from act.training.graph import make_parameter

LearnedRanges = Literal["lsq", "pact"]
# A factor is 1, a weight a few hundredths: what is a fair step for the one is none for the other.
_RATE = 50.0
_PENALTY = 1e-4


def insert_learned(student: InferenceModel, scheme: Scheme, kind: LearnedRanges) -> dict[str, Any]:
    """Put quantizers ahead of the layers of a scheme, before the backward pass is added; return Paddle's parameter of
    the factor of each activation (one value) or weight (one a channel) whose range trains."""
    factors: dict[str, Any] = {}
    ready: dict[str, str] = {}
    for layer in quantized_layers(student, scheme):
        op = student.producer(layer.name)
        for name in (layer.activation, layer.weight):
            if name not in ready:
                quantizer = _Quantizer(student, op, name, kind)
                if name == layer.activation:
                    ready[name] = quantizer.activation(scheme.activations[name])
                else:
                    ready[name] = quantizer.weight(scheme.weights[name], layer.axis)
                if quantizer.parameter is not None:
                    factors[name] = quantizer.parameter
            student.rename_input(op, name, ready[name])
    return factors


def learned_scheme(scheme: Scheme, factors: Mapping[str, str], weights: Mapping[str, Array]) -> Scheme:
    """Return a scheme with trained ranges and thresholds, from the names of factors by tensor, and what was trained."""
    factor_of = {tensor: np.abs(weights[factor]).reshape(-1) for tensor, factor in factors.items()}
    activations = dict(scheme.activations)
    for name in activations.keys() & factor_of.keys():
        span, factor = activations[name], float(factor_of[name][0])
        activations[name] = Range(span.low * factor, span.high * factor)
    thresholds = {
        name: (values * factor_of[name]).astype(np.float32) if name in factor_of else values
        for name, values in scheme.weights.items()
    }
    return replace(scheme, activations=activations, weights=thresholds)


@dataclass
class _Quantizer:
    """Inserts the operators of one tensor before its consumer, each behind the one before."""

    student: InferenceModel
    before: Any
    name: str
    kind: LearnedRanges
    parameter: Any = None
    _count: int = 0

    def __post_init__(self) -> None:
        self._block = self.student.program.global_block()
        self._tensor = self._block.var(self.name)

    def activation(self, span: Range) -> str:
        """Insert the operators that round the activation; return the name of the rounded one."""
        low, high = (float(end - span.zero_point) for end in (-LEVELS - 1, LEVELS))
        start = np.array([span.scale], dtype=np.float32)
        if self.kind == "pact":
            return str(self._clipped(start, low, high).name)
        # The number of values of one sample; an axis of any length counts once.
        values = int(np.prod([max(1, axis) for axis in self._tensor.shape[1:]], dtype=np.int64))
        return str(self._rounded(self._scale(start, values), low, high).name)

    def weight(self, thresholds: Array, channels: int) -> str:
        """Insert the operators that round the weight, whose channels are on an axis; return the name of the rounded."""
        shape = [-1 if axis == channels else 1 for axis in range(len(self._tensor.shape))]
        start = (thresholds / np.float32(LEVELS)).astype(np.float32).reshape(shape)
        if self.kind == "pact":
            scale = self._constant("start", start)
        else:
            scale = self._scale(start, int(np.prod(self._tensor.shape)) // thresholds.size)
        return str(self._rounded(scale, -LEVELS - 1.0, float(LEVELS)).name)

    def _scale(self, start: Array, values: int) -> Any:
        """Return the start times a factor, whose gradient is scaled down by what it is summed over."""
        factor = self._factor(start.shape)
        share = 1 / np.sqrt(values * LEVELS)
        rest = self._op("scale", factor, scale=1 - share, detached=True)
        whole = self._op("elementwise_add", self._op("scale", factor, scale=share), rest)
        return self._op("elementwise_mul", self._constant("start", start), whole)

    def _rounded(self, scale: Any, low: float, high: float) -> Any:
        """Return the clipped tensor rounded, with the gradient of what is not."""
        clipped = self._op("clip", self._op("elementwise_div", self._tensor, scale), min=low, max=high)
        error = self._op("elementwise_sub", self._op("round", clipped, detached=True), clipped, detached=True)
        return self._op("elementwise_mul", self._op("elementwise_add", clipped, error), scale)

    def _clipped(self, start: Array, low: float, high: float) -> Any:
        factor = self._factor(start.shape, regularizer=paddle.regularizer.L2Decay(_PENALTY))
        inside = self._tensor
        for op_type, label, end in (("elementwise_min", "high", high), ("elementwise_max", "low", low)):
            bound = self._op("elementwise_mul", self._constant(label, start * np.float32(end)), factor)
            inside = self._op(op_type, inside, bound)
        scale = self._op("elementwise_mul", self._constant("start", start), factor, detached=True)
        whole = self._op("round", self._op("elementwise_div", inside, scale, detached=True), detached=True)
        rounded = self._op("elementwise_mul", whole, scale, detached=True)
        error = self._op("elementwise_sub", rounded, inside, detached=True)
        return self._op("elementwise_add", inside, error)

    def _factor(self, shape: Sequence[int], **more: Any) -> Any:
        name = self.student.add_weight(f"{self.name}@factor", np.ones(shape, dtype=np.float32))
        self.parameter = make_parameter(self._block, name, optimize_attr={"learning_rate": _RATE}, **more)
        return self.parameter

    def _constant(self, label: str, value: Array) -> Any:
        return self._block.var(self.student.add_weight(f"{self.name}@{label}", value))

    def _op(self, kind: str, x: Any, y: Any = None, detached: bool = False, **attributes: float) -> Any:
        """Insert an operator; return its output, through which no gradient goes where it is detached."""
        inputs = {"X": [x.name]} if y is None else {"X": [x.name], "Y": [y.name]}
        result = self._block.create_var(
            name=f"{self.name}@learned_{self._count}",
            shape=x.shape if y is None or len(x.shape) >= len(y.shape) else y.shape,
            dtype="float32",
            stop_gradient=detached,
        )
        more = {} if y is None else {"axis": -1}
        self.student.insert(kind, inputs, {"Out": [result.name]}, {**more, **attributes}, before=self.before)
        self._count += 1
        return result
