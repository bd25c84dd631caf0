"""Computing in dtypes that Paddle's kernels have: casts around operators that lack those of ONNX."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import onnx

from act.formats.onnx.node import HELD_AS, Node, Refused, Variable, dtype_of
from act.program.files import DTYPES
from act.program.paddle_setup import paddle

FLOATS = frozenset(("float32", "float64"))
NUMBERS = FLOATS | {"int32", "int64"}
"""What Paddle's arithmetic takes on the CPU."""
# What holds all values of a dtype, the narrowest first.
_WIDER = {
    "bool": ("int32", "float32"),
    "int8": ("int32", "float32"),
    "uint8": ("int32", "float32"),
    "int16": ("int32", "float32"),
    "int32": ("int64", "float64"),
    "int64": ("float64",),
}


def dtype_named(kind: int) -> str:
    """Return the dtype in which numbers of a dtype of ONNX, by its number, are held."""
    try:
        name = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).name
    except (KeyError, TypeError):
        name = str(kind)
    held = HELD_AS.get(name, name)
    if held not in DTYPES.values() or held == "uint16":
        known = onnx.TensorProto.DataType.Name(kind).lower() if kind in onnx.TensorProto.DataType.values() else name
        raise Refused(f"it makes {known}, which Paddle does not have; export the model in float32")
    return held


def cast(node: Node, variable: Variable, dtype: str) -> Variable:
    """Return a variable in a dtype; itself where it is of that."""
    before = dtype_of(variable)
    if before == dtype:
        return variable
    if before != "int8":
        return paddle.cast(variable, dtype)
    # Paddle has the kernel, but its Python function refuses the dtype.
    kinds = {name: kind for kind, name in DTYPES.items()}
    return node.graph.op("cast", {"X": [variable]}, {"in_dtype": kinds[before], "out_dtype": kinds[dtype]}, dtype)


def computed(
    node: Node,
    function: Callable[..., Variable],
    operands: Sequence[Variable],
    dtypes: Collection[str] = FLOATS,
) -> Variable:
    """Return a function of variables of one dtype, in that dtype.

    It is computed in a wider one where `dtypes`, which the function takes, lack it; whole numbers wrap around and
    fractions are cut off on the way back, as ONNX has it.
    """
    dtype = dtype_of(operands[0])
    if dtype not in dtypes:
        wider = next(each for each in _WIDER.get(dtype, ("float64",)) if each in dtypes)
        operands = [cast(node, each, wider) for each in operands]
    return cast(node, function(*operands), dtype)
