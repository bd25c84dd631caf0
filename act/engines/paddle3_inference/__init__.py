"""Paddle Inference of Paddle 3, with oneDNN on the CPU; its own interpreter imports what runs it."""

from pathlib import Path

from act.engines.spec import Spec
from act.environments import PADDLE3

_KERNELS = {"bf16": "config.enable_mkldnn_bfloat16()\n"}


def _snippet(file: str, precision: str, threads: int) -> str:
    folder = Path(file)
    return (
        "from paddle import inference  # of the environment that `make paddle3` makes\n\n"
        f'config = inference.Config("{folder / "model.pdmodel"}", "{folder / "model.pdiparams"}")\n'
        f"config.set_cpu_math_library_num_threads({threads})\n"
        "config.enable_mkldnn()\n"
        f"{_KERNELS.get(precision, '')}"
        "predictor = inference.create_predictor(config)"
    )


SPEC = Spec(
    name="paddle3_inference",
    title="Paddle Inference 3",
    runtime="act.engines.paddle3_inference.runtime:Paddle3Inference",
    writer="act.engines.paddle3_inference.writer:Paddle3InferenceWriter",
    reads="paddle",
    opens=("paddle", "paddle3"),
    zero_points=False,
    not_first="Paddle 3 is given no int8 programs",
    interpreter=PADDLE3.python,
    snippet=_snippet,
)
