"""A model is read by the format that recognises it, one from outside the package included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from act.errors import InputError
from act.formats import SourceModel
from act.program.model import InferenceModel
from tests.support import plugins
from tests.support.models import CLASSIFIER, noise
from tests.support.place import Place

TOY = """
from act.formats import paddle

def recognises(path):
    return path.suffix == ".toy"

def find(path, model_filename, params_filename):
    return [path]

def load(files):
    return paddle.load(paddle.find(files[0].parent / files[0].read_text(), None, None))
"""


def test_a_folder_of_paddles_is_read_for_inference() -> None:
    source = SourceModel.find(CLASSIFIER)
    assert [file.suffix for file in source.files] == [".pdmodel", ".pdiparams"]
    model = source.load()
    assert all(op.attr("is_test") for op in model.ops if op.has_attr("is_test"))


def test_what_no_format_recognises_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    with pytest.raises(InputError, match="no model of a known format"):
        SourceModel.find(tmp_path / "model.bin")


def test_a_format_from_outside_is_prepared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plugins.install(monkeypatch, tmp_path / "toys", {"formats": {"toy": TOY}})
    place = Place(tmp_path)
    (tmp_path / "network.toy").write_text("model")
    place.job["model"] = {"path": "network.toy"}
    done = place.run()
    assert done.returncode == 0, done.stderr
    prepared = InferenceModel.load(tmp_path / "artifacts/mine/prepare/model")
    batch = {"x": noise(2)}
    np.testing.assert_allclose(prepared.run(batch)[0], InferenceModel.load(CLASSIFIER).run(batch)[0], atol=1e-4)
