"""Detectors that choose their boxes themselves: with their tails put back they give the boxes of the given model.

Part of `python -m benchmarks.formats --models FOLDER`: the published YOLOv5n with `NonMaxSuppression` behind it, which
this writes, read, written anew in fp32 and put together again, on pictures of the folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

DETECTOR = "yolov5n.onnx"
PICTURES = 8
NEAREST_PIXELS = 0.5
ENGINES = ("onnxruntime", "openvino")
_NODES = """<ir_version: 8, opset_import: ["" : 13]> detector
    (float[N, R, C] output) => (int64[K, 3] chosen, float[K, 4] boxes)
    <int64[1] zero = {0}, int64[1] four = {4}, int64[1] five = {5}, int64[1] end = {1000}, int64[1] last = {2},
     int64[2] ends = {0, 2}, int64 most = {100}, float overlap = {0.45}, float least = {0.25}> {
    all_boxes = Slice (output, zero, four, last)
    sure = Slice (output, four, five, last)
    classes = Slice (output, five, end, last)
    scores = Mul (classes, sure)
    by_class = Transpose <perm = [0, 2, 1]> (scores)
    chosen = NonMaxSuppression <center_point_box = 1> (all_boxes, by_class, most, overlap, least)
    places = Gather <axis = 1> (chosen, ends)
    boxes = GatherND (all_boxes, places)
}"""


def write_with_nms(detector: Path, target: Path) -> None:
    """Write a detector whose output is [N, boxes, 5 + classes] with boxes chosen behind it."""
    import onnx

    model = onnx.load(detector)
    behind = onnx.parser.parse_model(_NODES)
    names = {"output": model.graph.output[0].name}
    for node in behind.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    model.graph.node.extend(behind.graph.node)
    model.graph.initializer.extend(behind.graph.initializer)
    del model.graph.output[:]
    model.graph.output.extend(behind.graph.output)
    onnx.save(model, target)


def compare(detector: Path, pictures: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return how many boxes the given model chooses, and of how many there is none near in ours, by engine."""
    import onnx

    from act.engines.process import EngineProcess
    from act.formats import SourceModel
    from act.onnx_graph.append import append
    from act.onnx_graph.conversion import to_onnx
    from act.samples.dataset import Samples
    from act.samples.readers import read
    from act.settings.data import settings_of_reader

    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        given, ours = scratch / "given.onnx", scratch / "ours.onnx"
        write_with_nms(detector, given)
        parts = SourceModel.find(given).split()
        assert parts.tail is not None
        onnx.save(append(to_onnx(parts.body), parts.tail.to_onnx(), [e.name for e in parts.tail.outputs]), ours)
        raw = {"reader": "image_folder", **pictures}
        settings = settings_of_reader(raw).model_validate({**raw, "path": str(folder / raw["path"])})
        samples, _ = read(settings, parts.body.feed_specs(), -1, scratch)
        places = []
        for index in range(min(PICTURES, len(samples))):
            places.append(scratch / f"sample{index}")
            one = {feed: type(ragged)(ragged[index].reshape(-1), ragged.shapes[index : index + 1])
                   for feed, ragged in samples.feeds.items()}  # fmt: skip
            Samples(one).save(places[-1])

        def boxes(engine: str, file: Path) -> list[tuple[Any, ...]]:
            with EngineProcess(engine, file, "fp32", 1) as process:
                process.load()
                return [tuple(process.tensors(place)) for place in places]

        wanted = boxes(ENGINES[0], given)
        found = {engine: boxes(engine, ours) for engine in ENGINES}
    return {
        "tail": parts.tail.operators,
        "boxes": sum(len(chosen) for chosen, _ in wanted),
        "lost": {engine: sum(map(_lost, wanted, each)) for engine, each in found.items()},
        "more": {engine: sum(map(_lost, each, wanted)) for engine, each in found.items()},
    }


def _lost(wanted: tuple[Any, ...], found: tuple[Any, ...]) -> int:
    """Count the boxes to which there is none of the same class near enough."""
    (chosen, boxes), (others, near) = wanted, found
    return sum(
        not ((others[:, 1] == row[1]) & (np.abs(near - box).max(axis=1) < NEAREST_PIXELS)).any()
        for row, box in zip(chosen, boxes)
    )
