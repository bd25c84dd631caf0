"""A Prefect server for the length of one run, for users who have none: for a flow, or for trials on a cluster.

Prefect would start one by itself, but in the process group of what needs it: Ctrl-C would end it before a flow has told
it how it ended, and a flow that is killed would leave it behind for ever.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from act.errors import InputError

START_SECONDS = 120
_STOP_SECONDS = 5
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # loaded ahead of any fork


@contextmanager
def temporary_server(home: Path) -> Iterator[str]:
    """Give the address of a server that keeps its database and its log in the folder `home`.

    It ends with the thread that enters the block, however that ends; `OSError` where it does not start.
    """
    home.mkdir(parents=True, exist_ok=True)
    log = home / "server.log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The names that Prefect itself sets for a server without pages and schedules.
    kind = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"],
            env={**os.environ, **kind},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # One system call, which takes no lock.
            preexec_fn=lambda: _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),  # noqa: PLW1509
        )
    try:
        address, deadline = f"http://127.0.0.1:{port}/api", time.monotonic() + START_SECONDS
        while not is_reachable(address):
            if process.poll() is not None or time.monotonic() > deadline:
                raise OSError(f"Prefect's temporary server did not start; its log is {log}")
            time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_reachable(address: str) -> bool:
    """Tell whether a Prefect server answers there."""
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def refuse_unreachable(address: str) -> None:
    """Raise `InputError` for an address of the user's where no Prefect server answers."""
    if not is_reachable(address):
        raise InputError(
            f"PREFECT_API_URL is {address!r}, where no Prefect server answers: start it with `prefect server start`"
        )
