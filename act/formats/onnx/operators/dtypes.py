"""Computing in dtypes that Paddle's kernels have: casts around operators that lack those of ONNX."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from act.formats.onnx.node import Node, Variable
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


def dtype_of(variable: Variable) -> str:
    """Return NumPy's name of a variable's dtype."""
    return DTYPES[variable.desc.dtype()]


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
