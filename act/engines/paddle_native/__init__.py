"""Paddle Inference on the CPU without oneDNN, for the stand-alone measurement."""

from act.engines.spec import Spec

SPEC = Spec(
    name="paddle_native",
    title="Paddle's own kernels",
    runtime="act.engines.paddle_inference.runtime:PaddleNative",
    reads="paddle",
    infer={"use_gpu": False, "enable_mkldnn": False},
)
