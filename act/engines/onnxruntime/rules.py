"""How ONNX Runtime on a CPU wants an int8 model.

Sources: ONNX Runtime 1.23 documentation, "Quantize ONNX models", and its source: `qdq_selector_action_transformer.cc`
(which operators it makes integer kernels of, given pairs on all that they read and make), `qdq_selectors.cc` (biases as
int32 behind `DequantizeLinear`), `relu_clip_fusion` and `qdq_propagation` (an activation function whose range the pair
clips is dropped), `nhwc_transformer.cc` (integer convolutions and pools run with channels last).

On x86 its integer kernels multiply unsigned activations by signed weights. With VNNI or AMX instructions they add up
in 32 bits. Without them `vpmaddubsw` adds two products in 16 bits, and saturates: there weights must keep to 7 bits
(quantizers call it `reduce_range`). On ARM activations may be signed or unsigned alike.
"""

from __future__ import annotations

from act.quantization.qdq import LayerRule, Rules

RULES = Rules(
    layers={
        "Conv": LayerRule(output=True, bias=True),
        "Gemm": LayerRule(output=False, bias=True),
        "MatMul": LayerRule(output=False, bias=False),
    },
    own_scales=frozenset({"Add", "Mul", "Concat", "GlobalAveragePool", "AveragePool", "Sigmoid"}),
    one_scale=frozenset(
        {"MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Resize"}
    ),
    # A concatenation of one scale is a copy, otherwise a table is looked up for each value.
    joins=frozenset({"Concat"}),
    taken_in=frozenset({"Relu", "Clip"}),
    unsigned=True,
    clips=True,
    # Its integer convolutions copy each pixel of a kernel's window by itself.
    deep_input=True,
)
