"""What is told of kernels, and kernels with fewer channels."""

from __future__ import annotations

import itertools

import pytest

from act.strategy.latency.kernel import Kernel, Tensor, _met
from act.strategy.latency.scale_channels import scale_channels, scale_to_macs
from tests.support.latency import convolution


def test_a_kernel_survives_being_written() -> None:
    kernel = convolution(64, 128, 28)
    assert Kernel.of(kernel.to_json()) == kernel
    assert kernel != convolution(64, 128, 14)


def test_blocks_of_channels_and_the_precision_that_is_made_survive_being_written() -> None:
    told = {**convolution(64, 64, 28).to_json(), "precision": "u8", "makes": "f32"}
    told["attributes"] |= {"blocked": 1}
    kernel = Kernel.of(told)
    assert kernel.blocked and kernel.output.precision == "f32"
    assert Kernel.of(kernel.to_json()) == kernel


def test_macs_of_convolutions_and_products() -> None:
    assert convolution(64, 128, 28).macs == 128 * 28 * 28 * 64 * 9
    assert convolution(64, 64, 28, group=64).macs == 64 * 28 * 28 * 9
    product = Kernel("Gemm", Tensor((1, 1000), "f32"), (Tensor((1, 512), "f32"),), ((512, 1000), (1000,)))
    assert product.macs == 512 * 1000
    attention = Kernel(
        "Subgraph",
        Tensor((1, 8, 40, 15), "f32"),
        (Tensor((1, 8, 40, 15), "f32"),) * 3,
        operators=("MatMul", "Softmax", "MatMul"),
    )
    assert attention.macs == 2 * 8 * 40 * 40 * 15


def test_taps_that_only_meet_padding_are_no_work() -> None:
    assert convolution(64, 64, 7).met == (pytest.approx((19 / 21) ** 2), 1.0)
    assert convolution(64, 64, 1).met == (pytest.approx(1 / 9), pytest.approx(1 / 9))
    assert convolution(64, 64, 2).met == (pytest.approx((2 / 3) ** 2), 1.0)
    assert Kernel("Gemm", Tensor((1, 10), "f32"), (Tensor((1, 5), "f32"),), ((5, 10),)).met == (1.0, 1.0)
    halved = Kernel(
        "Convolution",
        Tensor((1, 64, 4, 4), "f32"),
        (Tensor((1, 64, 8, 8), "f32"),),
        ((64, 64, 3, 3), (64,)),
    )
    assert halved.met == (pytest.approx((11 / 12) ** 2), 1.0)


@pytest.mark.parametrize("taps", [1, 2, 3, 5, 7])
@pytest.mark.parametrize(("read", "made"), [(1, 1), (2, 2), (7, 7), (8, 4), (15, 8), (224, 112), (9, 3), (10, 8)])
def test_taps_are_counted_as_one_by_one(read: int, made: int, taps: int) -> None:
    stride = max(1, round(read / made))
    padding = max(0, (made - 1) * stride + taps - read) // 2
    inside = [[0 <= place * stride - padding + tap < read for tap in range(taps)] for place in range(made)]
    assert _met(read, made, taps) == (sum(map(sum, inside)) / made, max(1, sum(map(any, zip(*inside)))))


def test_openvino_tells_groups_by_the_weight() -> None:
    kernel = Kernel(
        "Convolution",
        Tensor((1, 64, 28, 28), "f32"),
        (Tensor((1, 64, 28, 28), "f32"),),
        ((64, 1, 1, 5, 5), (64,)),
    )
    assert kernel.groups == 64 and kernel.taps == 25 and kernel.macs == 64 * 28 * 28 * 25


def test_integers_are_smaller_and_named_int8() -> None:
    whole, small = convolution(32, 32, 8), convolution(32, 32, 8, precision="u8")
    assert (whole.computes_in, small.computes_in) == ("f32", "int8")
    assert whole.weight_bytes == 4 * small.weight_bytes and whole.read_bytes == 4 * small.read_bytes


@pytest.mark.parametrize("share", [0.75, 0.5, 0.3, 0.1])
def test_fewer_channels_leave_the_share_that_is_asked_for(share: float) -> None:
    kernels = [convolution(3, 64, 56)] + [convolution(n, m, 28) for n, m in ((64, 128), (128, 256), (256, 256))]
    kernels.append(Kernel("Gemm", Tensor((1, 1000), "f32"), (Tensor((1, 256), "f32"),), ((1000, 256), (1000,))))
    smaller = scale_to_macs(kernels, share)
    left = sum(kernel.macs for kernel in smaller) / sum(kernel.macs for kernel in kernels)
    assert left == pytest.approx(share, abs=0.08) and left >= share
    # The ends of the model stay, and what one makes the next one reads.
    assert smaller[0].inputs[0].shape == (1, 3, 56, 56) and smaller[-1].output.shape == (1, 1000)
    for one, after in itertools.pairwise(smaller):
        assert one.output.shape[1] == after.inputs[0].shape[1]
        assert after.weights[0][1] == after.inputs[0].shape[1]
    assert scale_channels(kernels, 1.0) == kernels


def test_depthwise_groups_follow_their_channels() -> None:
    depthwise, last = scale_channels([convolution(128, 128, 14, group=128), convolution(128, 64, 14, 1)], 0.5)
    assert depthwise.groups == 64 and depthwise.output.shape[1] == 64 and depthwise.weights[0] == (64, 1, 3, 3)
    assert last.inputs[0].shape[1] == 64 and last.output.shape[1] == 64
