"""Converts TensorFlow's, Keras's and TFLite's models to ONNX, and runs them, in TensorFlow's own environment."""

import os

# Read by TensorFlow and Keras as they are imported.
os.environ.update({"TF_CPP_MIN_LOG_LEVEL": "2", "KERAS_BACKEND": "tensorflow"})

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from act.formats._worker import Run, serve


def convert(form: str, files: Sequence[Path], folder: Path) -> None:
    """Write the ONNX model of the files."""
    _reader(form).convert(files, folder / "model.onnx")


def load(form: str, files: Sequence[Path]) -> Run:
    """Load the files into TensorFlow or TFLite's interpreter."""
    run: Run = _reader(form).load(files)
    return run


def _reader(form: str) -> Any:
    if form == "tflite":
        from act.formats._tensorflow import flatbuffer

        return flatbuffer
    from act.formats._tensorflow import functions

    return functions.reader(form)


if __name__ == "__main__":
    serve(convert, load)
