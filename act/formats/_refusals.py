"""Files that people take for models and that are none, or none that can be read: told by content, each with its cure.

A checkpoint holds weights, but not what is computed with them. Most are pickles, which can run any code as they are
read: none is opened here, only its first bytes and the names in its archive are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from act.formats._archive import names_in

_PADDLE = (
    "build the network in Python, load the weights into it, and save both: `model.set_state_dict(paddle.load(FILE)); "
    "model.eval(); paddle.jit.save(model, 'model', input_spec=[paddle.static.InputSpec([None, 3, 224, 224])])`"
)
_TORCH = (
    "build the network in Python, load the weights into it, and export both: `model.load_state_dict(torch.load(FILE, "
    "weights_only=True)); program = torch.export.export(model.eval(), (torch.zeros(1, 3, 224, 224),)); "
    "torch.export.save(program, 'model.pt2')`"
)
_TENSORFLOW = (
    "build the network in Python, load the weights into it, and save both: `model.load_weights(FILE); "
    "model.export('model')`"
)
_HEAD_BYTES = 4096
_MOST_FILES = 1000  # of a folder that are looked at
_TABLE_FOOTER = bytes.fromhex("57fb808b247547db")  # of a LevelDB table, which TensorFlow's index files are
_TORCH_PICKLE = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")  # PyTorch's magic number, pickled


class _Refusal(NamedTuple):
    what: str
    cure: str
    fits: Callable[[Path], bool]


def refusal(path: Path) -> str | None:
    """Return why a file, or one in a folder, is no model that can be read, and what to do; None where nothing is known.

    The message begins with the file.
    """
    for file in _files(path):
        for each in _REFUSALS:
            if each.fits(file):
                return f"{file}: {each.what}; {each.cure}"
    return None


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        for number, file in enumerate(sorted(path.iterdir())):
            if file.is_file() and number < _MOST_FILES:
                yield file
    elif path.is_file():
        yield path


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def _is_pickle(path: Path) -> bool:
    """Tell whether a file begins with the protocol of a pickle and one of the operations that follow it."""
    head = _head(path)
    return len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5 and head[2:3] in b"\x95}](c\x8a\x8c)N"


def _is_torch_pickle(path: Path) -> bool:
    return _head(path).startswith(_TORCH_PICKLE) or (_is_pickle(path) and path.suffix in (".pt", ".pth", ".ckpt"))


def _is_paddle_pickle(path: Path) -> bool:
    return _is_pickle(path) and path.suffix in (".pdparams", ".pdopt")


def _is_torch_checkpoint(path: Path) -> bool:
    """Tell whether a file is an archive of PyTorch's with a pickle and without code."""
    names = names_in(path)
    return any(name.endswith("/data.pkl") for name in names) and not any("/code/" in name for name in names)


def _is_compiled_torch(path: Path) -> bool:
    return any("/aotinductor/" in name for name in names_in(path))


def _is_array_archive(path: Path) -> bool:
    names = names_in(path)
    return bool(names) and all(name.endswith(".npy") for name in names)


def _is_safetensors(path: Path) -> bool:
    """Tell whether a file begins with the length of a header and a JSON object of that length."""
    head, size = _head(path), path.stat().st_size
    length = int.from_bytes(head[:8], "little")
    return 2 <= length <= size - 8 and head[8:].lstrip().startswith(b'{"')


def _is_tensorflow_checkpoint(path: Path) -> bool:
    if path.stat().st_size < len(_TABLE_FOOTER):
        return False
    with path.open("rb") as file:
        file.seek(-len(_TABLE_FOOTER), 2)
        return file.read() == _TABLE_FOOTER


def _is_openvino(path: Path) -> bool:
    head = _head(path)
    return path.suffix == ".xml" and b"<net " in head and b"<layers" in head


_REFUSALS = (
    _Refusal(
        "an OpenVINO IR, whose operators are OpenVINO's own",
        "give the file that it was made of (ONNX, TensorFlow, PyTorch or Paddle)",
        _is_openvino,
    ),
    _Refusal("a checkpoint of Paddle, which holds weights without the network", _PADDLE, _is_paddle_pickle),
    _Refusal("a checkpoint of PyTorch, a pickle, which could run any code and is not opened", _TORCH, _is_torch_pickle),
    _Refusal(
        "a checkpoint or a pickled module of PyTorch, which could run any code and is not opened",
        _TORCH,
        _is_torch_checkpoint,
    ),
    _Refusal(
        "a package that PyTorch compiled for one machine",
        "export the program that it was compiled of: `torch.export.save(program, 'model.pt2')`",
        _is_compiled_torch,
    ),
    _Refusal(
        "a pickle, which could run any code and is not opened",
        "export the model from the program that pickled it, to ONNX if it can",
        _is_pickle,
    ),
    _Refusal(
        "weights without the network (safetensors)",
        "load them into the network in Python, and export both: `torch.export.save(torch.export.export(model.eval(), "
        "(torch.zeros(1, 3, 224, 224),)), 'model.pt2')`",
        _is_safetensors,
    ),
    _Refusal(
        "a checkpoint of TensorFlow, which holds weights without the network", _TENSORFLOW, _is_tensorflow_checkpoint
    ),
    _Refusal(
        "an archive of NumPy arrays, weights without the network",
        "load them into the network in Python, and export both",
        _is_array_archive,
    ),
)
