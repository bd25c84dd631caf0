"""Environments of their own: what is looked for, what is said where one is missing, and that a half one is none."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from act.environments import LITE, TENSORFLOW, Environment
from act.errors import InputError

ROOT = Path(__file__).parents[1]
# Whatever it is asked to run, it says that this is a fitting interpreter, or that it is not.
FITS, DOES_NOT_FIT = "#!/bin/sh\nexit 0\n", "#!/bin/sh\necho 'pyenv: python3.10: command not found' >&2\nexit 127\n"


def script(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LITE.variable, str(tmp_path / "environment"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


def test_a_shim_without_an_interpreter_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shim = script(tmp_path / "shims" / "python3.10", DOES_NOT_FIT)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "shims"), str(tmp_path / "bin")]))
    with pytest.raises(InputError, match=r"make LITE_PYTHON=/path/to/python3.10 lite") as error:
        LITE.find_interpreter()
    assert shim in str(error.value)
    behind = script(tmp_path / "home" / ".pyenv" / "versions" / "3.10.13" / "bin" / "python3.10", FITS)
    assert LITE.find_interpreter() == behind
    later = script(tmp_path / "bin" / "python3.10", FITS)
    assert LITE.find_interpreter() == later


def test_a_named_interpreter_is_the_only_one_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "bin" / "python3.10", FITS)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    if sys.version_info[:2] != (3, 10):
        with pytest.raises(InputError, match=re.escape(sys.executable)):
            LITE.find_interpreter(sys.executable)
    with pytest.raises(InputError, match="no such place"):
        LITE.find_interpreter("no such place")


def test_without_any_the_command_says_so_in_one_line() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "act.environments", "lite", "--python", "/no/such/python"],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert found.returncode == 2 and found.stderr.count("\n") == 1 and "CPython 3.10" in found.stderr


def test_a_failed_installation_names_its_cause_and_leaves_no_whole_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It makes an environment whose interpreter cannot install anything.
    makes = r"""#!/bin/sh
[ "$1" = -c ] && exit 0
/bin/mkdir -p "$3/bin"
printf '%s\n' '#!/bin/sh' 'echo "ERROR: no disk"; exit 1' >"$3/bin/python"
/bin/chmod +x "$3/bin/python"
"""
    named = script(tmp_path / "python3.10", makes)
    with pytest.raises(InputError, match="cannot be made: ERROR: no disk; the whole log is"):
        LITE.make(named)
    assert LITE.python() is None
    assert "is not there" in str(LITE.lacks()) and "`make lite`" in str(LITE.lacks())


def test_an_environment_of_another_lock_is_none(tmp_path: Path) -> None:
    script(LITE.folder() / "bin" / "python", FITS)
    stamp = LITE.folder() / "installed-from"
    stamp.write_text("another")
    assert LITE.python() is None and "is not of this requirements-lite.lock" in str(LITE.lacks())
    stamp.write_text(LITE.checksum())
    assert LITE.python() == LITE.make() == LITE.folder() / "bin" / "python"
    assert LITE.lacks() is None


@pytest.mark.parametrize("environment, direct", [(LITE, ["paddlelite"]), (TENSORFLOW, ["tensorflow-cpu", "tf2onnx"])])
def test_the_lock_pins_everything_with_hashes_and_names_no_registry(
    environment: Environment, direct: list[str]
) -> None:
    text = environment.lock.read_text()
    assert "://" not in text and "--index" not in text
    pinned = re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE)
    assert {"numpy", *direct} <= {*pinned} and "tensorflow" not in pinned
    assert all("--hash=sha256:" in part for part in re.split(r"^(?=[a-z])", text, flags=re.MULTILINE) if part)


def test_the_worker_needs_only_what_that_environment_has() -> None:
    allowed = "import act.engines.worker, act.engines.paddle_lite.runtime; from act.registry import METRICS\n"
    allowed += "for name in METRICS.names(): METRICS.load(name)\n"
    allowed += "for m in list(sys.modules.values()): print(m.__name__, getattr(m, '__file__', None) or '')"
    found = subprocess.run(
        [sys.executable, "-S", "-c", "import sys; sys.path[:0] = sys.argv[1:]\n" + allowed, str(ROOT), site_packages()],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    files = dict(line.split(" ", 1) for line in found.stdout.splitlines())
    others = {name.split(".")[0] for name, file in files.items() if file} - set(sys.stdlib_module_names)
    assert not {name for name in others - {"act", "numpy", "__main__"} if not name.startswith("_")}
    for name, file in files.items():
        if name.startswith("act."):
            ast.parse(Path(file).read_text(), feature_version=(3, 10))


def site_packages() -> str:
    import numpy

    return str(Path(numpy.__file__).parents[1])
