"""`ASPPrune`: of every four weights in a row along the input channels, the two of smallest magnitude become zero."""

from __future__ import annotations

from act.errors import InputError
from act.program.model import InferenceModel
from act.pruning.context import Pruned
from act.pruning.weights import Mask, describe_layers, masked, refuse_unknown, sparse_layers, two_of_four
from act.results.prune import PrunedLayer
from act.settings import ASPPrune


def prune(model: InferenceModel, settings: ASPPrune) -> Pruned:
    """Return the model with the 2:4 pattern.

    Raises:
        InputError: a name is no weight that can be pruned, or no weight can hold the pattern.
    """
    layers = sparse_layers(model)
    if settings.prune_params_name is not None:
        refuse_unknown(settings.prune_params_name, [layer.weight for layer in layers], "prune.asp.prune_params_name")
        layers = [layer for layer in layers if layer.weight in settings.prune_params_name]
    masks: dict[str, Mask] = {}
    rows = []
    for layer in layers:
        weight = model.weight(layer.weight)
        mask = two_of_four(weight, layer.axis)
        if mask is not None:
            masks[layer.weight] = mask
            rows += describe_layers([layer], masks)
            continue
        why = f"left alone: {weight.shape[layer.axis]} input channels are no whole fours"
        rows.append(
            PrunedLayer(name=layer.name, weight=layer.weight, kept=weight.size, of=weight.size, ratio=0.0, why=why)
        )
    if not masks:
        raise InputError("strategy `ASPPrune`: no layer of the model has input channels in whole fours")
    return Pruned(masked(model, masks), "two of every four weights along the input channels are zero", rows, masks)
