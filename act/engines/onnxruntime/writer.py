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
from collections.abc import Iterator, Sequence
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
_OWN = "the scheme's own"
_FINALISTS = 3  # ranges that are tried on all samples


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

    def forms(self, export: Export, scheme: Scheme) -> Iterator[tuple[str, onnx.ModelProto]]:
        """Yield the models over the ranges that come nearest to fp32 on this engine, then those with fewer rules.

        It rounds at more places than the engine that the scheme was found on, and bears other ranges best. Where it is
        that engine, the search has found what it bears. All ranges are tried on a few samples, the best of them on all.
        """
        others = export.alternatives.of(export.model, scheme) if self.spec.name in export.engines[1:] else {}
        schemes = {_OWN: scheme, **others}
        finalists = list(schemes)
        if len(schemes) > _FINALISTS:
            first = {label: self._similarity(export, each, first=True) for label, each in schemes.items()}
            finalists = sorted(first, key=first.__getitem__, reverse=True)[:_FINALISTS]
        known = {label: self._similarity(export, schemes[label]) for label in dict.fromkeys([*finalists, _OWN])}
        ranking = sorted(known, key=known.__getitem__, reverse=True)
        best = ranking[0]
        if others:
            told = f"similarity {known[_OWN]:.4f} with {_OWN} ranges, {known[best]:.4f} with {best}, which are taken"
            log.info("%s: for %s: %s", export.name, self.spec.title, told)
            export.alternatives.tried(export.model, scheme, [label for label in ranking if label != _OWN])
        if (rounded := self._with_rounded_ends(export, schemes[best], known[best])) is not None:
            yield f"{best} ranges, its ends rounded", rounded
        for label in ranking:
            yield f"{label} ranges", self.quantized(export.fp32_onnx, export.model, schemes[label])
        yield from self._with_fewer_rules(export, schemes[best])

    def _similarity(self, export: Export, scheme: Scheme, first: bool = False) -> float:
        written = self.quantized(export.fp32_onnx, export.model, scheme)
        return export.checker.on_onnxruntime(export.fp32_onnx, written, first)

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
