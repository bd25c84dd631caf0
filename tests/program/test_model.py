"""Reading and writing inference models: every damage is told before Paddle sees the file."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pytest

from act.errors import InputError
from act.formats import SourceModel
from act.program.files import PROGRAM_FILE, WEIGHTS_FILE, find_files
from act.program.model import InferenceModel
from act.program.paddle_setup import CPU, paddle
from act.program.passes.normalise import normalise
from tests.support.models import CLASSIFIER, noise

from paddle.base.proto import framework_pb2  # isort: skip


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
    assert find_files(tmp_path / "inference.pdmodel").weights == (tmp_path / "inference.pdiparams",)


def write_separately(model: InferenceModel, folder: Path) -> None:
    """Write a model as Paddle 1 did: the program, and a file for each weight."""
    folder.mkdir()
    (folder / "__model__").write_bytes(model.program.desc.serialize_to_string())
    with paddle.static.scope_guard(model.scope):
        weights = [model.program.global_block().var(name) for name in model.weight_names()]
        paddle.static.io.save_vars(paddle.static.Executor(CPU), str(folder), model.program, weights)


def test_weights_in_files_of_their_own_are_read_and_joined(tmp_path: Path) -> None:
    model, batch = InferenceModel.load(CLASSIFIER), {"x": noise(2)}
    write_separately(model, tmp_path / "old")
    for path, name in ((tmp_path / "old", None), (tmp_path / "old", "__model__"), (tmp_path / "old/__model__", None)):
        source = SourceModel.find(path, name)
        assert len(source.files) == 1 + len(model.weight_names())
        np.testing.assert_array_equal(source.load().run(batch)[0], model.run(batch)[0])
    given = source.copy_to(tmp_path / "given")
    assert sorted(file.name for file in given.parent.iterdir()) == [WEIGHTS_FILE, PROGRAM_FILE]
    np.testing.assert_array_equal(InferenceModel.load(given).run(batch)[0], model.run(batch)[0])


def test_a_missing_or_damaged_file_of_one_weight_is_told(tmp_path: Path) -> None:
    model = InferenceModel.load(CLASSIFIER)
    write_separately(model, tmp_path / "old")
    first, second = (tmp_path / "old" / name for name in model.weight_names()[:2])
    second.write_bytes(second.read_bytes()[:-4])
    with pytest.raises(InputError, match=f"{re.escape(second.name)}.* is cut off"):
        InferenceModel.load(tmp_path / "old")
    first.unlink()
    with pytest.raises(InputError, match=f"{re.escape(first.name)}: no such file; the weights are in files of their"):
        InferenceModel.load(tmp_path / "old")


@pytest.mark.parametrize("name", ["../../outside", "/etc/hostname", "a\0b"])
def test_a_weight_is_not_read_from_outside_the_folder(tmp_path: Path, name: str) -> None:
    description = framework_pb2.ProgramDesc.FromString((CLASSIFIER / "inference.pdmodel").read_bytes())
    next(variable for variable in description.blocks[0].vars if variable.type.type == 7).name = name
    description.blocks[0].vars.add(name=name, persistable=True).type.type = 7
    (tmp_path / "__model__").write_bytes(description.SerializeToString())
    with pytest.raises(InputError, match="cannot be a file"):
        InferenceModel.load(tmp_path)


def test_a_program_without_weights_is_told(tmp_path: Path) -> None:
    program = paddle.static.Program()
    with paddle.static.program_guard(program):
        x = paddle.static.data("x", [-1, 4], "float32")
        whole = paddle.static.normalize_program(program, [x], [paddle.nn.functional.relu(x)])
    (tmp_path / "model.pdmodel").write_bytes(whole.desc.serialize_to_string())
    with pytest.raises(InputError, match="has no weights"):
        InferenceModel.load(tmp_path)


_WITH_DEFAULTS = (
    *("data_format", "data_layout", "padding_algorithm", "dilations", "is_test", "use_global_stats", "exclusive"),
    *("ceil_mode", "trainable_statistics", "op_namescope", "op_role", "op_device", "op_callstack", "use_mkldnn"),
)


def without_attributes(names: Collection[str]) -> bytes:
    """Return the classifier's program without attributes of these names, as of an exporter that did not know them."""
    description = framework_pb2.ProgramDesc.FromString((CLASSIFIER / "inference.pdmodel").read_bytes())
    for op in description.blocks[0].ops:
        kept = [each for each in op.attrs if each.name not in names]
        del op.attrs[:]
        op.attrs.extend(kept)
    return bytes(description.SerializeToString())


def test_attributes_that_were_left_out_have_paddles_defaults(tmp_path: Path) -> None:
    model, batch = InferenceModel.load(CLASSIFIER), {"x": noise(2)}
    (copy_model(tmp_path) / "inference.pdmodel").write_bytes(without_attributes(_WITH_DEFAULTS))
    source = SourceModel.find(tmp_path).load()
    assert {op.attr("data_format") for op in source.ops if "conv2d" in op.type} == {"NCHW"}
    assert all(op.attr("is_test") for op in source.ops if op.type == "batch_norm")
    normalised, changes = normalise(source)
    assert changes.folded_batch_norms == normalise(model)[1].folded_batch_norms
    np.testing.assert_allclose(normalised.run(batch)[0], model.run(batch)[0], atol=1e-4)


def test_a_missing_attribute_without_a_default_is_told(tmp_path: Path) -> None:
    (copy_model(tmp_path) / "inference.pdmodel").write_bytes(without_attributes(["axes"]))
    with pytest.raises(InputError, match=r"an attribute of `slice` .*is missing or wrong: "):
        InferenceModel.load(tmp_path)


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
