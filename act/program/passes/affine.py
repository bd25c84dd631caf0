"""Scalars that a program multiplies by or adds, between its layers, folded into the weights and biases of the layers.

Networks with a learnable scale and shift behind each layer and each activation function, as PP-LCNetV3 in PP-OCRv4,
otherwise pay for two passes over every activation, on every engine that does not fuse them. A factor goes into the
layer before it, or into all layers behind it. A summand does so, too, but into layers behind it only where they do not
pad: the zeros around the border would need it as well. What depthwise convolutions read keeps its factor: calibration
makes one for each channel of it, where that helps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from act.program.model import InferenceModel

# Where a layer has its input and its weight, and the axis of the weight's output channels.
_LAYERS = {
    "conv2d": ("Input", "Filter", 0),
    "depthwise_conv2d": ("Input", "Filter", 0),
    "matmul_v2": ("X", "Y", 1),
    "mul": ("X", "Y", 1),
}
_SMALLEST_FACTOR = 1e-6


def fold_scalars(model: InferenceModel) -> int:
    """Fold what can be folded exactly; how many operators that took away."""
    before = len(model.ops)
    while any(_fold(model, op) for op in model.ops):
        pass
    return before - len(model.ops)


def _fold(model: InferenceModel, op: Any) -> bool:
    """Fold one operator, and take it away; False where it cannot be folded."""
    scalar = _scalar(model, op)
    if scalar is None:
        return False
    source, value, _ = scalar
    target = str(op.output("Out")[0])
    if target in model.fetch_names or _writers(model, target) != 1 or _writers(model, source) > 1:
        return False
    if op.type == "elementwise_mul":
        done = _scale_before(model, source, value) or _scale_behind(model, target, value)
    else:
        done = _shift_before(model, source, value) or _shift_behind(model, target, value)
    if done:
        for reader in model.ops:
            reader._rename_input(target, source)
        _remove(model, op)
    elif op.type == "elementwise_mul":
        return _swap(model, target, value)
    return done


def _scalar(model: InferenceModel, op: Any) -> tuple[str, float, str] | None:
    """The activation, the value and the name of the weight, where an operator scales or shifts by a scalar."""
    if op.type not in ("elementwise_mul", "elementwise_add"):
        return None
    names = [str(op.input(slot)[0]) for slot in ("X", "Y")]
    constant = [name for name in names if model.is_weight(name)]
    if len(constant) != 1 or len(set(names)) != 2:
        return None
    value = model.weight(constant[0])
    if value.size != 1 or value.dtype != np.float32 or len(value.shape) > len(_shape(model, op.output("Out")[0])):
        return None
    source = next(name for name in names if name != constant[0])
    if len(_shape(model, source)) != len(_shape(model, op.output("Out")[0])):
        return None
    return source, float(value.reshape(-1)[0]), constant[0]


def _scale_before(model: InferenceModel, source: str, factor: float) -> bool:
    found = _layer_before(model, source)
    if found is None:
        return False
    layer, bias = found
    _multiply(model, layer, factor)
    if bias is not None:
        model.set_weight(bias, (model.weight(bias).astype(np.float64) * factor).astype(np.float32))
    return True


def _shift_before(model: InferenceModel, source: str, summand: float) -> bool:
    found = _layer_before(model, source)
    if found is None or found[1] is None:
        return False
    model.set_weight(found[1], (model.weight(found[1]).astype(np.float64) + summand).astype(np.float32))
    return True


def _scale_behind(model: InferenceModel, target: str, factor: float) -> bool:
    layers = _layers_behind(model, target)
    if any(layer.type == "depthwise_conv2d" for layer in layers or []):
        return False
    for layer in layers or []:
        _multiply(model, layer, factor)
    return bool(layers)


def _shift_behind(model: InferenceModel, target: str, summand: float) -> bool:
    layers = _layers_behind(model, target) or []
    biases = [_bias_behind(model, layer) for layer in layers]
    if not layers or None in biases or any(_pads(layer) for layer in layers):
        return False
    for layer, bias in zip(layers, biases):
        _, slot, axis = _LAYERS[layer.type]
        weight = model.weight(layer.input(slot)[0]).astype(np.float64)
        sums = weight.sum(axis=tuple(each for each in range(weight.ndim) if each != axis))
        old: npt.NDArray[np.float32] = model.weight(str(bias))
        model.set_weight(str(bias), (old + (summand * sums).reshape(old.shape)).astype(np.float32))
    return True


def _swap(model: InferenceModel, target: str, factor: float) -> bool:
    """Scale after a shift that cannot be folded, where the scale then can: s x + b = s (x + b / s)."""
    readers = _readers(model, target)
    if len(readers) != 1 or readers[0].type != "elementwise_add" or abs(factor) < _SMALLEST_FACTOR:
        return False
    shift = _scalar(model, readers[0])
    result = str(readers[0].output("Out")[0])
    if shift is None or result in model.fetch_names or len(_readers(model, shift[2])) != 1:
        return False
    if not _scale_behind(model, result, factor):
        return False
    model.set_weight(shift[2], (model.weight(shift[2]) / np.float32(factor)).astype(np.float32))
    op = next(op for op in model.ops if target in op.output_arg_names)
    scaled = _scalar(model, op)
    assert scaled is not None
    readers[0]._rename_input(target, scaled[0])
    _remove(model, op)
    return True


def _layer_before(model: InferenceModel, name: str) -> tuple[Any, str | None] | None:
    """The layer that makes a tensor which one operator reads, and its bias where it has one."""
    maker = _only_maker(model, name)
    if maker is None:
        return None
    if maker.type == "elementwise_add":
        inner = str(maker.input("X")[0])
        layer, bias = _only_maker(model, inner), str(maker.input("Y")[0])
        own = model.is_weight(bias) and len(_readers(model, bias)) == 1
        if layer is None or not _is_layer(model, layer) or not own or not _is_bias(model, layer, bias):
            return None
        return layer, bias
    return (maker, None) if _is_layer(model, maker) else None


def _layers_behind(model: InferenceModel, name: str) -> list[Any] | None:
    """The operators that read a tensor, where all of them are layers and do so as their input."""
    readers = _readers(model, name)
    fit = [_is_layer(model, op) and str(op.input(_LAYERS[op.type][0])[0]) == name for op in readers]
    return readers if readers and all(fit) else None


def _bias_behind(model: InferenceModel, layer: Any) -> str | None:
    """The bias that is added to a layer's output, and to nothing else."""
    readers = _readers(model, layer.output_arg_names[0])
    if len(readers) != 1 or readers[0].type != "elementwise_add" or layer.output_arg_names[0] in model.fetch_names:
        return None
    bias = str(readers[0].input("Y")[0])
    own = model.is_weight(bias) and len(_readers(model, bias)) == 1
    return bias if own and _is_bias(model, layer, bias) else None


def _is_layer(model: InferenceModel, op: Any) -> bool:
    """Whether an operator multiplies an activation by a weight that is its own, with the channels where we look."""
    if op.type not in _LAYERS:
        return False
    _, slot, _ = _LAYERS[op.type]
    weight = str(op.input(slot)[0])
    if not model.is_weight(weight) or len(_readers(model, weight)) != 1 or model.weight(weight).dtype != np.float32:
        return False
    if op.type in ("matmul_v2", "mul"):
        turned = op.type == "matmul_v2" and (op.attr("trans_x") or op.attr("trans_y"))
        return not turned and model.weight(weight).ndim == 2
    biased = "Bias" in op.input_names and op.input("Bias")
    return op.attr("data_format") in ("NCHW", "AnyLayout") and not biased


def _is_bias(model: InferenceModel, layer: Any, name: str) -> bool:
    """Whether a weight has one value for each output channel of a layer."""
    weight = model.weight(layer.input(_LAYERS[layer.type][1])[0])
    return bool(model.weight(name).size == weight.shape[_LAYERS[layer.type][2]] > 1)


def _pads(layer: Any) -> bool:
    if layer.type in ("matmul_v2", "mul"):
        return False
    return layer.attr("padding_algorithm") == "SAME" or any(layer.attr("paddings"))


def _multiply(model: InferenceModel, layer: Any, factor: float) -> None:
    name = str(layer.input(_LAYERS[layer.type][1])[0])
    model.set_weight(name, (model.weight(name).astype(np.float64) * factor).astype(np.float32))


def _only_maker(model: InferenceModel, name: str) -> Any | None:
    """The operator that makes a tensor, when one makes it and one reads it."""
    makers = [op for op in model.ops if name in op.output_arg_names]
    alone = len(makers) == 1 and len(_readers(model, name)) == 1 and name not in model.fetch_names
    return makers[0] if alone else None


def _readers(model: InferenceModel, name: str) -> list[Any]:
    return [op for op in model.ops if name in op.input_arg_names]


def _writers(model: InferenceModel, name: str) -> int:
    return sum(name in op.output_arg_names for op in model.ops)


def _shape(model: InferenceModel, name: str) -> tuple[int, ...]:
    return tuple(model.program.global_block().var(name).shape)


def _remove(model: InferenceModel, op: Any) -> None:
    block = model.program.global_block()
    block._remove_op(next(index for index, other in enumerate(block.ops) if other.desc == op.desc))
