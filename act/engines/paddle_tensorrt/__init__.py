"""Paddle Inference with TensorRT inside it, for the stand-alone measurement."""

from act.engines.spec import Spec

SPEC = Spec(
    name="paddle_tensorrt",
    title="Paddle Inference with TensorRT",
    runtime="act.engines.paddle_inference.runtime:PaddleTensorRt",
    reads="paddle",
    infer={"use_gpu": True, "use_tensorrt": True},
)
