"""A model of a format that another environment reads, in a process of that environment's Python.

The process does one thing and ends: it converts the files to ONNX, or runs them on samples (`act/formats/_worker.py`
is its side). It gets a JSON object in a line, and leaves its results in a folder. It leads a process group that is
killed as a whole at its time limit, and ends by itself when its parent dies; its memory is bounded.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import act
from act.engines.process import EngineFailure, cause_of_death, one_line
from act.errors import InputError
from act.formats import SourceModel
from act.samples.dataset import Ragged, Samples

CONVERTED_FILE = "model.onnx"
_CONVERT_SECONDS, _RUN_SECONDS = 600, 300
# What libraries need to start, and each byte of a model while it is converted.
_BASE_BYTES, _BYTES_A_BYTE = 6 * 2**30, 16
_LOG_TAIL_BYTES = 8192


class RunFailure(EngineFailure):
    """A runtime that has loaded a model, and cannot run it on the samples."""


def convert(source: SourceModel, folder: Path) -> Path:
    """Have the model converted to ONNX into a folder, and return the file.

    Raises:
        InputError: the environment is not there, or the model is refused, damaged, or cannot be converted.
    """
    try:
        _call(source, "convert", _CONVERT_SECONDS, folder=str(folder))
    except EngineFailure as failure:
        raise InputError(
            f"{source.files[0]}: {source.environment_title} cannot convert it to ONNX ({failure.cause}); mend the "
            "model, or export it as ONNX"
        ) from None
    return folder / CONVERTED_FILE


def outputs(source: SourceModel, samples: Path, count: int) -> list[Ragged]:
    """Return each output of the model as its own runtime computes it, on the first samples, one at a time.

    Raises:
        InputError: the environment is not there, or the model is refused.
        EngineFailure: the runtime cannot load it, its outputs are no numbers, or it crashed.
        RunFailure: it is loaded, and refuses the samples.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "outputs"
        _call(source, "run", _RUN_SECONDS, samples=str(samples.resolve()), count=count, folder=str(folder))
        return [Ragged(feed.flat.copy(), feed.shapes) for feed in Samples.load(folder).feeds.values()]


def _call(source: SourceModel, command: str, seconds: int, **arguments: Any) -> None:
    """Have a worker of the source's environment carry out one command."""
    environment = source.environment
    python = environment.python() if environment is not None else None
    if environment is None or python is None:
        raise InputError(f"{source.files[0]}: {environment.lacks() if environment else 'nothing converts it'}")
    size = sum(file.stat().st_size for file in source.files)
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile() as log:
        reply = Path(scratch) / "reply.json"
        request = {
            "command": command,
            "format": source.format,
            "files": [str(file.resolve()) for file in source.files],
            "reply": str(reply),
            "seconds": seconds,
            "memory_bytes": _BASE_BYTES + _BYTES_A_BYTE * size,
            "arguments": arguments,
        }
        process = subprocess.Popen(
            [str(python), "-W", "ignore", "-m", source.worker],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=scratch,
            env=_variables(scratch),
            start_new_session=True,
        )
        try:
            _ask(process, request, seconds)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode != 0 or not reply.exists():
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            raise EngineFailure("crash", cause_of_death(process.returncode, log.read()))
        answer = json.loads(reply.read_text(encoding="utf-8"))
    if "refused" in answer:
        raise InputError(f"{source.files[0]}: {one_line(answer['refused'])}")
    if "failure" in answer:
        raise (RunFailure if answer["loaded"] else EngineFailure)(*answer["failure"])


def _ask(process: subprocess.Popen[bytes], request: dict[str, Any], seconds: int) -> None:
    """Send the request and wait for the end; the pipe stays open, by which the worker knows that its parent lives."""
    if process.stdin is None:
        raise RuntimeError("the worker was started without a pipe")
    with suppress(BrokenPipeError), process.stdin as pipe:  # a worker that is gone already has left its cause
        pipe.write(json.dumps(request).encode() + b"\n")
        pipe.flush()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise EngineFailure("timeout", f"not done within its time limit of {seconds} s") from None


def _variables(scratch: str) -> dict[str, str]:
    # The worker must find this very `act`; what libraries leave behind in a home folder goes with the scratch folder.
    root = str(Path(act.__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "HOME": scratch, "CUDA_VISIBLE_DEVICES": "-1"}
