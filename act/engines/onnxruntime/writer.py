"""How ONNX Runtime on a CPU wants an int8 model.

Sources: ONNX Runtime 1.32 documentation, "Quantize ONNX models", and its source: `qdq_selector_action_transformer.cc`
(which operators it makes integer kernels of, given QDQ on all that they read and make), `qdq_selectors.cc` (biases as
int32 behind `DequantizeLinear`), `relu_clip_fusion` and `qdq_propagation` (an activation function whose range QDQ
clips is dropped), `nhwc_transformer.cc` (integer convolutions and pools run with channels last).

On x86 its integer kernels multiply unsigned activations by signed weights. With VNNI or AMX instructions they add up
in 32 bits. Without them `vpmaddubsw` adds two products in 16 bits, and saturates: there weights must keep to 7 bits
(quantizers call it `reduce_range`). On ARM activations may be signed or unsigned alike.

Products of two activations stay in float: rounding both in each run takes longer than its integer kernels save.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

import onnx

from act import machine
from act.engines.onnx_int8 import quantize_by_rules
from act.engines.writer import Export, OnnxWriter
from act.program.layers import Layer
from act.program.model import InferenceModel
from act.quantization.dynamic import quantize_dynamically
from act.quantization.qdq import Rules
from act.quantization.scheme import Scheme

log = logging.getLogger(__name__)

# Of the loss of similarity, where the last layers round what they make.
LARGEST_GROWTH = 1.05


class OnnxRuntimeWriter(OnnxWriter):
    """Writes ONNX models for ONNX Runtime's CPU provider."""

    rules = Rules(
        layers={"Conv": True, "Gemm": False, "MatMul": False},
        own_scales=frozenset({"Add", "Mul", "Concat", "GlobalAveragePool", "AveragePool", "LeakyRelu", "Sigmoid"}),
        shared_scale=frozenset(
            {"MaxPool", "Pad", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Resize"}
        ),
        # A concatenation of one scale is a copy, otherwise a table is looked up for each value.
        joins=frozenset({"Concat"}),
        fused_into=frozenset({"Relu", "Clip"}),
        unsigned=True,
        clips=True,
        # Its integer convolutions copy each pixel of a kernel's window by itself.
        deep_input=True,
    )

    runs_dynamic = reads_stored_weights = True

    def dynamic(self, fp32_onnx: onnx.ModelProto, model: InferenceModel, layers: Sequence[Layer]) -> onnx.ModelProto:
        return quantize_dynamically(fp32_onnx, model, layers, narrow=machine.int8_sums_saturate())

    def _chosen(self, export: Export, scheme: Scheme) -> onnx.ModelProto:
        """Return the model over the ranges of the threshold rule that comes nearest to fp32 on this engine.

        It rounds at more places than the engine that the scheme was found on, and bears other ranges best. Where it is
        that engine, the search has found what it bears.
        """
        model, checker, fp32 = export.model, export.checker, export.fp32_onnx
        written = self.quantized(fp32, model, scheme)
        own = best = checker.on_onnxruntime(fp32, written)
        chosen = "the scheme's own"
        alternatives = export.read_alternatives() if self.spec.name in export.engines[1:] else {}
        for label, spans in alternatives.items():
            activations = {tensor: spans[tensor] for tensor in scheme.activations}
            another = replace(scheme, activations=activations, further=spans)
            other = self.quantized(fp32, model, another)
            similarity = checker.on_onnxruntime(fp32, other)
            if similarity > best:
                best, chosen, written, scheme = similarity, label, other, another
        if alternatives:
            told = f"similarity {own:.4f} with the scheme's own ranges, {best:.4f} with {chosen}, which are taken"
            log.info("%s: for %s: %s", export.name, self.spec.title, told)
        return self._with_rounded_ends(export, scheme, best) or written

    def _with_rounded_ends(self, export: Export, scheme: Scheme, similarity: float) -> onnx.ModelProto | None:
        """Return the model whose last layers round what they make, if it is about as similar to fp32 as without.

        In float such layers are slow, and what surrounds them is laid out anew; but boxes and scores that one layer
        makes bear no common scale.
        """
        if not scheme.further:
            return None
        rules = replace(self.rules, round_ends=True)
        written = quantize_by_rules(rules, export.fp32_onnx, export.model, scheme)
        rounded = export.checker.on_onnxruntime(export.fp32_onnx, written)
        return written if 1 - rounded <= LARGEST_GROWTH * (1 - similarity) else None
