"""Which kernels Paddle Lite chose, read from the `.nb` files that it writes.

A file holds for each instruction the name of its kernel, as `operator/alias/target/precision/layout`, with numbers for
the last three (Paddle Lite 2.13, `lite/api/paddle_place.h`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from act.engines.base import count_kernels

_KERNEL = re.compile(rb"([a-z][a-z0-9_]*)/[A-Za-z0-9_]+/\d+/(\d+)/\d+")
_MULTIPLYING = (
    *("conv2d", "depthwise_conv2d", "conv2d_transpose", "depthwise_conv2d_transpose"),
    *("fc", "mul", "matmul", "matmul_v2"),
)
# `calib` converts between precisions in each run, `calib_once` weights as the model is loaded.
_CONVERSIONS = ("calib", "calib_once")
_PRECISIONS = {b"1": "fp32", b"2": "int8", b"5": "fp16"}


def read_kernels(file: Path) -> dict[str, dict[str, Any]]:
    """Return what a `.nb` file will execute, as `act.engines.Engine.operators` gives it."""
    found = _KERNEL.findall(file.read_bytes())
    told = ((name.decode(), _PRECISIONS.get(number, f"precision {number.decode()}")) for name, number in found)
    return count_kernels(told, _MULTIPLYING, _CONVERSIONS)
