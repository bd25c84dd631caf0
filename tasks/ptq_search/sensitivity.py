"""How much each layer's quantization alone disturbs the model's outputs, measured without labels.

One layer at a time is quantized, the rest stays in floating point, and the outputs on a few calibration samples are
compared with the fp32 model's (the analysis that NNCF and PaddleSlim call sensitivity).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from act.model import InferenceModel
from act.quality import cosine
from act.quantization import Layer, make_scheme, quantize
from act.samples import Array


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
    model: InferenceModel, layers: Sequence[Layer], thresholds: Mapping[str, float], batch: Mapping[str, Array]
) -> list[LayerSensitivity]:
    """The sensitivity of every layer, most sensitive first; equal ones in program order."""
    wanted = model.run(batch)
    result = []
    for layer in tqdm(layers, desc="sensitivity", unit="layer", leave=False):
        outputs = quantize(model, make_scheme(model, [layer], thresholds)).run(batch)
        similarity = [cosine(a, b) for output, want in zip(outputs, wanted) for a, b in zip(output, want)]
        result.append(LayerSensitivity(layer.name, layer.op_type, 1 - float(np.mean(similarity))))
    return sorted(result, key=lambda entry: -entry.error)
