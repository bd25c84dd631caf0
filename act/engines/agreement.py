"""The check that an engine computes what the given model computes, before anything that it says is believed."""

from pathlib import Path

import numpy as np

from act.comparison import Comparison, mean_errors, over_outputs, scores
from act.engines.process import EngineFailure, EngineProcess
from act.samples.dataset import Samples

# Values of an engine's fp32 outputs that may differ from the given model's by more than so much of the largest.
_FAR, _MOST_FAR = 0.01, 0.01
LEAST_SIMILARITY = 0.8
"""Of a quantized model's outputs to those of its own runtime, which rounds in another way."""


def check_outputs(process: EngineProcess, samples: Path, expected: Path, batch: int = 1) -> None:
    """Raise an `EngineFailure` where an engine that has loaded the model in fp32 does not give what the model gives.

    Args:
        samples: folder of the evaluation samples.
        expected: folder of samples whose feeds are the model's outputs on the first of them.
        batch: how many are run at a time.
    """
    wanted = Samples.load(expected)
    found = process.outputs(samples, len(wanted), batch)
    for (name, truth), values in zip(wanted.feeds.items(), found):
        for number, (want, have) in enumerate(zip(truth, values)):
            if want.shape != have.shape:
                shapes = f"shape {list(have.shape)} where the given model gives {list(want.shape)}"
                raise EngineFailure("wrong_output", f"output `{name}` of sample {number} has {shapes}")
            largest = max(float(np.abs(want.astype(np.float64)).max(initial=0)), 1e-12)
            far = np.abs(want.astype(np.float64) - have.astype(np.float64)) > _FAR * largest
            if want.size and far.mean() > _MOST_FAR:
                share = f"{100 * far.mean():.3g} % of output `{name}`"
                raise EngineFailure(
                    "wrong_output", f"its fp32 is not the given model: {share} differs on sample {number}"
                )


def check_as_given(process: EngineProcess, samples: Path, expected: Path) -> None:
    """Raise an `EngineFailure` where an engine makes something else of a quantized model than the model's own runtime.

    Engines round each in their way, which moves the outputs by far less.

    Args:
        samples: folder of the evaluation samples.
        expected: folder of the outputs on the first of them.
    """
    wanted = Samples.load(expected)
    outputs = list(wanted.feeds.values())
    comparison, found = Comparison(outputs), process.outputs(samples, len(wanted))
    errors = [comparison.errors(*pair) for pair in zip(zip(*found), zip(*outputs), strict=True)]
    similarity = over_outputs(scores(mean_errors(errors)))
    if similarity < LEAST_SIMILARITY:
        cause = f"similarity {similarity:.2f} to what its own runtime gives"
        raise EngineFailure("wrong_output", f"it computes something else of the given model: {cause}")
