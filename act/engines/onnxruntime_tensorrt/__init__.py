"""ONNX Runtime with TensorRT behind it, for the stand-alone measurement."""

from act.engines.spec import Spec

SPEC = Spec(
    name="onnxruntime_tensorrt",
    title="ONNX Runtime with TensorRT",
    runtime="act.engines.onnxruntime.runtime:TensorRt",
    reads="onnx",
    infer={"use_gpu": True, "use_tensorrt": True},
)
