"""TensorFlow's, Keras's and TFLite's models: told by content, taken as they are or refused in a line."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from act.engines.process import EngineProcess
from act.environments import TENSORFLOW
from act.errors import InputError
from act.formats import SourceModel
from act.program.passes.free_batch import fixed_batch
from act.samples.dataset import Ragged, Samples
from tests.formats.onnx.support import values

REAL = pytest.mark.skipif(TENSORFLOW.python() is None, reason=f"needs TensorFlow's environment: {TENSORFLOW.lacks()}")
ROOT = Path(__file__).parents[2]
# The beginnings of files: a graph's first node, a SavedModel's first part.
_NODE = b"\x0a\x20\x0a\x01x\x12\x0bPlaceholder*\x0b\x0a\x05dtype"
_SAVED = b"\x08\x01\x12\xf0\x91\x0d\x0a\x05"


def archive(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, "{}")


def test_each_form_is_told_by_its_content(tmp_path: Path) -> None:
    contents = {
        "tflite": b"\x1c\0\0\0TFL3\0\0",
        "keras": b"\x89HDF\r\n\x1a\n\0",
        "frozen_graph": _NODE,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert SourceModel.find(tmp_path / name).format == name
    archive(tmp_path / "archive", "config.json", "metadata.json", "model.weights.h5")
    assert SourceModel.find(tmp_path / "archive").format == "keras"
    saved = tmp_path / "saved" / "saved_model.pb"
    (saved.parent / "variables").mkdir(parents=True)
    (saved.parent / "variables" / "variables.index").touch()
    saved.write_bytes(_SAVED)
    for path in (saved, saved.parent):
        source = SourceModel.find(path)
        assert source.format == "saved_model"
        assert [file.name for file in source.files] == ["saved_model.pb", "variables.index"]


@pytest.mark.parametrize("content", [b"", b"\x0a", b"\x0a\xff\xff\xff", b"\x0a\x20\x0a\x00", b"\n\n\n\n\n\n", _SAVED])
def test_what_only_begins_alike_is_none_of_them(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model").write_bytes(content)
    with pytest.raises(InputError, match="no model of a known format"):
        SourceModel.find(tmp_path / "model")
    archive(tmp_path / "archive", "text.txt")
    with pytest.raises(InputError, match="no model of a known format"):
        SourceModel.find(tmp_path / "archive")


def test_a_second_file_is_refused_for_what_is_one(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    with pytest.raises(InputError, match="remove `params_filename`"):
        SourceModel.find(tmp_path / "model.tflite", None, "weights")


def test_a_file_may_be_named_apart_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    assert SourceModel.find(tmp_path, "model.tflite").files == (tmp_path / "model.tflite",)


def test_a_savedmodel_that_was_copied_in_part_is_refused(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(_SAVED)
    (tmp_path / "variables").mkdir()
    with pytest.raises(InputError, match=r"no `variables.index` in it; copy the whole folder"):
        SourceModel.find(tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of models in all forms, made by TensorFlow's Python."""
    made = tmp_path_factory.mktemp("models")
    script = ROOT / "tests" / "support" / "tensorflow_models.py"
    subprocess.run([str(TENSORFLOW.python()), str(script), str(made)], check=True, capture_output=True, timeout=300)
    return made


TWO_ENDS = (["picture", "extra"], ["scores", "angle"])


@REAL
@pytest.mark.parametrize(
    "name, ends",
    [
        ("three.keras", TWO_ENDS),
        ("three.h5", TWO_ENDS),
        ("two.keras", TWO_ENDS),
        ("two.h5", TWO_ENDS),
        ("exported", (["extra", "picture"], ["output_0", "output_1"])),
        ("network.tflite", None),
        ("graph.pb", (["x"], ["Identity"])),
        ("plain", (["x"], ["y"])),
        ("function", (["x"], ["output_0"])),
        ("fixed.tflite", None),
    ],
)
def test_each_form_computes_what_its_runtime_does_and_opens_on_engines(
    folder: Path, tmp_path: Path, name: str, ends: tuple[list[str], list[str]] | None
) -> None:
    source = SourceModel.find(folder / name)
    model = source.load()
    if ends is not None:
        assert (model.feed_names, model.fetch_names) == ends
    assert fixed_batch(model) == (1 if name.startswith("fixed") else None)
    samples = Samples({f.name: Ragged.of(list(values(5, *f.shape[1:], seed=3))) for f in model.feed_specs()})
    samples.save(tmp_path / "samples")
    deviation = source.check(model, samples, tmp_path / "samples")
    assert deviation is not None and deviation < 1e-5
    given = source.given()
    with EngineProcess("openvino", given.copy_to(tmp_path / "given"), "fp32") as engine:
        engine.load()
        found = engine.outputs(tmp_path / "samples")
    for output, wanted in zip(found, zip(*(model.run(batch) for batch in samples.batches(1)))):
        np.testing.assert_allclose(np.stack(list(output)), np.concatenate(wanted), atol=1e-5)


@REAL
@pytest.mark.parametrize(
    "name, message",
    [
        ("signatures", "has the signatures `one`, `two` and no `serving_default`"),
        ("unsigned", "has no signature"),
        ("python", "run code or reach outside of the model (`EagerPyFunc`)"),
        ("lambda.keras", "has a layer `Lambda`, which holds Python code that is never run"),
        ("lambda.h5", "has a layer `Lambda`"),
        ("lambda_two.h5", "has a layer `Lambda`"),
        ("alone.weights.h5", "holds weights without the model that they belong to"),
        ("int8.tflite", "is quantized already"),
        ("cut.tflite", "is no model that TFLite can read"),
        ("offsets.tflite", "ended by SIG"),
        ("cut.pb", "is no frozen graph of TensorFlow, or damaged"),
        ("linked.h5", "from another file (/etc/passwd)"),
        ("bomb.keras", "unpacks to"),
        ("foreign.h5", "of `os`"),
        ("huge.h5", "cannot convert it to ONNX"),
    ],
)
def test_what_is_hostile_or_of_no_use_is_refused_in_a_line(folder: Path, name: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        SourceModel.find(folder / name).load()
    assert message in str(error.value) and str(folder / name) in str(error.value)
