"""A simpler program that computes the same: batch norms, scalars, reshapes and transposes folded into weights,
identities removed.

Quantization sees each layer as the engines will run it. What is not certain to compute the same stays as it is:
programs with control flow, variables that are written twice, layers with channels last, weights that something else
reads too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from act.program.model import InferenceModel
from act.program.passes.batch_norms import fold_batch_norms
from act.program.passes.constants import fold_reshapes, fold_transposes
from act.program.passes.identities import remove_identities
from act.program.passes.scalars import fold_scalars


@dataclass
class Changes:
    """What was done to the program.

    Attributes:
        batch_norms: gamma of each folded batch norm, float32 [channels], by the weight that it was folded into.
    """

    folded_batch_norms: int = 0
    removed_identities: int = 0
    folded_reshapes: int = 0
    transposed_weights: int = 0
    folded_scalars: int = 0
    batch_norms: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)


def set_inference_mode(model: InferenceModel) -> None:
    """Let batch norms and dropouts behave as at inference, as the engines do whatever the program says."""
    for block in model.program.blocks:
        for op in block.ops:
            if op.has_attr("is_test"):
                op._set_attr("is_test", True)


def normalise(model: InferenceModel) -> tuple[InferenceModel, Changes]:
    """Return a normalised copy of a model in inference mode, with the same inputs and outputs, and what was changed."""
    result, changes = model.copy(), Changes()
    if result.program.num_blocks == 1:
        changes.removed_identities = remove_identities(result)
        changes.folded_reshapes = fold_reshapes(result)
        changes.transposed_weights = fold_transposes(result)
        changes.batch_norms = fold_batch_norms(result)
        changes.folded_batch_norms = len(changes.batch_norms)
        changes.folded_scalars = fold_scalars(result)
    return result, changes
