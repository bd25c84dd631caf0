"""Which layers a trial's settings leave in float."""

from __future__ import annotations

from typing import Any

import pytest

from act.program.layers import quantizable_layers
from act.program.paddle_setup import paddle
from act.search.schemes import SchemeMaker
from tests.support.analyze_networks import conv, of
from tests.support.results import settings


def detector(x: Any) -> Any:
    x = conv(conv(conv(x, 4), 4), 4)
    heads = [conv(x, 3, 1), paddle.nn.functional.sigmoid(conv(conv(x, 4), 2, 1))]
    return paddle.concat([paddle.flatten(head, start_axis=2) for head in heads], axis=1)


@pytest.mark.parametrize(
    ("float_layers", "left"), [(0, []), (1, [1, 3, 5]), (2, [1, 2, 3, 5]), (4, [0, 1, 2, 3, 5]), (8, [0, 1, 2, 3, 5])]
)
def test_the_last_layers_stay_in_float_with_the_most_sensitive_ones(float_layers: int, left: list[int]) -> None:
    """Both heads go first, wherever they rank; one layer is quantized in any case."""
    model = of(detector, 3, 8, 8)
    layers = quantizable_layers(model)
    names = [layer.name for layer in layers]
    maker = SchemeMaker(model, layers, {}, {}, order=[names[place] for place in (1, 3, 2, 0, 4, 5)])
    chosen = maker.chosen(settings(float_layers=float_layers))
    assert [place for place, layer in enumerate(layers) if layer not in chosen] == left


def test_a_last_layer_of_many_classes_takes_its_place_by_sensitivity() -> None:
    """It holds most of the weights, which would be as large as before."""

    def classifier(x: Any) -> Any:
        return paddle.nn.functional.softmax(conv(conv(conv(x, 4), 4), 100, 1), axis=1)

    model = of(classifier, 3, 8, 8)
    layers = quantizable_layers(model)
    maker = SchemeMaker(model, layers, {}, {}, order=[layers[place].name for place in (1, 0, 2)])
    assert maker.chosen(settings(float_layers=1)) == [layers[0], layers[2]]
