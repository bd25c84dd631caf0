"""Reading and writing inference models: every damage is told before Paddle sees the file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from act.errors import InputError
from act.program.files import find_files
from act.program.model import InferenceModel
from tests.support.models import CLASSIFIER, noise


def copy_model(folder: Path, program: str = "inference.pdmodel", weights: str = "inference.pdiparams") -> Path:
    shutil.copy(CLASSIFIER / "inference.pdmodel", folder / program)
    shutil.copy(CLASSIFIER / "inference.pdiparams", folder / weights)
    return folder


def test_a_saved_model_computes_the_same(tmp_path: Path) -> None:
    model, batch = InferenceModel.load(CLASSIFIER), {"x": noise(2)}
    model.save(tmp_path)
    again = InferenceModel.load(tmp_path)
    np.testing.assert_array_equal(again.run(batch)[0], model.run(batch)[0])
    assert again.feed_specs() == model.feed_specs() and again.fetch_specs() == model.fetch_specs()


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    files = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        InferenceModel.load(CLASSIFIER).copy().save(tmp_path / name)
        files.append([path.read_bytes() for path in sorted((tmp_path / name).iterdir())])
    assert files[0] == files[1]


def test_a_copy_is_independent() -> None:
    model = InferenceModel.load(CLASSIFIER)
    copy = model.copy()
    name = model.weight_names()[0]
    before = model.weight(name)
    copy.set_weight(name, before + 1)
    np.testing.assert_array_equal(model.weight(name), before)


@pytest.mark.parametrize(
    ("program", "weights"),
    [
        ("inference.pdmodel", "inference.pdiparams"),
        ("model.pdmodel", "model.pdiparams"),
        ("__model__", "__params__"),
        ("mine.pdmodel", "mine.pdiparams"),
    ],
)
def test_usual_and_old_names_are_found(tmp_path: Path, program: str, weights: str) -> None:
    model = InferenceModel.load(copy_model(tmp_path, program, weights))
    assert model.feed_names == ["x"]


def test_named_files_and_the_program_file_are_found(tmp_path: Path) -> None:
    copy_model(tmp_path, "odd.bin", "odd.weights")
    assert InferenceModel.load(tmp_path, "odd.bin", "odd.weights").feed_names == ["x"]
    copy_model(tmp_path)
    assert find_files(tmp_path / "inference.pdmodel")[1].name == "inference.pdiparams"


def cut_weights(folder: Path) -> None:
    path = folder / "inference.pdiparams"
    path.write_bytes(path.read_bytes()[:-1000])


def lengthen_weights(folder: Path) -> None:
    path = folder / "inference.pdiparams"
    path.write_bytes(path.read_bytes() + b"more")


def spoil_weights(folder: Path) -> None:
    (folder / "inference.pdiparams").write_bytes(b"\xff" * 100_000)


def empty_weights(folder: Path) -> None:
    (folder / "inference.pdiparams").write_bytes(b"")


def cut_program(folder: Path) -> None:
    path = folder / "inference.pdmodel"
    path.write_bytes(path.read_bytes()[:5000])


def spoil_program(folder: Path) -> None:
    (folder / "inference.pdmodel").write_bytes(b"not a program at all" * 50)


def empty_program(folder: Path) -> None:
    (folder / "inference.pdmodel").write_bytes(b"")


def lose_weights(folder: Path) -> None:
    (folder / "inference.pdiparams").unlink()


def second_model(folder: Path) -> None:
    copy_model(folder, "model.pdmodel", "model.pdiparams")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_weights, "cut off"),
        (lengthen_weights, "longer than"),
        (spoil_weights, "damaged"),
        (empty_weights, "cut off or damaged"),
        (cut_program, "damaged"),
        (spoil_program, "damaged"),
        (empty_program, "no operators"),
        (lose_weights, "no such file"),
        (second_model, "several models"),
    ],
)
def test_damage_is_told(tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(copy_model(tmp_path))
    with pytest.raises(InputError, match=words):
        InferenceModel.load(tmp_path)


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        InferenceModel.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no inference model"):
        InferenceModel.load(tmp_path)


def indexed_as_scanned(model: InferenceModel) -> bool:
    """Whether the index names the producers and consumers that a scan of the program finds."""
    ops = [op for op in model.program.global_block().ops if op.type not in ("feed", "fetch")]
    names = [*model.program.global_block().vars]
    return model.ops == ops and all(
        set(model.producers(name)) == {op for op in ops if name in op.output_arg_names}
        and set(model.consumers(name)) == {op for op in ops if name in op.input_arg_names}
        for name in names
    )


def test_the_index_follows_insertions_removals_and_renames() -> None:
    model = InferenceModel.load(CLASSIFIER)
    assert indexed_as_scanned(model)
    batch, relu = {"x": noise(2)}, next(op for op in model.ops if op.type == "relu")
    before, (source,) = model.run(batch)[0], relu.input("X")
    copied = model.add_tensor("copied", source)
    doubled = model.insert("scale", {"X": [source]}, {"Out": [copied]}, {"scale": 2.0}, before=relu)
    model.rename_input(relu, source, copied)
    assert indexed_as_scanned(model) and model.position(doubled) + 1 == model.position(relu)
    assert model.producer(copied) is doubled and model.consumers(copied) == [relu]
    assert np.any(model.run(batch)[0] != before)
    model.redirect(copied, source)
    model.remove(doubled)
    assert indexed_as_scanned(model) and model.producer(copied) is None
    np.testing.assert_array_equal(model.run(batch)[0], before)


def test_shapes_and_dtypes_follow_the_weights() -> None:
    model = InferenceModel.load(CLASSIFIER)
    name = model.weight_names()[0]
    assert model.shape(name) == model.weight(name).shape and model.dtype(name) == "float32"
    assert model.count_parameters() == sum(model.weight(each).size for each in model.weight_names())
    model.set_weight(name, np.zeros((2, 3), dtype=np.int8))
    assert model.shape(name) == (2, 3) and model.dtype(name) == "int8"
    assert model.shape("x") == (-1, 3, -1, -1)
