"""Programs in which boxes are chosen (`multiclass_nms3`) as ONNX: those of each picture, in Paddle's order.

Paddle2ONNX writes that operator for one picture at a time, and in another order.

Paddle chooses by class: the `nms_top_k` best of those above a score, of which none overlaps a better one too much; then
the `keep_top_k` best of a picture, in the order of their classes and scores. ONNX's `NonMaxSuppression` does the second
of these, for the classes of all pictures at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from graphlib import TopologicalSorter
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

from act.errors import InputError
from act.onnx_graph.conversion import OPSET, to_onnx
from act.onnx_graph.nested import graphs_of, nodes_of
from act.program.model import InferenceModel
from act.program.parts import part
from act.samples.dataset import FeedSpec

KIND = "multiclass_nms3"
# Scores behind the best, and those of the background, get this one, which is below every threshold.
_LOWEST = -1e30
_MOST = 2**20
_WITHOUT_BACKGROUND = """
    classes = Range (zero, class_count, one)
    is_background = Equal (classes, background)
    column = Unsqueeze (is_background, last)
    judged = Where (column, lowest, scores)
"""
_BEST_OF_CLASS = """
    best = Min (box_count, nms_top_k)
    best_scores, best_places = TopK <axis = 2> (judged, best)
    nothing = Expand (lowest, lengths)
    candidates = ScatterElements <axis = 2> (nothing, best_places, best_scores)
"""
_CHOOSE = """
    found = NonMaxSuppression (edges, candidates, most, overlap, threshold)
"""
# The rank of each among those of its picture, by counting along all in the order of their scores.
_BEST_OF_PICTURE = """
    found_scores = GatherND (scores, found)
    found_shape = Shape (found)
    found_count = Slice (found_shape, first, last)
    ordered_scores, order = TopK (found_scores, found_count)
    found_pictures = Gather <axis = 1> (found, zero)
    ordered_pictures = Gather (found_pictures, order)
    ordered_column = Unsqueeze (ordered_pictures, last)
    is_ordered_in = Equal (ordered_column, pictures)
    ordered_in = Cast <to = 7> (is_ordered_in)
    counted = CumSum (ordered_in, zero)
    counted_in = Mul (counted, ordered_in)
    rank = ReduceSum <keepdims = 0> (counted_in, last)
    is_kept = LessOrEqual (rank, keep_top_k)
    kept_order = Compress <axis = 0> (order, is_kept)
    kept_count = Shape (kept_order)
    places, unused = TopK <largest = 0> (kept_order, kept_count)
    chosen = Gather (found, places)
"""
_WRITE = """
    chosen_pictures, chosen_classes, chosen_boxes = Split <axis = 1> (chosen)
    label = Cast <to = 1> (chosen_classes)
    chosen_scores = GatherND (scores, chosen)
    score = Unsqueeze (chosen_scores, last)
    where = Concat <axis = 1> (chosen_pictures, chosen_boxes)
    corners = GatherND (boxes, where)
    out = Concat <axis = 1> (label, score, corners)
    first_box = Mul (chosen_pictures, box_count)
    place = Add (first_box, chosen_boxes)
    index = Cast <to = 6> (place)
    is_chosen_in = Equal (chosen_pictures, pictures)
    chosen_in = Cast <to = 7> (is_chosen_in)
    total = ReduceSum <keepdims = 0> (chosen_in, first)
    counts = Cast <to = 6> (total)
"""


@dataclass(frozen=True)
class MulticlassNms:
    """The attributes of the operator, by Paddle's names; a `_top_k` of -1 is as many as there are."""

    score_threshold: float
    nms_top_k: int
    keep_top_k: int
    nms_threshold: float
    normalized: bool
    background_label: int

    def to_onnx(self) -> onnx.ModelProto:
        """Return a model of `boxes`, float [N, M, 4], and `scores`, float [N, C, M], as Paddle's operator has them.

        Its outputs are `out`, float [K, 6], of class, score and corners; `index`, int32 [K, 1], of each box among those
        of all pictures; `counts`, int32 [N]. Without `normalized` lengths count their last pixel, and boxes that touch
        within that pixel overlap, which to Paddle they do not.
        """
        text = f"""<ir_version: 8, opset_import: ["" : {OPSET}]>
            multiclass_nms (float[N, M, 4] boxes, float[N, C, M] scores)
            => (float[K, 6] out, int32[K, 1] index, int32[N] counts) {{
            lengths = Shape (scores)
            picture_count = Gather (lengths, zero)
            class_count = Gather (lengths, one)
            box_count = Slice (lengths, two_long, three_long)
            pictures = Range (zero, picture_count, one)
            {_WITHOUT_BACKGROUND if self.background_label >= 0 else "judged = Identity (scores)"}
            {_BEST_OF_CLASS if self.nms_top_k >= 0 else "candidates = Identity (judged)"}
            {"edges = Identity (boxes)" if self.normalized else "edges = Add (boxes, pixel)"}
            {_CHOOSE}
            {_BEST_OF_PICTURE if self.keep_top_k >= 0 else "chosen = Identity (found)"}
            {_WRITE} }}"""
        model = parser.parse_model(text)
        used = {name for node in model.graph.node for name in node.input}
        constants = {name: value for name, value in self._constants().items() if name in used}
        model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
        return model

    def _constants(self) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
        whole = {"zero": 0, "one": 1, "background": self.background_label}
        lists = {"first": 0, "last": 1, "two_long": 2, "three_long": 3, "most": _MOST}
        lists |= {"nms_top_k": self.nms_top_k, "keep_top_k": self.keep_top_k}
        real = {"overlap": self.nms_threshold, "threshold": self.score_threshold, "lowest": _LOWEST}
        return {
            **{name: np.array(value, np.int64) for name, value in whole.items()},
            **{name: np.array([value], np.int64) for name, value in lists.items()},
            **{name: np.array(value, np.float32) for name, value in real.items()},
            "pixel": np.array([0, 0, 1, 1], np.float32),
        }


def convert(program: InferenceModel) -> onnx.ModelProto:
    """Convert a program to ONNX, `multiclass_nms3` in it by what stands here and the rest by Paddle2ONNX.

    Raises:
        InputError: boxes are chosen in a way that ONNX has no operators for.
        NotConvertible: Paddle2ONNX does not take the rest.
    """
    chosen = {number: op for number, op in enumerate(program.ops) if op.type == KIND}
    parts = [_choice(program, number, op) for number, op in chosen.items()]
    rest = [number for number in range(len(program.ops)) if number not in chosen]
    if rest:
        made = {name for op in chosen.values() for name in op.output_arg_names}
        produced = {name for number in rest for name in program.ops[number].output_arg_names}
        read = [name for op in chosen.values() for name in op.input_arg_names]
        outputs = [name for name in dict.fromkeys([*program.fetch_names, *read]) if name in produced]
        inputs = [*program.feed_names, *sorted(made - set(program.feed_names))]
        parts.append(to_onnx(part(program, rest, inputs, outputs)).graph)
    nodes = _in_order([node for each in parts for node in each.node])
    graph = helper.make_graph(
        nodes,
        "tail",
        [_end(each) for each in program.feed_specs()],
        [_end(each) for each in program.fetch_specs()],
        [constant for each in parts for constant in each.initializer],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def _choice(program: InferenceModel, number: int, op: Any) -> onnx.GraphProto:
    """Return the operators that stand for one of Paddle's; tensors that are not Paddle's are named by its number."""
    if op.input("RoisNum") or len(program.shape(op.input("Scores")[0])) != len(("picture", "class", "box")):
        raise InputError(f"`{KIND}` chooses among boxes of different numbers, for which ONNX has no operator")
    if program.shape(op.input("BBoxes")[0])[-1] != len(("left", "top", "right", "bottom")):
        raise InputError(f"`{KIND}` chooses among boxes of more than two corners, for which ONNX has no operator")
    if op.attr("nms_eta") < 1:
        raise InputError(f"`{KIND}` lowers its threshold as it goes (`nms_eta`), for which ONNX has no operator")
    graph = MulticlassNms(*(op.attr(each.name) for each in fields(MulticlassNms))).to_onnx().graph
    slots = {"out": "Out", "index": "Index", "counts": "NmsRoisNum"}
    names = {mine: op.output(slot)[0] for mine, slot in slots.items() if op.output(slot)}
    names |= {"boxes": op.input("BBoxes")[0], "scores": op.input("Scores")[0]}
    _rename(graph, names, f"{KIND}.{number}/")
    return graph


def _rename(graph: onnx.GraphProto, names: Mapping[str, str], prefix: str) -> None:
    for node in graph.node:
        node.input[:] = [names.get(name, f"{prefix}{name}") for name in node.input]
        node.output[:] = [names.get(name, f"{prefix}{name}") for name in node.output]
    for constant in graph.initializer:
        constant.name = f"{prefix}{constant.name}"


def _in_order(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return nodes in an order in which each stands behind those that it reads, from graphs inside it too."""
    producers = {name: number for number, node in enumerate(nodes) for name in node.output}
    reads = {
        number: {
            producers[name]
            for each in (node, *(inner for graph in graphs_of(node) for inner in nodes_of(graph)))
            for name in each.input
            if name in producers
        }
        for number, node in enumerate(nodes)
    }
    return [nodes[number] for number in TopologicalSorter(reads).static_order()]


def _end(spec: FeedSpec) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
    return helper.make_tensor_value_info(spec.name, kind, [None if length < 0 else length for length in spec.shape])
