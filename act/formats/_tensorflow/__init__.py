"""What the formats of TensorFlow's environment share: SavedModels, frozen graphs, Keras's models and TFLite's."""

from collections.abc import Sequence
from pathlib import Path

from act.errors import InputError

WORKER = "act.formats._tensorflow.worker"
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
KERAS_CONFIG = "config.json"


def only_file(path: Path, model_filename: str | None, params_filename: str | None) -> Sequence[Path]:
    """Return the one file of a model; `InputError` where another one is given."""
    if params_filename is not None:
        raise InputError(f"{path}: this form of a model is one file; remove `params_filename`")
    return [path / model_filename if model_filename is not None else path]
