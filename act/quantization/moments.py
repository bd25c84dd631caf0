"""The second moments of what each layer multiplies its weight with, gathered in one pass over the samples.

A convolution multiplies its weight with patches of its input; their moments are those of one group's patch. Positions
are drawn at random, the same ones every time, so that a large picture costs no more than a small one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from act.program.layers import Layer
from act.program.model import InferenceModel
from act.samples.dataset import Array

POSITIONS = 1024
"""Positions of each layer's output that are looked at in each batch, at most."""
LARGEST = 4608
"""Values in a patch (3 x 3 x 512) above which a layer is left out: its moments would fill gigabytes."""

Floats = npt.NDArray[np.float64]
Read = Callable[[Mapping[str, Array]], Mapping[str, Array]]


@dataclass
class Moments:
    """How many patches of one layer were seen, and by group what they and their outer products add up to.

    `sums` is float64 [groups, values], `products` float64 [groups, values, values].
    """

    count: int
    sums: Floats
    products: Floats


def gather(
    model: InferenceModel, layers: Sequence[Layer], read: Read, batches: Iterable[Mapping[str, Array]]
) -> dict[str, Moments]:
    """Return the moments of every layer that is not too large, by its name; `read` gives what layers read, by name."""
    shapes = {layer.name: model.shape(layer.weight) for layer in layers}
    able = [layer for layer in layers if layer.op_type != "conv2d_transpose"]  # its patches depend on the position
    measured = [layer for layer in able if np.prod(shapes[layer.name]) / shapes[layer.name][layer.axis] <= LARGEST]
    moments: dict[str, Moments] = {}
    rng = np.random.default_rng(0)
    for batch in batches:
        values = read(batch)
        for layer in measured:
            rows = patches(values[layer.activation], model.producer(layer.name), shapes[layer.name], rng)
            total = moments.get(layer.name) or Moments(0, np.zeros(1), np.zeros(1))
            products = np.matmul(rows.transpose(0, 2, 1), rows).astype(np.float64)
            sums = rows.sum(axis=1, dtype=np.float64)
            moments[layer.name] = Moments(total.count + rows.shape[1], total.sums + sums, total.products + products)
    return moments


def patches(
    values: npt.NDArray[np.float32], op: Any, shape: tuple[int, ...], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Return what some output positions multiply the weight of a group with: [groups, positions, values].

    Args:
        values: the layer's activation: [N, C, H, W] of a convolution, [..., values] of a matrix product.
        op: Paddle's operator.
        shape: of its weight.
        rng: chooses the positions where there are too many.
    """
    if op.type not in ("conv2d", "depthwise_conv2d"):
        rows = values.reshape(-1, shape[0])
        return rows[_some(len(rows), rng)][None]
    strides, dilations, groups = op.attr("strides"), op.attr("dilations"), op.attr("groups")
    extent = [(size - 1) * dilation + 1 for size, dilation in zip(shape[2:], dilations)]
    padded = np.pad(values, ((0, 0), (0, 0), *_paddings(op, values.shape[2:], extent, strides)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, tuple(extent), (2, 3))  # type: ignore[call-overload]
    windows = windows[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    samples, _, height, width = windows.shape[:4]
    sample, row, column = np.unravel_index(_some(samples * height * width, rng), (samples, height, width))
    chosen = windows[sample, :, row, column]  # [positions, C, kernel height, kernel width]
    return np.ascontiguousarray(chosen.reshape(len(chosen), groups, -1).transpose(1, 0, 2))


def _some(count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    if count <= POSITIONS:
        return np.arange(count)
    return np.sort(rng.choice(count, POSITIONS, replace=False))


def _paddings(op: Any, size: Sequence[int], extent: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """Return the padding before and after the height and the width, as Paddle pads."""
    if op.attr("padding_algorithm") == "VALID":
        return [(0, 0), (0, 0)]
    if op.attr("padding_algorithm") == "SAME":
        totals = [max((-(-n // s) - 1) * s + e - n, 0) for n, e, s in zip(size, extent, strides)]
        return [(total // 2, total - total // 2) for total in totals]
    given = np.repeat(op.attr("paddings"), 4 // len(op.attr("paddings")))
    return [(given[0], given[1]), (given[2], given[3])]
