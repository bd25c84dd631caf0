"""Whether an exported file computes what the simulated model computes, on real samples.

The Paddle files must agree with the model in memory to the bit. The ONNX file runs on ONNX Runtime with its graph
optimisations off, so that it follows the file literally; rounding may then differ in the last bit of a few values,
which a deep model carries into its outputs, so these must point in the same direction (cosine similarity).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from act.model import InferenceModel
from act.quality import cosine
from act.samples import Array, Samples

SAMPLES = 16
LEAST_SIMILARITY = {"paddle": 1 - 1e-6, "onnx": 0.99}


class Checker:
    """Compares exported files with the model that they were made from.

    Args:
        samples: the calibration samples, of which the first few are used.
    """

    def __init__(self, samples: Samples) -> None:
        self._batches = list(samples.head(SAMPLES).batches(SAMPLES))

    def compare(self, simulated: InferenceModel, paddle_folder: Path, onnx_file: Path, name: str) -> dict[str, float]:
        """Mean cosine similarity of each file's outputs to the simulated model's.

        Raises:
            RuntimeError: a file computes something else.
        """
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(onnx_file), options, providers=["CPUExecutionProvider"])
        reloaded = InferenceModel.load(paddle_folder)
        wanted = [simulated.run(batch) for batch in self._batches]
        found = {
            "paddle": [reloaded.run(batch) for batch in self._batches],
            "onnx": [session.run(None, dict(batch)) for batch in self._batches],
        }
        similarity = {form: _similarity(outputs, wanted) for form, outputs in found.items()}
        for form, value in similarity.items():
            if value < LEAST_SIMILARITY[form]:
                raise RuntimeError(
                    f"the {form} file of `{name}` does not compute what the simulated model does: cosine similarity "
                    f"{value:.4f}, at least {LEAST_SIMILARITY[form]} is needed"
                )
        return {form: round(value, 6) for form, value in similarity.items()}


def _similarity(found: list[list[Array]], wanted: list[list[Array]]) -> float:
    each = [
        cosine(sample, truth)
        for outputs, truths in zip(found, wanted)
        for output, want in zip(outputs, truths)
        for sample, truth in zip(output, want)
    ]
    return float(np.mean(each))
