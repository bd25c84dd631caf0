"""TFLite's models, by its interpreter and by tf2onnx's reader of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf2onnx
from tensorflow.lite.python import schema_py_generated as schema

from act.errors import InputError, quoted
from act.formats._tensorflow.graph import OPSET, write_named
from act.formats._worker import Run
from act.samples.dataset import Array

# Operators of others that come with the interpreter and only compute.
_KNOWN = ("TFLite_Detection_PostProcess",)


def convert(files: Sequence[Path], target: Path) -> None:
    """Write the ONNX model of a file."""
    interpreter = _open(files[0])
    inputs = {each["name"]: each["name"] for each in interpreter.get_input_details()}
    outputs = {each["name"]: each["name"] for each in interpreter.get_output_details()}
    model, _ = tf2onnx.convert.from_tflite(str(files[0]), opset=OPSET)
    write_named(model, inputs, outputs, target)


def load(files: Sequence[Path]) -> Run:
    """Load a file into the interpreter."""
    interpreter = _open(files[0])

    def run(feeds: Mapping[str, Array]) -> list[Array]:
        for each in interpreter.get_input_details():
            if list(each["shape"]) != list(feeds[each["name"]].shape):
                interpreter.resize_tensor_input(each["index"], feeds[each["name"]].shape, strict=True)
        interpreter.allocate_tensors()
        for each in interpreter.get_input_details():
            interpreter.set_tensor(each["index"], feeds[each["name"]])
        interpreter.invoke()
        return [np.array(interpreter.get_tensor(each["index"])) for each in interpreter.get_output_details()]

    return run


def _open(path: Path) -> Any:
    """Return the interpreter with the model.

    Raises:
        InputError: the file is damaged, already quantized, or needs operators of others.
    """
    try:
        # Without delegates, one of which runs TensorFlow's operators, those that run Python included.
        interpreter = tf.lite.Interpreter(
            model_path=str(path),
            experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
    except (ValueError, RuntimeError) as error:
        raise InputError(f"is no model that TFLite can read ({error}); convert it again") from None
    # The interpreter has verified every offset.
    model = schema.Model.GetRootAs(bytearray(path.read_bytes()), 0)
    codes = [model.OperatorCodes(place).CustomCode() for place in range(model.OperatorCodesLength())]
    others = sorted({code.decode(errors="replace") for code in codes if code} - set(_KNOWN))
    if others:
        raise InputError(f"needs operators that TFLite itself has not ({quoted(others)}); convert it without them")
    if tensor := next(filter(_is_quantized, interpreter.get_tensor_details()), None):
        raise InputError(
            f"is quantized already (tensor `{tensor['name']}` is {np.dtype(tensor['dtype']).name}); give the model in "
            "floating point that it was made of"
        )
    names = [each["name"] for each in (*interpreter.get_input_details(), *interpreter.get_output_details())]
    if "" in names or len({*names}) < len(names):
        raise InputError(f"has inputs or outputs without a name of their own ({quoted(names)}); convert it again")
    try:
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise InputError(f"cannot be prepared by TFLite ({error}); convert it again") from None
    return interpreter


def _is_quantized(tensor: Mapping[str, Any]) -> bool:
    return np.dtype(tensor["dtype"]).kind in "iu" and len(tensor["quantization_parameters"]["scales"]) > 0
