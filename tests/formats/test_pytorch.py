"""PyTorch's models: told by content, taken as they are or refused in a line, and nothing of them is unpickled."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from act.environments import PYTORCH
from act.errors import InputError
from act.formats import SourceModel
from act.formats._archive import read_archive
from act.formats._pytorch.texts import check_code, cleaned_program, cleaned_weights
from act.program.passes.free_batch import fixed_batch
from act.samples.dataset import Ragged, Samples
from tests.formats.onnx.support import values
from tests.support.models import CLASSIFIER

REAL = pytest.mark.skipif(PYTORCH.python() is None, reason=f"needs PyTorch's environment: {PYTORCH.lacks()}")
ROOT = Path(__file__).parents[2]
PICTURE = {"picture": {"shape": ["batch", 3, 16, 16], "dtype": "float32"}}


def archive(path: Path, *names: str, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name in names:
            file.writestr(name, bytes(1000))
    return path


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("m/archive_format", "m/models/model.json"), "exported_program"),
        (("version", "serialized_exported_program.json"), "exported_program"),
        (("m/data.pkl", "m/code/__torch__.py", "m/constants.pkl"), "torchscript"),
    ],
)
def test_each_form_is_told_by_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], expected: str
) -> None:
    source = SourceModel.find(archive(tmp_path / "model", *names))
    assert source.format == expected
    monkeypatch.setenv(PYTORCH.variable, str(tmp_path / "nothing"))
    with pytest.raises(InputError, match=r"PyTorch's environment is not there .*`make pytorch`"):
        source.load()


def test_shapes_are_declared_only_where_the_model_does_not_say_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"remove `model\.inputs`"):
        SourceModel.find(CLASSIFIER, inputs=PICTURE)
    with pytest.raises(InputError, match="remove `params_filename`"):
        SourceModel.find(archive(tmp_path / "m.pt", "m/data.pkl", "m/code/x.py"), None, "weights")


def test_an_archive_that_grows_as_it_is_read_is_refused(tmp_path: Path) -> None:
    bomb = archive(tmp_path / "bomb.pt2", "m/data", "m/code.py", method=zipfile.ZIP_DEFLATED)
    for growth in (0, 1000):
        with pytest.raises(InputError, match="packed as PyTorch packs none"):
            read_archive(bomb, growth=growth)
    assert read_archive(bomb, ".py", growth=2000) == {"m/code.py": bytes(1000)}


@pytest.mark.parametrize(
    "program",
    [
        {"expr_str": "__import__('os').system('true')"},
        {"expr_str": "Symbol('s0').__class__"},
        {"expr_str": "Symbol('__import__(1)', integer=True)"},
        {"range_constraints": {"exec('1')": {"min_val": 0}}},
        {"target": "torch.serialization.os.system"},
        {"target": "_operator.attrgetter"},
        {"target": "torch.ops.aten.from_file.default"},
        {"inputs": [{"as_tensor": {"name": "x=exec('1')"}}]},
        {"tensor_values": {"x, y=exec('1')": {}}},
        {"as_custom_obj": {"name": "x"}},
        {"in_spec": json.dumps([1, {"type": "enum", "context": '{"__enum__": true}', "children_spec": []}])},
    ],
)
def test_a_program_with_texts_that_could_run_is_refused(program: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="its program holds"):
        cleaned_program(json.dumps({"graph_module": program}).encode())


def test_what_serves_tools_is_left_out_of_a_program() -> None:
    program: dict[str, Any] = {
        "nodes": [{"target": "torch.ops.aten.add.Tensor", "metadata": {"stack_trace": "exec()"}}],
        "guards_code": ["exec()"],
        "tensor_values": {"target": {"expr_str": "Mul(Integer(2), Symbol('s39', positive=True, integer=True))"}},
        "range_constraints": {"2*s39": {"min_val": 2}},
    }
    cleaned = json.loads(cleaned_program(json.dumps(program).encode()))
    assert cleaned == program | {"nodes": [{**program["nodes"][0], "metadata": {}}], "guards_code": []}


@pytest.mark.parametrize("entry", [{"path_name": "weight_0", "use_pickle": True}, {"path_name": "../weight_0"}])
def test_weights_that_are_pickled_or_elsewhere_are_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="its weights are pickled|its program holds"):
        cleaned_weights(json.dumps({"config": {"w": entry}}).encode())


@pytest.mark.parametrize("code", ['torch.save(x, "f")', "torch.from_file \\\n(x)", "ops.foreign.call(x)"])
def test_torchscript_that_touches_files_is_refused(code: str) -> None:
    with pytest.raises(InputError, match="its code calls `(save|from_file|foreign)`"):
        check_code({"m/code/__torch__.py": code.encode()})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of models in both forms, made by PyTorch's Python."""
    made = tmp_path_factory.mktemp("models")
    command = [str(PYTORCH.python()), str(ROOT / "tests" / "support" / "torch_models.py"), str(made)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return made


@REAL
@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("picture.pt2", None),
        ("picture.pt", PICTURE),
        ("scripted.pt", PICTURE),
        ("tokens.pt2", None),
    ],
)
def test_a_model_is_taken_with_its_names_and_free_axes(folder: Path, tmp_path: Path, name: str, inputs: Any) -> None:
    source = SourceModel.find(folder / name, inputs=inputs)
    model = source.load()
    if "tokens" in name:
        feeds = {"ids": np.arange(33).reshape(3, 11), "mask": np.ones((3, 11), np.int64)}
        assert [(spec.name, spec.dtype, spec.shape) for spec in model.feed_specs()] == [
            ("ids", "int64", (-1, -1)),
            ("mask", "int64", (-1, -1)),
        ]
        assert len(model.fetch_names) == 2
    else:
        feeds = {"picture": values(3, 3, 16, 16)}
        assert [(spec.name, spec.shape) for spec in model.feed_specs()] == [("picture", (-1, 3, 16, 16))]
    assert fixed_batch(model) is None and source.given().format == "onnx"
    samples = Samples({key: Ragged.of(list(value)) for key, value in feeds.items()})
    samples.save(tmp_path / "samples")
    deviation = source.check(model, samples, tmp_path / "samples")
    assert deviation is not None and deviation < 1e-3


@REAL
@pytest.mark.parametrize(
    ("name", "inputs", "words"),
    [
        ("training.pt2", None, r"was exported in training mode: `aten\.\w+`"),
        ("training.pt", PICTURE, r"was exported in training mode: `aten\.\w+`"),
        ("picture.pt", None, r"TorchScript says no shapes: give that of each input \(picture\)"),
        ("picture.pt", {"picture": {"shape": [1, 4, 16, 16], "dtype": "float32"}}, "it does not run on inputs as"),
        ("pickle.pt2", None, "a pickle with more than tensors in it"),
        ("object.pt2", None, "`data/constants/opaque_obj_0`, which is no weight"),
        ("library.pt2", None, "`data/aotinductor/model/model.so`, which is no weight"),
        ("formula.pt2", None, "its program holds the text"),
        ("save.pt", PICTURE, "its code calls `save`"),
    ],
)
def test_what_is_for_training_or_could_run_code_is_refused(folder: Path, name: str, inputs: Any, words: str) -> None:
    with pytest.raises(InputError, match=f"{name}: .*{words}"):
        SourceModel.find(folder / name, inputs=inputs).load()
    assert not (folder / "opened").exists()
