"""How much each layer's quantization alone disturbs the model's outputs, measured without labels.

One layer at a time is quantized, the rest stays in floating point, and the outputs on a few calibration samples are
compared with the fp32 model's (the analysis that NNCF and PaddleSlim call sensitivity).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from tqdm import tqdm

from act.metrics import cosine
from act.program.layers import Layer
from act.program.model import InferenceModel
from act.quantization.onnx_model import quantize_onnx
from act.quantization.scheme import Scheme
from act.samples.dataset import Array


@dataclass(frozen=True)
class LayerSensitivity:
    """What quantizing one layer costs.

    Attributes:
        layer: its name.
        op_type: its operator.
        error: 1 - mean cosine similarity of the outputs to the fp32 outputs; 0 means no effect.
    """

    layer: str
    op_type: str
    error: float


def measure(
    model: InferenceModel,
    fp32: onnx.ModelProto,
    layers: Sequence[Layer],
    make: Callable[[Layer], Scheme],
    batch: Mapping[str, Array],
) -> list[LayerSensitivity]:
    """The sensitivity of every layer, most sensitive first; equal ones in program order.

    Args:
        model: the fp32 model.
        fp32: the same as ONNX.
        layers: to be measured.
        make: gives the scheme that quantizes one layer alone.
        batch: the samples to run.
    """
    wanted = _run(fp32, batch)
    result = []
    for layer in tqdm(layers, desc="sensitivity", unit="layer", leave=False):
        outputs = _run(quantize_onnx(fp32, model, make(layer)), batch)
        similarity = [cosine(a, b) for output, want in zip(outputs, wanted) for a, b in zip(output, want)]
        result.append(LayerSensitivity(layer.name, layer.op_type, 1 - float(np.mean(similarity))))
    return sorted(result, key=lambda entry: -entry.error)


def _run(model: onnx.ModelProto, batch: Mapping[str, Array]) -> list[Array]:
    options: Any = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # The pairs must be computed as they stand, and not be fused into something that rounds differently.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs: list[Array] = session.run(None, dict(batch))
    return outputs
