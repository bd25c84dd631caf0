"""The side of a converter's process: takes one command, carries it out, leaves a reply, and ends.

`act/formats/_apart.py` starts a format's `WORKER` module, which calls `serve` with two functions of its own. It is
imported by other environments' interpreters: NumPy and CPython 3.10 must do.
"""

import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from act.errors import InputError
from act.samples.dataset import Array, Ragged, Samples

INPUTS_FILE = "inputs.json"
"""In the folder that a model of a format with `NEEDS_INPUTS` is converted into: what the job says of its inputs."""
_ALARM_SLACK_SECONDS = 30

Convert = Callable[[str, Sequence[Path], Path], None]
"""Writes the ONNX model of a format's files as `model.onnx` into a folder, with the names and the order of theirs."""
Run = Callable[[Mapping[str, Array]], Sequence[Array]]
"""Computes the outputs, in the order of the ONNX model's, of a batch of one sample for each input."""
Load = Callable[[str, Sequence[Path]], Run]
"""Loads a format's files into their own runtime."""


def serve(convert: Convert, load: Load) -> None:
    """Read the command from standard input and carry it out; a refusal is an `InputError` without the file's name."""
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    # Should native code hang while nobody is left to kill it.
    signal.alarm(request["seconds"] + _ALARM_SLACK_SECONDS)
    resource.setrlimit(resource.RLIMIT_DATA, (request["memory_bytes"], request["memory_bytes"]))
    form, files, arguments = request["format"], [Path(file) for file in request["files"]], request["arguments"]
    try:
        if request["command"] == "convert":
            convert(form, files, Path(arguments["folder"]))
            reply: dict[str, Any] = {}
        else:
            reply = _run(load(form, files), arguments)
    except InputError as error:
        reply = {"refused": str(error)}
    except Exception as error:  # libraries raise what they like, and all of it is a cause
        reply = _failure("error", f"{type(error).__name__}: {error}", loaded=False)
    whole = Path(f"{request['reply']}.part")
    whole.write_text(json.dumps(reply), encoding="utf-8")
    whole.rename(request["reply"])
    sys.stdout.flush()
    # Native libraries like to crash on their way out.
    os._exit(0)


def _run(run: Run, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Save the outputs of the first samples, each without its batch axis."""
    rows: list[list[Array]] = []
    for batch in Samples.load(Path(arguments["samples"])).head(arguments["count"]).batches(1):
        try:
            found = [np.asarray(output) for output in run(batch)]
        except InputError:
            raise
        except Exception as error:
            return _failure("error", f"{type(error).__name__}: {error}")
        for output in found:
            if output.ndim == 0 or len(output) != 1:
                return _failure("wrong_output", f"an output of shape {[*output.shape]} for a batch of 1")
            if np.issubdtype(output.dtype, np.floating) and not np.isfinite(output).all():
                return _failure("wrong_output", f"NaN or infinity in the output for sample {len(rows)}")
        rows.append([output[0] for output in found])
    columns = {str(place): Ragged.of(column) for place, column in enumerate(zip(*rows))}
    Samples(columns).save(Path(arguments["folder"]))
    return {}


def _failure(kind: str, cause: str, loaded: bool = True) -> dict[str, Any]:
    return {"failure": (kind, cause), "loaded": loaded}


def _die_with_parent() -> None:
    """End the whole process group when the parent closes the pipe, which its death does, too."""
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
