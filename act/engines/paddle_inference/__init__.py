"""Paddle Inference with oneDNN on the CPU."""

from pathlib import Path

from act.engines.spec import Spec

_KERNELS = {"bf16": "config.enable_mkldnn_bfloat16()\n", "int8": "config.enable_mkldnn_int8()\n"}


def snippet(file: str, precision: str, threads: int) -> str:
    """Return Python lines that load a program into Paddle's predictor."""
    folder = Path(file)
    return (
        "from paddle import inference\n\n"
        f'config = inference.Config("{folder / "model.pdmodel"}", "{folder / "model.pdiparams"}")\n'
        f"config.set_cpu_math_library_num_threads({threads})\n"
        "config.enable_mkldnn()\n"
        f"{_KERNELS.get(precision, '')}"
        "predictor = inference.create_predictor(config)"
    )


SPEC = Spec(
    name="paddle_inference",
    title="Paddle Inference",
    runtime="act.engines.paddle_inference.runtime:PaddleInference",
    writer="act.engines.paddle_inference.writer:PaddleInferenceWriter",
    reads="paddle",
    opens=("paddle",),
    # Paddle 2.6 source, `cpu_quantize_pass`: fused_conv2d, fc, fused_matmul among others.
    int8_operators=("conv2d", "depthwise_conv2d", "matmul_v2", "mul"),
    zero_points=False,
    default=2,
    packages=("paddlepaddle",),
    snippet=snippet,
    infer={"use_gpu": False, "enable_mkldnn": True},
)
