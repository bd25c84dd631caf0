"""What the formats of PyTorch's environment share: exported programs and TorchScript, told by the names in them."""

from collections.abc import Sequence
from pathlib import Path

from act.errors import InputError

WORKER = "act.formats._pytorch.worker"

_OLD_PROGRAM = "serialized_exported_program.json"


def is_exported_program(names: Sequence[str]) -> bool:
    """Tell whether the names in an archive are those of an exported program, as PyTorch from 2.1 on saves them."""
    new = any(name.endswith("/archive_format") for name in names) and any("/models/" in name for name in names)
    return new or _OLD_PROGRAM in names


def is_torchscript(names: Sequence[str]) -> bool:
    """Tell whether the names in an archive are those of a TorchScript module."""
    return any("/code/" in name for name in names) and any(name.endswith("/data.pkl") for name in names)


def only_file(path: Path, model_filename: str | None, params_filename: str | None) -> Sequence[Path]:
    """Return the one file of a model; `InputError` where a file of weights is named."""
    if params_filename is not None:
        raise InputError(f"{path}: PyTorch's archives hold their weights; remove `params_filename`")
    return [path if model_filename is None else path / model_filename]
