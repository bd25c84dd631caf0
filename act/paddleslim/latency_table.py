"""Reading latency tables as PaddleSlim's ACT has them: a pickled dictionary from an operator's description to its ms.

A pickle can do anything, so that this one may only hold what a table needs: dictionaries, texts and numbers; whatever
asks for a class or a function is refused before it is made. The descriptions are those of PaddleSlim's
`analysis/parse_ops.py`, such as `conv2d in=(1, 3, 224, 224) weight=(32, 3, 3, 3) out=(1, 32, 112, 112) pad=1 stride=2
group=1 dilation=1 quant=False bit_length=None`.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, NoReturn

from act.errors import InputError
from act.strategy.latency.kernel import Kernel, Shape, Tensor

_MOST_BYTES = 1 << 28
_FIELD = re.compile(r"(\w+)=((?:\((?:-?\d+,? ?)*\))+|[^ ]+)")
_SHAPE = re.compile(r"\(([^)]*)\)")
_BITS = {"8": "i8", "16": "f16"}


class _PlainValues(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, which no table needs")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it refers to something outside itself")


def read_act_table(path: Path) -> list[tuple[Kernel, float]]:
    """Return the operators of a table with their seconds; those whose description tells no shape are left out.

    Raises:
        InputError: the file is missing or damaged, or holds anything but a table.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: larger than {_MOST_BYTES >> 20} MiB, which no latency table is")
        with path.open("rb") as file:
            table = _PlainValues(file).load()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the path of a table of PaddleSlim's") from None
    except (OSError, pickle.UnpicklingError, EOFError, ValueError, IndexError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: no latency table of PaddleSlim's: {error}; nothing of it was used") from None
    if not isinstance(table, dict) or not all(
        isinstance(key, str) and isinstance(value, (int, float)) and 0 <= value < 1e6 for key, value in table.items()
    ):
        raise InputError(f"{path}: no latency table of PaddleSlim's: it must map descriptions to milliseconds")
    found = [(_kernel(key), float(value) / 1e3) for key, value in table.items()]
    return [(kernel, seconds) for kernel, seconds in found if kernel is not None]


def _kernel(description: str) -> Kernel | None:
    kind, _, rest = description.partition(" ")
    fields = dict(_FIELD.findall(rest))
    outputs = _shapes(fields.get("out", ""))
    if not outputs:
        return None
    inputs = [shape for name in ("in", "X", "Y") for shape in _shapes(fields.get(name, ""))]
    weights = _shapes(fields.get("weight", ""))
    if kind in ("matmul", "matmul_v2") and len(inputs) == 2 and len(inputs[1]) == 2:
        weights = [inputs.pop()]
    precision = _BITS.get(fields.get("bit_length", ""), "f32")
    stride = _shape(fields, "stride")
    window = tuple(weights[0][2:]) if weights and len(weights[0]) == 4 else _window(fields)
    return Kernel(
        kind,
        Tensor(outputs[0], precision),
        tuple(Tensor(shape, precision) for shape in inputs),
        tuple(weights),
        (kind,),
        int(fields["group"]) if fields.get("group", "").isdigit() else None,
        stride * 2,
        window,
    )


def _shapes(text: str) -> list[Shape]:
    return [
        tuple(max(1, int(size)) for size in inside.replace(" ", "").split(",") if size)
        for inside in _SHAPE.findall(text)
    ]


def _shape(fields: dict[str, str], name: str) -> Shape:
    return (int(fields[name]),) if fields.get(name, "").isdigit() else ()


def _window(fields: dict[str, str]) -> Shape:
    return tuple(int(size) for size in fields.get("kernel", "").split("x") if size.isdigit())
