"""Converts PyTorch's models to ONNX, and runs them, in PyTorch's own environment."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from act.formats._worker import Run, serve


def convert(form: str, files: Sequence[Path], folder: Path) -> None:
    """Write the ONNX model of the file."""
    _reader(form).convert(files[0], folder)


def load(form: str, files: Sequence[Path]) -> Run:
    """Load the file into PyTorch."""
    run: Run = _reader(form).load(files[0])
    return run


def _reader(form: str) -> Any:
    if form == "torchscript":
        from act.formats._pytorch import scripted

        return scripted
    from act.formats._pytorch import exported

    return exported


if __name__ == "__main__":
    serve(convert, load)
