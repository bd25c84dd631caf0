"""Kernels and measurements that are made up, with times that follow a known rule."""

from __future__ import annotations

import random

from act.strategy.latency.kernel import Kernel, Tensor
from act.strategy.latency.model import Measured


def convolution(before: int, after: int, side: int, window: int = 3, precision: str = "f32", group: int = 1) -> Kernel:
    return Kernel(
        "Convolution",
        Tensor((1, after, side, side), precision),
        (Tensor((1, before, side, side), precision),),
        ((after, before // group, window, window), (after,)),
        ("Conv", "Relu"),
        group,
        (1, 1),
        (window, window),
    )


def rule(kernel: Kernel) -> float:
    """Return seconds: a start of 2 us, 30 MACs a nanosecond (120 in int8), 10 bytes a nanosecond."""
    rate = 120e9 if kernel.computes_in == "int8" else 30e9
    moved = kernel.read_bytes + kernel.output.bytes + kernel.weight_bytes
    return 2e-6 + kernel.macs / rate + moved / 10e9


def networks(count: int, seed: int = 0) -> list[Measured]:
    """Draw networks of a few convolutions each, in fp32 and int8, with an overhead of 20 us, and of 1 % a kernel."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        sizes = [(rng.randrange(8, 512), rng.randrange(8, 512), rng.choice((7, 14, 28, 56))) for _ in range(8)]
        for precision in ("f32", "u8"):
            kernels = [convolution(*size, precision=precision) for size in sizes]
            times = [rule(kernel) for kernel in kernels]
            found.append(Measured(f"network {number}", 20e-6 + 1.01 * sum(times), list(zip(kernels, times))))
    return found
