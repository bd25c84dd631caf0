"""How OpenVINO on a CPU wants an int8 model.

Sources: OpenVINO 2026 documentation, "Low Precision Transformations" (which operators it runs in int8 behind a
quantized input, and through which it moves the scales on), and NNCF 3.4's `hardware_config` for CPUs, made for it.

Layers need QDQ on what they read only: the CPU plugin makes the next layer's rounding the last step of the layer
before. Where something stands between two layers that would only move numbers about, as a pool or a concatenation, QDQ
must stand ahead of it, or the layer before writes floats. A concatenation needs one scale for all that it joins.

Products whose weights alone are stored in int8 it runs in int8 as well, and finds the scales of what they read in each
run ("dynamic quantization" there). ONNX's own operators for that it computes in float.
"""

from collections.abc import Sequence

import onnx

from act.engines.writer import OnnxWriter
from act.program.layers import Layer
from act.program.model import InferenceModel
from act.quantization.dynamic import store_weights
from act.quantization.onnx_model import keep_pools_right
from act.quantization.qdq import Rules
from act.quantization.scheme import Scheme


class OpenVinoWriter(OnnxWriter):
    """Writes ONNX models for OpenVINO's CPU plugin."""

    rules = Rules(
        layers={"Conv": False, "ConvTranspose": False, "MatMul": False},
        own_scales=frozenset({"Add"}),
        shared_scale=frozenset({"Concat", "MaxPool", "Reshape", "Transpose", "Split", "Resize"}),
        joins=frozenset({"Concat"}),
        fused_into=frozenset({"Relu", "Clip", "HardSwish", "Sigmoid"}),
        unsigned=False,
        transparent=True,
    )

    runs_dynamic = reads_stored_weights = True

    def dynamic(self, fp32_onnx: onnx.ModelProto, model: InferenceModel, layers: Sequence[Layer]) -> onnx.ModelProto:
        return store_weights(fp32_onnx, model, layers)

    def quantized(self, fp32: onnx.ModelProto, model: InferenceModel, scheme: Scheme) -> onnx.ModelProto:
        result = super().quantized(fp32, model, scheme)
        keep_pools_right(result.graph)
        return result
