"""Paddle Lite, for ARM; its own interpreter imports what runs it, and has NumPy and `paddlelite` only."""

from pathlib import Path

from act.engines.spec import Spec
from act.environments import LITE


def _snippet(file: str, precision: str, threads: int) -> str:
    folder = Path(file)
    return (
        "import paddlelite.lite as lite  # of the environment that `make lite` makes\n\n"
        "config = lite.CxxConfig()\n"
        f'config.set_model_file("{folder / "model.pdmodel"}")\n'
        f'config.set_param_file("{folder / "model.pdiparams"}")\n'
        f"config.set_threads({threads})\n"
        "kinds = [lite.PrecisionType.INT8, lite.PrecisionType.FP32]\n"
        "places = [lite.Place(lite.TargetType.X86, kind) for kind in kinds]\n"
        "config.set_valid_places([*places, lite.Place(lite.TargetType.Host, lite.PrecisionType.FP32)])\n"
        'config.add_discarded_pass("lite_conv_activation_fuse_pass")\n'
        "predictor = lite.create_paddle_predictor(config)"
    )


SPEC = Spec(
    name="paddle_lite",
    title="Paddle Lite",
    runtime="act.engines.paddle_lite.runtime:PaddleLite",
    writer="act.engines.paddle_lite.writer:PaddleLiteWriter",
    reads="paddle",
    # Paddle Lite 2.13 source, `QuantDequantFusePass`, and what its `opt` chose for ARM: `fc` for products with weights.
    int8_operators=("conv2d", "depthwise_conv2d", "conv2d_transpose", "matmul_v2", "mul"),
    # With zero points it drops the shifts that stand for them without a word, and with them the int8 kernels.
    zero_points=False,
    # Its x86 kernels saturate in int8, and are wrong for some products (README.md, "Paddle Lite").
    not_first="on x86 Paddle Lite is wrong for some int8 operators",
    interpreter=LITE.python,
    snippet=_snippet,
)
