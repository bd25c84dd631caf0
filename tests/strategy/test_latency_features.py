"""What a kernel's latency is learned from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from act.strategy.latency.features import costs, features
from act.strategy.latency.kernel import Kernel, Tensor
from act.strategy.latency.model import LatencyModel, Measured
from tests.support.latency import convolution, networks


@pytest.mark.parametrize("operators", [("Conv",), ("Conv", "Add"), ("Conv", "HardSwish", "Mul", "Add")])
def test_names_of_folded_constants_are_no_work(operators: tuple[str, ...]) -> None:
    kernel = convolution(32, 32, 14)
    functions = tuple(name for name in operators if name == "HardSwish")
    named, plain = replace(kernel, operators=operators), replace(kernel, operators=functions)
    assert features(named) == features(plain) and costs(named) == costs(plain)


def test_functions_and_joined_inputs_are_work() -> None:
    kernel = convolution(32, 32, 14)
    kinds = [("Relu",), ("Clip",), ("LeakyRelu",), ("HardSwish",), ("Mul",), ()]
    told = {tuple(features(replace(kernel, operators=("Conv", *operators)))) for operators in kinds}
    assert len(told) == len(kinds)
    joined = replace(kernel, inputs=(*kernel.inputs, kernel.output), operators=("Conv", "Add"))
    assert features(joined) != features(replace(joined, operators=("Conv",)))
    # Only a maximum with zero costs nothing.
    assert costs(replace(kernel, operators=("Relu",))) == costs(replace(kernel, operators=()))
    assert costs(replace(kernel, operators=("Clip",))) != costs(replace(kernel, operators=()))


def test_groups_are_filled_one_by_one_and_gather_for_each() -> None:
    whole, grouped = convolution(64, 64, 14), convolution(64, 64, 14, group=16)
    assert costs(grouped)[3] == pytest.approx(costs(grouped)[2] * 4)  # 4 channels of 16 in a register
    assert costs(whole)[3] == pytest.approx(costs(whole)[2])
    assert costs(grouped)[8] == pytest.approx(16 * costs(whole)[8])


def test_a_few_of_a_kind_answer_by_their_own_rates() -> None:
    def resized(side: int, last: bool) -> tuple[Kernel, float]:
        before, after = ((1, n, n, 32) if last else (1, 32, n, n) for n in (side, 2 * side))
        kernel = Kernel("Resize", Tensor(after, "u8"), (Tensor(before, "u8"),), operators=("Resize",))
        return kernel, kernel.output.values * (1e-9 if last else 1e-10)

    seen = [resized(side, last) for side in (20, 30, 40) for last in (False, True)]
    others = [Measured("resized", 1e-2, seen), *networks(12)]
    model = LatencyModel(others, errors=())
    for last in (False, True):
        kernel, seconds = resized(35, last)
        (found,) = model.predict_kernels([kernel])
        assert found == pytest.approx(seconds, rel=0.1)
