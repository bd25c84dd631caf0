"""What each engine can run in int8 on a CPU, as data with its source."""

from __future__ import annotations

from act.settings import EngineName

# Paddle's operator types that the engine has int8 kernels for, given quantize/dequantize pairs around them.
INT8_OPERATORS: dict[EngineName, tuple[str, ...]] = {
    # OpenVINO 2026 documentation, "Low Precision Transformations": Convolution, GroupConvolution, MatMul.
    "openvino": ("conv2d", "depthwise_conv2d", "conv2d_transpose", "matmul_v2", "mul"),
    # ONNX Runtime 1.23 documentation, "Quantize ONNX models": QLinearConv, MatMulInteger / QGemm.
    "onnxruntime": ("conv2d", "depthwise_conv2d", "matmul_v2", "mul"),
    # Paddle 2.6 source, `cpu_quantize_pass`: fused_conv2d, fc, fused_matmul among others.
    "paddle_inference": ("conv2d", "depthwise_conv2d", "matmul_v2", "mul"),
    # Paddle Lite 2.13 source, `QuantDequantFusePass`, and what its `opt` chose for ARM: `fc` for products with weights.
    "paddle_lite": ("conv2d", "depthwise_conv2d", "conv2d_transpose", "matmul_v2", "mul"),
    # TensorRT 8 developer guide, "Explicit Versus Implicit Quantization": convolution, deconvolution, matrix product.
    "tensorrt": ("conv2d", "depthwise_conv2d", "conv2d_transpose", "matmul_v2", "mul"),
}
