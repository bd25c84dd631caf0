"""Sampling at places that are computed: the places between elements and outside of the image, too."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from tests.formats.onnx.support import assert_same, model_of, values


@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_a_grid_is_sampled(mode: str, padding: str, aligned: int) -> None:
    node = helper.make_node("GridSample", ["x", "g"], ["y"], mode=mode, padding_mode=padding, align_corners=aligned)
    feeds = {"x": values(2, 3, 5, 6), "g": 1.3 * values(2, 4, 7, 2, seed=1)}
    proto = model_of([node], {"x": ("n", 3, 5, 6), "g": ("n", "a", "b", 2)}, ["y"], opset=16)
    assert_same(proto, feeds, 1e-4)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_halves_and_volumes_are_sampled(mode: str) -> None:
    node = helper.make_node("GridSample", ["x", "g"], ["y"], mode=mode, align_corners=1)
    line = np.linspace(-1.5, 1.5, 13, dtype=np.float32)
    grid = np.stack(np.meshgrid(line, line), axis=-1)[None]
    assert_same(
        model_of([node], {"x": (1, 3, 5, 7), "g": grid.shape}, ["y"], opset=20), {"x": values(1, 3, 5, 7), "g": grid}
    )
    feeds = {"x": values(1, 3, 5, 7, 4), "g": values(1, 2, 3, 4, 3, seed=1)}
    assert_same(model_of([node], {name: value.shape for name, value in feeds.items()}, ["y"], opset=20), feeds, 1e-4)


@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 3, 4, 5, 6)])
def test_a_grid_is_made_of_a_matrix(size: tuple[int, ...], aligned: int) -> None:
    node = helper.make_node("AffineGrid", ["t", "s"], ["y"], align_corners=aligned)
    axes = len(size) - 2
    proto = model_of([node], {"t": ("n", axes, axes + 1)}, ["y"], {"s": np.array(size, np.int64)}, 20)
    assert_same(proto, {"t": values(2, axes, axes + 1)})


@pytest.mark.parametrize(("opset", "images"), [(10, (0, 0, 0)), (16, (0, 0, 0)), (16, (1, 0, 1))])
def test_boxes_are_cut_out_of_their_images(opset: int, images: tuple[int, ...]) -> None:
    node = helper.make_node(
        "RoiAlign", ["x", "r", "i"], ["y"], output_height=3, output_width=2, sampling_ratio=2, spatial_scale=0.9
    )
    # The last one is narrower than an element, and then as wide as one, as in opset 10 alone.
    boxes = np.array([[0, 0, 5, 5], [1, 2, 7, 6], [3, 3, 4 if opset == 10 else 5, 8]], np.float32)
    count = 1 + max(images)
    proto = model_of(
        [node], {"x": (count, 3, "h", "w"), "r": ("k", 4), "i": ("k",)}, ["y"], opset=opset, types={"i": 7}
    )
    assert_same(proto, {"x": values(count, 3, 10, 10), "r": boxes, "i": np.array(images, np.int64)})
