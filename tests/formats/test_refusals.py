"""What people take for a model and is none is told by content, with what to do; no pickle is ever opened."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
import openvino.opset13 as ops
import pytest

from act.errors import InputError
from act.formats import SourceModel


class Hostile:
    """An object whose pickle runs a command as it is read."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch opened",)


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": Hostile()}, protocol=2))


def write_torch_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Hostile(), protocol=2))
        archive.writestr("archive/version", "3\n")


def write_old_torch(path: Path) -> None:
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + pickle.dumps(1001, protocol=2))


def write_safetensors(path: Path) -> None:
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))


def write_table(path: Path) -> None:
    path.write_bytes(bytes(40) + bytes.fromhex("57fb808b247547db"))


def write_arrays(path: Path) -> None:
    np.savez(path, w=np.zeros(3))


def write_openvino(path: Path) -> None:
    x = ops.parameter([1, 3], name="x")
    openvino.save_model(openvino.Model([ops.relu(x)], [x], "m"), path)


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("model.xml", write_openvino, "an OpenVINO IR.*give the file that it was made of"),
        ("model.pdparams", write_pickle, r"a checkpoint of Paddle.*paddle\.jit\.save"),
        ("model.pth", write_torch_archive, r"a checkpoint or a pickled module of PyTorch.*torch\.export\.save"),
        ("model.pt", write_old_torch, r"a checkpoint of PyTorch.*torch\.export\.save"),
        ("model.ckpt", write_pickle, r"a checkpoint of PyTorch.*torch\.export\.save"),
        ("model.pkl", write_pickle, "a pickle, which could run any code and is not opened"),
        ("model.safetensors", write_safetensors, "weights without the network"),
        ("model.ckpt.index", write_table, r"a checkpoint of TensorFlow.*model\.export"),
        ("model.npz", write_arrays, "an archive of NumPy arrays, weights without the network"),
    ],
)
@pytest.mark.parametrize("in_folder", [False, True])
def test_it_is_told_what_a_file_is_and_what_to_do(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    write: Callable[[Path], None],
    words: str,
    in_folder: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / name)
    with pytest.raises(InputError, match=f"{name}: {words}"):
        SourceModel.find(tmp_path if in_folder else tmp_path / name)
    assert not (tmp_path / "opened").exists()
