"""Zeros in single weights: which weights can get them, and the masks that say which of their values stay.

- `ASPPrune`: of every four weights in a row along the input channels, the two of smallest magnitude become zero: the
  pattern that NVIDIA's sparse matrix units multiply twice as fast (Mishra et al., "Accelerating sparse deep neural
  networks", 2021).
- `UnstructurePrune`: the weights of smallest magnitude become zero, at once or more and more during training. Gradual
  magnitude pruning raises the share of zeros along a cubic curve, quickly at first, when many weights are idle, and
  slowly in the end (Zhu and Gupta, "To prune, or not to prune", 2017, equation 1). What is zero stays zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from act.errors import InputError
from act.program.layers import OPERATORS, quantizable_layers
from act.program.model import InferenceModel
from act.pruning.context import Pruned, refuse_unknown
from act.pruning.trace import Mask
from act.results.training import PrunedLayer
from act.settings import ASPPrune, UnstructurePrune
from act.training.program import TrainingProgram

Floats = npt.NDArray[np.float32]

# Of the few values of a depthwise convolution none is idle, and no kernel skips any: they stay.
_SPARSE = tuple(kind for kind in OPERATORS if kind != "depthwise_conv2d")
# The axis along which a layer sums up, apart from a window's height and width.
_INPUT_AXES = {"conv2d": 1, "conv2d_transpose": 0, "matmul_v2": 0, "mul": 0}


@dataclass(frozen=True)
class SparseLayer:
    """A layer, by its output, whose weight may get zeros; `axis` is that of the weight's input channels."""

    name: str
    weight: str
    axis: int
    pointwise: bool

    def describe(self, mask: Mask) -> PrunedLayer:
        """Return what is kept of its weight, for the report."""
        kept, of = int(mask.sum()), int(mask.size)
        return PrunedLayer(name=self.name, weight=self.weight, kept=kept, of=of, ratio=1 - kept / of)


def sparse_layers(model: InferenceModel) -> list[SparseLayer]:
    """Return the convolutions and matrix products whose weight is theirs alone, but for depthwise ones, in order."""
    found = []
    for layer in quantizable_layers(model, _SPARSE):
        shape, convolves = model.shape(layer.weight), layer.op_type == "conv2d"
        if not (convolves and shape[1] == 1 and model.producer(layer.name).attr("groups") == shape[0] > 1):
            pointwise = convolves and shape[2:] == (1, 1)
            found.append(SparseLayer(layer.name, layer.weight, _INPUT_AXES[layer.op_type], pointwise))
    return found


def masked(model: InferenceModel, masks: Mapping[str, Mask]) -> InferenceModel:
    """Return a copy of the model with zeros where the masks have them."""
    result = model.copy()
    for name, mask in masks.items():
        result.set_weight(name, np.where(mask, result.weight(name), np.float32(0)))
    return result


def prune_two_of_four(model: InferenceModel, settings: ASPPrune) -> Pruned:
    """Return the model with the 2:4 pattern; `InputError` where a name is no weight, or no weight can hold it."""
    layers = sparse_layers(model)
    if (names := settings.prune_params_name) is not None:
        refuse_unknown(names, [layer.weight for layer in layers], "prune.asp.prune_params_name")
        layers = [layer for layer in layers if layer.weight in names]
    masks: dict[str, Mask] = {}
    rows = []
    for layer in layers:
        weight = model.weight(layer.weight)
        channels = weight.shape[layer.axis]
        if channels % 4:
            row = layer.describe(np.ones(weight.shape, dtype=np.bool_))
            why = f"left alone: {channels} input channels are no whole fours"
            rows.append(row.model_copy(update={"why": why}))
        else:
            masks[layer.weight] = _two_of_four(weight, layer.axis)
            rows.append(layer.describe(masks[layer.weight]))
    if not masks:
        raise InputError("strategy `ASPPrune`: no layer of the model has input channels in whole fours")
    return Pruned(masked(model, masks), "two of every four weights along the input channels are zero", rows, masks)


def _two_of_four(weight: Floats, axis: int) -> Mask:
    """Return the mask that keeps the two largest of every four values along an axis."""
    fours = np.abs(_fours(weight, axis))
    mask = np.zeros(fours.shape, dtype=np.bool_)
    np.put_along_axis(mask, np.argsort(-fours, axis=-1, kind="stable")[..., :2], True, axis=-1)
    return np.ascontiguousarray(np.moveaxis(mask.reshape(np.moveaxis(weight, axis, -1).shape), -1, axis))


def has_two_of_four(weight: npt.NDArray[Any], axis: int) -> bool:
    """Tell whether at most two of every four values along an axis are other than zero."""
    return weight.shape[axis] % 4 == 0 and bool(((_fours(weight, axis) != 0).sum(axis=-1) <= 2).all())


def _fours(weight: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
    moved = np.moveaxis(weight, axis, -1)
    return moved.reshape(*moved.shape[:-1], -1, 4)


def prune_unstructured(model: InferenceModel, settings: UnstructurePrune) -> Pruned:
    """Return the model with all of its zeros at once; `InputError` where there is no weight to prune."""
    layers = _layers(model, settings)
    weights = {layer.weight: model.weight(layer.weight) for layer in layers}
    if settings.prune_mode == "threshold":
        masks = {name: np.abs(values) >= settings.threshold for name, values in weights.items()}
        said = f"weights below {settings.threshold:g} are zero"
    else:
        masks = _smallest_out(weights, settings.ratio, settings.local_sparsity)
        said = f"{settings.ratio:.0%} of {'each weight' if settings.local_sparsity else 'the weights'} are zero"
    rows = [layer.describe(masks[layer.weight]) for layer in layers]
    return Pruned(masked(model, masks), f"{said}, those of smallest magnitude", rows, masks)


def _layers(model: InferenceModel, settings: UnstructurePrune) -> list[SparseLayer]:
    pointwise = settings.prune_params_type == "conv1x1_only"
    layers = [layer for layer in sparse_layers(model) if layer.pointwise or not pointwise]
    if not layers:
        kind = "1x1 convolution" if pointwise else "layer"
        raise InputError(f"strategy `UnstructurePrune`: the model has no {kind} whose weights can be pruned")
    return layers


def _smallest_out(weights: Mapping[str, Floats], ratio: float, local: bool) -> dict[str, Mask]:
    """Return the masks that leave out a share of the values of each weight, or of all together: the smallest."""
    magnitudes = [np.abs(values).reshape(-1) for values in weights.values()]
    if local:
        masks = [_largest(each, ratio) for each in magnitudes]
    else:
        ends = np.cumsum([each.size for each in magnitudes])
        masks = np.split(_largest(np.concatenate(magnitudes), ratio), ends[:-1])
    return {name: mask.reshape(values.shape) for (name, values), mask in zip(weights.items(), masks)}


def _largest(magnitudes: Floats, ratio: float) -> Mask:
    mask = np.ones(magnitudes.shape, dtype=np.bool_)
    # Stable: of equal values the first go, so that the same weights always give the same mask.
    mask[np.argsort(magnitudes, kind="stable")[: round(ratio * magnitudes.size)]] = False
    return mask


@dataclass(frozen=True)
class Gradual:
    """The course of gradual pruning of some weights, by name: from a step of training on, for a number of steps."""

    weights: list[str]
    settings: UnstructurePrune
    start: int
    steps: int

    @classmethod
    def of(cls, model: InferenceModel, settings: UnstructurePrune, steps: int) -> Gradual:
        """Return the course that the zeros take during a training of some steps; `InputError` where it is too short."""
        config = settings.gmp_config
        start = config.stable_iterations or 0
        pruning = config.pruning_iterations or max(1, (steps - start) // 2)
        if start + pruning > steps:
            raise InputError(
                f"`prune.unstructured.gmp_config`: the zeros are complete after {start} + {pruning} steps, but "
                f"training makes only {steps}: raise `prune.epochs`, or lower `stable_iterations` and "
                "`pruning_iterations`"
            )
        return cls([layer.weight for layer in _layers(model, settings)], settings, start, pruning)

    def describe(self) -> str:
        """Return the course for people."""
        share, end = f"{self.settings.ratio:.0%}", self.start + self.steps
        return f"zeros rise to {share} of the weights from step {self.start} to step {end} of training"

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
            for name, mask in _smallest_out(weights, ratio, self.settings.local_sparsity).items():
                program.set_mask(name, mask)

    def counts(self, step: int) -> bool:
        """Tell whether the model has all of its zeros after a step."""
        return step >= self.start + self.steps
