"""What ONNX asks of a node: its inputs, and attributes of the right type and with values that it gives a meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx

from act.formats.onnx.node import Refused

_FLAGS = """
    align_corners allowzero antialias ceil_mode center_point_box count_include_pad detect_negative detect_positive
    exclude_outside exclusive fmod input_forget interleaved is_causal keepdims largest layout linear_before_reset
    noop_with_empty_axes reverse saturate select_last_index sorted spatial storage_order training_mode transA transB
    upper
"""
_COUNTS = """
    blocksize dilations group hidden_size kernel_shape kv_num_heads num_groups num_outputs offset_group
    output_height output_width p q_num_heads size strides
"""
_LEAST: Mapping[str, int] = {**dict.fromkeys(_FLAGS.split(), 0), **dict.fromkeys(_COUNTS.split(), 1)}
# Of what is on or off, runtimes differ in what they make of other numbers.
_MOST: Mapping[str, int] = dict.fromkeys(_FLAGS.split(), 1)
# By attribute, or by operator and attribute where that means something else in others.
_TEXTS: Mapping[str, frozenset[str]] = {
    name: frozenset(texts.split())
    for name, texts in {
        "approximate": "none tanh",
        "auto_pad": "NOTSET SAME_UPPER SAME_LOWER VALID",
        "BitShift.direction": "LEFT RIGHT",
        "direction": "forward reverse bidirectional",
        "keep_aspect_ratio_policy": "stretch not_larger not_smaller",
        "DepthToSpace.mode": "DCR CRD",
        "GridSample.mode": "bilinear nearest bicubic linear cubic",
        "Pad.mode": "constant reflect edge wrap",
        "Resize.mode": "nearest linear cubic",
        "RoiAlign.mode": "avg max",
        "Upsample.mode": "nearest linear bilinear",
        "nearest_mode": "floor ceil round_prefer_floor round_prefer_ceil",
        "padding_mode": "zeros border reflection",
        "reduction": "none add mul max min",
        "Resize.coordinate_transformation_mode": "asymmetric half_pixel pytorch_half_pixel half_pixel_symmetric "
        "align_corners tf_half_pixel_for_nn tf_crop_and_resize",
        "RoiAlign.coordinate_transformation_mode": "half_pixel output_half_pixel",
    }.items()
}
_CURE = "export the model again"


def check(node: onnx.NodeProto, version: int) -> None:
    """Refuse a node that is not as its version of the operator has it; operators that ONNX lacks are not looked at."""
    try:
        domain = "" if node.domain == "ai.onnx" else node.domain
        schema = onnx.defs.get_schema(node.op_type, version, domain)
    except onnx.defs.SchemaError:
        return
    for index, formal in enumerate(schema.inputs):
        is_single = formal.option == onnx.defs.OpSchema.FormalParameterOption.Single
        is_there = index < len(node.input) and (node.input[index] or not is_single)
        if not is_there and (is_single or index < schema.min_input):
            raise Refused(f"it lacks its input {formal.name}, which this opset needs; {_CURE}")
    attributes = {each.name: each for each in node.attribute}
    for name, wanted in schema.attributes.items():
        found = attributes.get(name)
        if found is None:
            if wanted.required:
                raise Refused(f"it lacks its attribute {name}, which this opset needs; {_CURE}")
            continue
        if found.type != wanted.type.value:
            raise Refused(f"its attribute {name} is not of the type that this opset needs; {_CURE}")
        _check_value(node.op_type, name, onnx.helper.get_attribute_value(found))


def _check_value(kind: str, name: str, value: Any) -> None:
    if isinstance(value, bytes):
        text, allowed = value.decode(errors="replace"), _TEXTS.get(f"{kind}.{name}", _TEXTS.get(name))
        if allowed is not None and text not in allowed:
            raise Refused(f"its attribute {name} is `{text[:50]}`, not one of {', '.join(sorted(allowed))}; {_CURE}")
    elif name in _LEAST:
        numbers, least, most = value if isinstance(value, list) else [value], _LEAST[name], _MOST.get(name)
        if any(each < least or (most is not None and each > most) for each in numbers):
            cause = f"neither {least} nor {most}" if most is not None else f"less than {least}"
            raise Refused(f"its attribute {name} is {value}, {cause}; {_CURE}")
