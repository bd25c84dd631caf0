"""TensorRT on an NVIDIA GPU, driven by ONNX Runtime where it is installed: it is not on package indexes itself."""

from act.engines.spec import Spec

_OPTIONS = {"fp16": '{"trt_fp16_enable": True}', "int8": '{"trt_int8_enable": True}'}


def _snippet(file: str, precision: str, threads: int) -> str:
    return (
        "import onnxruntime  # the package onnxruntime-gpu, with TensorRT on the library path\n\n"
        f'providers = [("TensorrtExecutionProvider", {_OPTIONS.get(precision, "{}")}), "CUDAExecutionProvider"]\n'
        f'session = onnxruntime.InferenceSession("{file}", providers=providers)\n'
        "# feeds: {input name: array with the batch axis first}\n"
        "outputs = session.run(None, feeds)"
    )


SPEC = Spec(
    name="tensorrt",
    title="TensorRT",
    runtime="act.engines.onnxruntime.runtime:TensorRt",
    writer="act.engines.tensorrt.writer:TensorRtWriter",
    reads="onnx",
    # TensorRT 8 developer guide, "Explicit Versus Implicit Quantization": convolution, deconvolution, matrix product.
    int8_operators=("conv2d", "depthwise_conv2d", "conv2d_transpose", "matmul_v2", "mul"),
    zero_points=False,
    not_first="TensorRT takes minutes to build each of them",
    snippet=_snippet,
)
