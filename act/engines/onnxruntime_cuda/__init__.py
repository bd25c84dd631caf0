"""ONNX Runtime on an NVIDIA GPU, for the stand-alone measurement."""

from act.engines.spec import Spec

SPEC = Spec(
    name="onnxruntime_cuda",
    title="ONNX Runtime on CUDA",
    runtime="act.engines.onnxruntime.runtime:OnnxRuntimeCuda",
    reads="onnx",
    infer={"use_gpu": True, "use_tensorrt": False},
)
