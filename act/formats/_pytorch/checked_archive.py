"""Archives of exported programs, made safe before PyTorch reads them.

What `torch.export.load` reads can run code: pickled objects, compiled libraries, expressions that SymPy evaluates, and
names that become Python source. So only the program, its weights and its constants are handed on, in a new archive; of
the program what only serves tools is left out, and each text in it must be a name of the kind that stands there.
"""

import io
import re
import zipfile
from pathlib import Path

import torch
from torch.export.pt2_archive._package import PT2ArchiveWriter

from act.errors import InputError
from act.formats._archive import read_archive
from act.formats._pytorch.texts import cleaned_program, cleaned_weights

_PROGRAM, _EXAMPLES = "models/model.json", "data/sample_inputs/model.pt"
_WEIGHTS = re.compile(
    r"data/(weights/(weight_\d+|model_weights_config\.json)|constants/(tensor_\d+|model_constants_config\.json))"
)
_PICKLED_WEIGHTS = ("data/weights/model.pt", "data/constants/model.pt")
_LEFT_OUT = re.compile(r"archive_format|archive_version|byteorder|\.data/\w+|extra/.*|\.format_version|version")
_OLD_PROGRAM, _OLD_EXAMPLES = "serialized_exported_program.json", "serialized_example_inputs.pt"
_OLD_WEIGHTS = ("serialized_state_dict.pt", "serialized_constants.pt")


def checked_archive(path: Path) -> io.BytesIO:
    """Return an archive with the program and the weights of a file, which PyTorch reads without running code.

    Raises:
        InputError: the file holds pickled objects, a compiled model, or texts that are no names; does not name it.
    """
    files = read_archive(path)
    return _checked_old(files) if _OLD_PROGRAM in files else _checked_new(files)


def _checked_new(files: dict[str, bytes]) -> io.BytesIO:
    """Check an archive as PyTorch writes them from 2.8 on: in one folder."""
    inner = {name.partition("/")[2]: content for name, content in files.items()}
    if _PROGRAM not in inner or len(inner) < len(files):
        raise InputError("its archive holds no program called `model`; save it by `torch.export.save`")
    buffer = io.BytesIO()
    with PT2ArchiveWriter(buffer) as archive:
        for name, content in inner.items():
            if name in _PICKLED_WEIGHTS:
                archive.write_bytes(name, _checked_pickle(content, name))
            elif _WEIGHTS.fullmatch(name):
                archive.write_bytes(name, cleaned_weights(content) if name.endswith(".json") else content)
            elif name not in (_PROGRAM, _EXAMPLES) and not _LEFT_OUT.fullmatch(name):
                raise InputError(
                    f"its archive holds `{name[:100]}`, which is no weight and is not opened; export the model without "
                    "custom objects, and save it by `torch.export.save`"
                )
        archive.write_bytes(_PROGRAM, cleaned_program(inner[_PROGRAM]))
        archive.write_bytes(_EXAMPLES, b"")
    buffer.seek(0)
    return buffer


def _checked_old(files: dict[str, bytes]) -> io.BytesIO:
    """Check an archive as PyTorch wrote them up to 2.7."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in _OLD_WEIGHTS:
            archive.writestr(name, _checked_pickle(files.get(name, b""), name))
        archive.writestr(_OLD_PROGRAM, cleaned_program(files[_OLD_PROGRAM]))
        archive.writestr(_OLD_EXAMPLES, b"")
        archive.writestr("version", files.get("version", b""))
    buffer.seek(0)
    return buffer


def _checked_pickle(content: bytes, name: str) -> bytes:
    """Return pickled tensors as they are; `InputError` where the pickle asks for anything else."""
    try:
        if content:
            torch.load(io.BytesIO(content), weights_only=True)
    except Exception:  # hostile pickles fail in all ways
        raise InputError(
            f"its archive holds `{name}`, a pickle with more than tensors in it, which could run any code and is not "
            "opened; export the model without custom objects"
        ) from None
    return content
