"""`UnstructurePrune`: single weights of smallest magnitude become zero, at once or more and more during training.

Gradual magnitude pruning raises the share of zeros along a cubic curve, quickly at first, when many weights are idle,
and slowly in the end (Zhu and Gupta, "To prune, or not to prune", 2017, equation 1). What is zero stays zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from act.errors import InputError
from act.program.model import InferenceModel
from act.pruning.context import Pruned
from act.pruning.weights import SparseLayer, describe_layers, masked, smallest_out, sparse_layers
from act.settings import UnstructurePrune
from act.training.program import TrainingProgram


@dataclass(frozen=True)
class Gradual:
    """The course of gradual pruning.

    Attributes:
        weights: names of those that get zeros.
        start: step of training after which it is pruned first.
        steps: from there to the last raise.
    """

    weights: list[str]
    settings: UnstructurePrune
    start: int
    steps: int

    @property
    def end(self) -> int:
        """Return the step after which the model has all of its zeros."""
        return self.start + self.steps

    def describe(self) -> str:
        """Return the course for people."""
        share = f"{self.settings.ratio:.0%}"
        return f"zeros rise to {share} of the weights from step {self.start} to step {self.end} of training"

    def ratio_after(self, step: int) -> float:
        """Return the share of zeros after a step of training."""
        if step < self.start or step < 1:
            return 0.0
        config = self.settings.gmp_config
        last, first, raises = self.settings.ratio, config.initial_ratio, config.pruning_steps
        done = min(step - self.start, self.steps) * raises // self.steps
        return last + (first - last) * (1 - done / raises) ** 3

    def after_step(self, program: TrainingProgram, step: int) -> None:
        """Set more weights to zero, where the share is raised after this step."""
        ratio = self.ratio_after(step)
        if ratio > self.ratio_after(step - 1):
            weights = {name: program.student.weight(name) for name in self.weights}
            for name, mask in smallest_out(weights, ratio, self.settings.local_sparsity).items():
                program.set_mask(name, mask)

    def counts(self, step: int) -> bool:
        """Tell whether the model has all of its zeros after a step."""
        return step >= self.end


def prune(model: InferenceModel, settings: UnstructurePrune) -> Pruned:
    """Return the model with all of its zeros at once.

    Raises:
        InputError: there is no weight to prune.
    """
    layers = _layers(model, settings)
    weights = {layer.weight: model.weight(layer.weight) for layer in layers}
    if settings.prune_mode == "threshold":
        masks = {name: np.abs(values) >= settings.threshold for name, values in weights.items()}
        said = f"weights below {settings.threshold:g} are zero"
    else:
        masks = smallest_out(weights, settings.ratio, settings.local_sparsity)
        said = f"{settings.ratio:.0%} of {'each weight' if settings.local_sparsity else 'the weights'} are zero"
    return Pruned(masked(model, masks), f"{said}, those of smallest magnitude", describe_layers(layers, masks), masks)


def gradual(model: InferenceModel, settings: UnstructurePrune, steps: int) -> Gradual:
    """Return the course that the zeros take during a training of some steps.

    Raises:
        InputError: there is no weight to prune, or the training is too short.
    """
    config = settings.gmp_config
    start = config.stable_iterations or 0
    pruning = config.pruning_iterations or max(1, (steps - start) // 2)
    if start + pruning > steps:
        raise InputError(
            f"`prune.unstructured.gmp_config`: the zeros are complete after {start} + {pruning} steps, but training "
            f"makes only {steps}: raise `prune.epochs`, or lower `stable_iterations` and `pruning_iterations`"
        )
    return Gradual([layer.weight for layer in _layers(model, settings)], settings, start, pruning)


def _layers(model: InferenceModel, settings: UnstructurePrune) -> list[SparseLayer]:
    layers = sparse_layers(model)
    if settings.prune_params_type == "conv1x1_only":
        layers = [layer for layer in layers if layer.pointwise]
    if not layers:
        kind = "1x1 convolution" if settings.prune_params_type == "conv1x1_only" else "layer"
        raise InputError(f"strategy `UnstructurePrune`: the model has no {kind} whose weights can be pruned")
    return layers
