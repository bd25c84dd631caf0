"""Paddle Inference of Paddle 3, with oneDNN on the CPU; its own interpreter imports what runs it."""

from act.engines.paddle_inference import snippet
from act.engines.spec import Spec
from act.environments import PADDLE3


def _snippet(file: str, precision: str, threads: int) -> str:
    return f"# In the environment that `make paddle3` makes:\n{snippet(file, precision, threads)}"


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
