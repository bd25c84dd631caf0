"""Paddle Inference on an NVIDIA GPU, for the stand-alone measurement."""

from act.engines.spec import Spec

SPEC = Spec(
    name="paddle_gpu",
    title="Paddle Inference on CUDA",
    runtime="act.engines.paddle_inference.runtime:PaddleGpu",
    reads="paddle",
    infer={"use_gpu": True, "use_tensorrt": False},
)
