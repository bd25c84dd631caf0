"""Operators that compute something else in training than at inference, or each time: such models are refused."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from act.errors import InputError

_FLAGS = ("train", "training", "use_input_stats")
_PROBABILITIES = ("dropout_p",)


def refuse_training(operators: Iterable[tuple[Any, Mapping[str, Any]]]) -> None:
    """Refuse a model with an operator in training mode, or one that draws random numbers.

    Args:
        operators: overloads of `torch.ops`, each with the arguments that are constants, by name.
    """
    for operator, constants in operators:
        name = str(operator).removesuffix(".default")
        names = {argument.name for argument in operator._schema.arguments}
        if any(constants.get(flag) is True for flag in _FLAGS) or any(constants.get(each) for each in _PROBABILITIES):
            raise InputError(
                f"it was exported in training mode: `{name}` computes as in training; call `model.eval()` and export "
                "it again"
            )
        if torch.Tag.nondeterministic_seeded in operator.tags and names.isdisjoint((*_FLAGS, *_PROBABILITIES)):
            raise InputError(
                f"`{name}` draws random numbers, so that its outputs are others each time; export the model without it"
            )
