"""ONNX models, opset 7 to 24: a `.onnx` file, with or without its weights in files beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from act.errors import InputError
from act.program.model import InferenceModel
from act.samples.dataset import Array
from act.tail.split import SplitModel

RUNTIME = "onnxruntime"
_SUFFIX = ".onnx"


def recognises(path: Path) -> bool:
    """Tell whether a file is an ONNX model, by its first bytes, or a folder has one, and no Paddle program."""
    if path.is_dir():
        paddles = any(path.glob("*.pdmodel")) or (path / "__model__").exists()
        return not paddles and any(path.glob(f"*{_SUFFIX}"))
    return path.suffix == _SUFFIX or (path.is_file() and _begins_like_onnx(path))


def find(path: Path, model_filename: str | None = None, params_filename: str | None = None) -> list[Path]:
    """Return the model's file and those of its external data."""
    from act.formats.onnx.reading import external_files

    if params_filename is not None:
        raise InputError(f"{path}: an ONNX model names the files of its weights itself; remove `params_filename`")
    if path.is_dir():
        found = [path / model_filename] if model_filename else sorted(path.glob(f"*{_SUFFIX}"))
        if len(found) > 1:
            raise InputError(
                f"{path}: several models in this folder ({', '.join(each.name for each in found)}); name one of them"
            )
        path = found[0]
    if not path.is_file():
        raise InputError(f"{path}: no such file; name an ONNX model")
    return [path, *external_files(path)]


def load(files: Sequence[Path]) -> InferenceModel:
    """Import the model into a Paddle program."""
    from act.formats.onnx.importer import import_model
    from act.formats.onnx.qoperator import with_qdq
    from act.formats.onnx.quantized import restore
    from act.formats.onnx.reading import read

    return import_model(restore(with_qdq(read(files[0])))[0])


def split(files: Sequence[Path]) -> SplitModel:
    """Import the model without its tail, which stays ONNX."""
    from act.formats.onnx.reading import read
    from act.formats.onnx.tail import import_split

    return import_split(read(files[0]))


def computes_in_half(files: Sequence[Path]) -> bool:
    """Tell whether any tensor is in half precision."""
    from act.formats.onnx.reading import has_half_precision

    return has_half_precision(files[0])


def axis_names(files: Sequence[Path]) -> Mapping[str, Sequence[str]]:
    """Return the names of each input's axes; axes of one name are imported as of one length."""
    from act.formats.onnx.reading import axis_names

    return axis_names(files[0])


def first_difference(files: Sequence[Path], model: InferenceModel, batch: Mapping[str, Array]) -> str:
    """Name the first node whose output differs from ONNX Runtime's."""
    from act.formats.onnx.difference import first_difference

    return first_difference(files[0], model, batch)


def _begins_like_onnx(path: Path) -> bool:
    """Tell whether a file begins with an IR version, and then with another field of a model."""
    with path.open("rb") as file:
        head = file.read(4)
    # Field 1, a small number; then the producer's name, the graph or another field of the model. TensorFlow's
    # SavedModels begin likewise, but their second field is far longer than a name.
    return (
        len(head) == 4
        and head[0] == 0x08
        and 1 <= head[1] <= 20
        and head[2] in (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42)
        and not (head[2] == 0x12 and head[3] >= 0x80)
    )
