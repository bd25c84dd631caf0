"""`python -m act.formats.paddle3.apart FOLDER PROGRAM [WEIGHTS]`: import a model and write it into a folder.

Paddle infers the shapes of each operator in native code, which reads beyond its lists where a damaged program says so:
it runs in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import act
from act.errors import USER_ERROR_EXIT_CODE, InputError, exit_on_input_error
from act.program.model import InferenceModel

_TIME_LIMIT_SECONDS = 600


def import_apart(files: Sequence[Path]) -> InferenceModel:
    """Return the imported model; `InputError` where it cannot be taken, or crashes Paddle."""
    root = str(Path(act.__file__).resolve().parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", __name__, folder, *(str(file.resolve()) for file in files)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=_TIME_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise InputError(
                f"{files[0]}: is not read after {_TIME_LIMIT_SECONDS} s; export a smaller model, or report this one"
            ) from None
        if done.returncode == USER_ERROR_EXIT_CODE:
            raise InputError(done.stderr.strip().splitlines()[-1].removeprefix("error: "))
        if done.returncode:
            raise InputError(
                f"{files[0]}: Paddle 2.6 ends with code {done.returncode} as it is read; it is damaged, or of a kind "
                "that is not known: export the model again, or report it"
            )
        return InferenceModel.load(Path(folder))


def main() -> None:
    """Import the files that the command line names."""
    from act.formats.paddle3.importer import import_model
    from act.formats.paddle3.reading import read

    folder, program, *weights = map(Path, sys.argv[1:])
    with exit_on_input_error():
        import_model(read(program), weights[0] if weights else None).save(folder)


if __name__ == "__main__":
    main()
