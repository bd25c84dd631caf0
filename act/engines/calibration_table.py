"""`calibration_table.txt`, as ACT wrote it: one line `tensor_name scale` for each quantized activation."""

from __future__ import annotations

from pathlib import Path

from act.quantization.scheme import Scheme


def write(scheme: Scheme, path: Path) -> None:
    """Write the clipping thresholds in the order of the scheme; `repr` of a float loses nothing.

    The table knows symmetric quantization only: an asymmetric range stands there with its largest absolute value.
    """
    lines = [f"{name} {span.threshold!r}\n" for name, span in scheme.activations.items()]
    path.write_text("".join(lines), encoding="utf-8")
