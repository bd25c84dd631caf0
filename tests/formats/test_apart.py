"""A format that another environment reads: a worker of that environment converts and runs it, or it is one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from act.artifacts import read_json
from act.environments import TENSORFLOW
from act.errors import InputError
from act.formats import SourceModel, _apart
from act.samples.dataset import Ragged, Samples
from tests.formats.onnx.support import model_of, node, values
from tests.support import plugins
from tests.support.place import Place

FORMAT = """
from act.environments import TENSORFLOW as ENVIRONMENT

WORKER = "toy_worker"

def recognises(path):
    return path.suffix == ".toy"

def find(path, model_filename, params_filename):
    return [path]
"""
# Files of this format hold what becomes of the worker, and have an ONNX model beside them.
WORKER = """
import os, shutil, time
import numpy as np
from act.errors import InputError
from act.formats._worker import serve

def convert(form, files, folder):
    how = files[0].read_text()
    if how == "refused":
        raise InputError("holds no model; give another")
    if how == "fails":
        raise ValueError("no such operator:\\nToy")
    if how == "crashes":
        os.abort()
    if how == "hangs":
        time.sleep(60)
    if how == "takes all memory":
        np.ones(2**34)
    with (files[0].parent / "converted").open("a") as file:
        file.write(form)
    shutil.copy(files[0].with_suffix(".onnx"), folder / "model.onnx")

def load(form, files):
    how = files[0].read_text()
    if how == "does not load":
        raise ValueError("no such operator")
    def run(feeds):
        if how == "does not run":
            raise ValueError("not these samples")
        value = feeds["x"] @ np.load(files[0].with_suffix(".npy"))
        return [{"differs": value + 1, "no number": value / 0}.get(how, value)]
    return run

if __name__ == "__main__":
    serve(convert, load)
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a model of the toy format, and put its environment in place, whose interpreter is this one."""
    plugins.install(monkeypatch, tmp_path / "toys", {"formats": {"toy": FORMAT}})
    (tmp_path / "toys" / "toy_worker.py").write_text(WORKER)
    interpreter = tmp_path / "environment" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    interpreter.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    interpreter.chmod(0o755)
    (tmp_path / "environment" / "installed-from").write_text(TENSORFLOW.checksum())
    monkeypatch.setenv(TENSORFLOW.variable, str(tmp_path / "environment"))
    weight = values(4, 3)
    proto = model_of([node("MatMul", "x,w")], {"x": ["N", 4]}, ["y"], {"w": weight})
    onnx.save(proto, tmp_path / "model.onnx")
    np.save(tmp_path / "model.npy", weight)
    (tmp_path / "model.toy").write_text("works")
    return tmp_path / "model.toy"


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    samples = Samples({"x": Ragged.of(list(values(5, 4, seed=1)))})
    samples.save(tmp_path / "samples")
    return samples


def test_it_is_converted_once_and_checked_against_its_own_runtime(model: Path, samples: Samples) -> None:
    source = SourceModel.find(model)
    program = source.load()
    assert (program.feed_names, program.fetch_names) == (["x"], ["y"])
    deviation = source.check(program, samples, model.parent / "samples")
    assert deviation is not None and deviation < 1e-5
    assert source.given().format == "onnx" and not source.computes_in_half()
    assert (model.parent / "converted").read_text() == "toy"


@pytest.mark.parametrize(
    "how, message",
    [
        ("refused", "model.toy: holds no model; give another"),
        ("fails", "TensorFlow cannot convert it to ONNX (ValueError: no such operator: Toy); mend the model"),
        ("crashes", "TensorFlow cannot convert it to ONNX (ended by SIGABRT"),
        ("hangs", "not done within its time limit of 3 s"),
        ("takes all memory", "MemoryError"),
        ("does not load", "TensorFlow cannot run it (ValueError: no such operator), so that nothing shows"),
        ("does not run", "cannot run it on the first calibration samples (ValueError: not these samples)"),
        ("differs", "model.toy: was read, but computes something else than in TensorFlow"),
        ("no number", "TensorFlow gives NaN or infinity in the output for sample 0; mend the samples"),
    ],
)
def test_whatever_becomes_of_the_worker_is_one_line(
    model: Path, samples: Samples, how: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.write_text(how)
    if how == "hangs":
        monkeypatch.setattr(_apart, "_CONVERT_SECONDS", 3)
    source = SourceModel.find(model)
    with pytest.raises(InputError) as error:
        source.check(source.load(), samples, model.parent / "samples")
    assert message in str(error.value) and str(model) in str(error.value)


def test_without_the_environment_the_line_names_the_command(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TENSORFLOW.variable, str(model.parent / "nothing"))
    with pytest.raises(InputError, match=r"model.toy: TensorFlow's environment is not there .*`make tensorflow`"):
        SourceModel.find(model).load()


def test_the_converted_model_stands_for_one_that_no_engine_loads(
    model: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = Place(tmp_path_factory.mktemp("place"))
    place.job["model"] = {"path": str(model)}
    np.savez(place.folder / "data" / "calibration.npz", x=values(2, 4))
    np.savez(place.folder / "data" / "evaluation.npz", x=values(3, 4, seed=1), label=np.array([0, 1, 0]))
    done = place.run()
    assert done.returncode == 0, done.stderr
    prepared = read_json(place.folder / "artifacts/mine/prepare/prepare.json")
    assert (prepared["format"], prepared["given_format"], prepared["given"]) == ("toy", "onnx", "given/model.onnx")
    assert prepared["import_deviation"] < 1e-5
    assert "no engine loads model.toy itself: the onnx model made of it stands for it" in done.stderr + done.stdout


def test_workers_need_only_what_every_environment_has() -> None:
    """The imports of a worker's process are this package, Python itself and NumPy."""
    import numpy

    code = "import sys; sys.path[:0] = sys.argv[1:]\nimport act.formats._worker\n"
    code += "for m in list(sys.modules.values()): print(m.__name__, getattr(m, '__file__', None) or '')"
    paths = [str(Path(__file__).parents[2]), str(Path(numpy.__file__).parents[1])]
    found = subprocess.run(
        [sys.executable, "-S", "-c", code, *paths], capture_output=True, text=True, check=True, env={**os.environ}
    )
    files = dict(line.split(" ", 1) for line in found.stdout.splitlines())
    others = {name.split(".")[0] for name, file in files.items() if file} - set(sys.stdlib_module_names)
    assert not {name for name in others - {"act", "numpy", "__main__"} if not name.startswith("_")}
