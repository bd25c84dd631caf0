"""Training without training code: a model and unlabelled samples in, better weights out.

`build` makes the program of a step: the forward pass (quantized or fp32), the distance to a teacher, the backward pass
and the optimiser. The losses say what is compared, and `fit` makes the steps.
"""

from act.training.distillation import Part, distil, distillation, plan
from act.training.loop import HISTORY_FIELDS, Fit, count_steps, fit
from act.training.losses import AddLoss, Loss, reconstruction
from act.training.masks import sparse_masks
from act.training.program import TrainingProgram, build, trainable_weights, with_weights

__all__ = [
    "HISTORY_FIELDS",
    "AddLoss",
    "Fit",
    "Loss",
    "Part",
    "TrainingProgram",
    "build",
    "count_steps",
    "distil",
    "distillation",
    "fit",
    "plan",
    "reconstruction",
    "sparse_masks",
    "trainable_weights",
    "with_weights",
]
