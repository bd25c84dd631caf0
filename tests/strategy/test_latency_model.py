"""The learned model, on measurements that follow a known rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from act.strategy.latency.kernel import Kernel, Tensor
from act.strategy.latency.model import FOLDS, LatencyModel, Measured, cross_predict, kind_of, predict_svr
from tests.support.latency import convolution, networks, rule


def test_what_was_measured_answers_from_the_table() -> None:
    measured = networks(6)
    model = LatencyModel(measured, errors=())
    network = measured[0]
    for found, (_, seconds) in zip(model.predict_kernels([kernel for kernel, _ in network.kernels]), network.kernels):
        assert found == pytest.approx(seconds)


def test_a_measurement_answers_for_networks_of_about_the_same_size_only() -> None:
    large, small = convolution(512, 512, 14), convolution(8, 8, 14)
    model = LatencyModel([*networks(6), Measured("alone", 1e-3, [(large, 7e-4), (small, 1e-5)])], errors=())

    def ratio(*others: Kernel) -> float:
        first, second, *_ = model.predict_kernels([large, small, *others])
        return first / second

    assert ratio() == ratio(convolution(8, 8, 7)) == pytest.approx(70)
    # What it has in weights, and what it makes on the way.
    assert ratio(*[convolution(512, 512, 7)] * 20) != pytest.approx(70)
    assert ratio(*[convolution(8, 64, 112)] * 20) != pytest.approx(70)


def test_the_rule_is_found_for_kernels_and_for_whole_networks() -> None:
    model = LatencyModel(networks(40), errors=())
    for precision in ("f32", "u8"):
        kernels = [convolution(n, m, 14, precision=precision) for n, m in ((96, 160), (200, 333), (400, 64))]
        for kernel, found in zip(kernels, model.predict_kernels(kernels)):
            assert found == pytest.approx(rule(kernel), rel=0.1)
        whole = model.predict(kernels)
        wanted = 20e-6 + 1.01 * sum(rule(kernel) for kernel in kernels)
        assert whole.seconds == pytest.approx(wanted, rel=0.1)
    for network, predicted in cross_predict(networks(30)):
        assert predicted.seconds == pytest.approx(network.seconds, rel=0.1)


def test_kernels_that_were_counted_in_a_disturbed_moment_come_to_the_whole() -> None:
    measured = networks(30)
    disturbed = [
        replace(
            each, kernels=[(kernel, seconds * (1.25 if place % 3 == 0 else 1.0)) for kernel, seconds in each.kernels]
        )
        for place, each in enumerate(measured)
    ]
    model = LatencyModel(disturbed, errors=())
    found = [
        part / seconds
        for network in measured
        for part, (_, seconds) in zip(model.predict_kernels([k for k, _ in network.kernels]), network.kernels)
    ]
    assert np.quantile(found, 0.9) < 1.12


def test_networks_are_predicted_by_models_that_did_not_see_them() -> None:
    measured = networks(10)
    predicted = {network.name: (network, prediction) for network, prediction in cross_predict(measured)}
    assert len(predicted) == 10
    network, prediction = predicted["network 3"]
    out = {f"network {number}" for number in range(3, 10, FOLDS)}
    others = LatencyModel([each for each in measured if each.name not in out], errors=())
    assert prediction == others.predict([kernel for kernel, _ in network.kernels])


def test_the_error_bar_comes_from_what_was_left_out() -> None:
    errors = [float(each) for each in np.linspace(-0.2, 0.2, 41)]
    found = LatencyModel(networks(5), errors=errors).predict([convolution(64, 64, 14)])
    assert found.high / found.seconds == pytest.approx(np.exp(0.18), rel=0.02)
    assert found.low < found.seconds < found.high


def test_a_kind_that_was_never_seen_gets_an_answer() -> None:
    odd = Kernel("Softmax", Tensor((1, 10), "f32"), (Tensor((1, 10), "f32"),))
    assert LatencyModel(networks(5), errors=()).predict([odd]).seconds > 0


def test_the_same_table_gives_the_same_answers() -> None:
    kernels = [convolution(77, 55, 28), convolution(77, 55, 28, precision="u8")]
    one, other = (LatencyModel(networks(12), errors=()).predict(kernels).seconds for _ in range(2))
    assert one == other


def test_the_quick_way_gives_what_scikit_learn_gives() -> None:
    model = LatencyModel(networks(20), errors=())
    kernels = [convolution(n, m, 14) for n, m in ((96, 160), (200, 333), (400, 64))]
    _, machine, *_ = model.kinds[kind_of(kernels[0])].fitted
    table = np.array([each.features for each in model.in_network(kernels)])
    np.testing.assert_allclose(predict_svr(machine, table), machine.predict(table), rtol=1e-6, atol=1e-9)
