"""Commands run in the tests' own process."""

from __future__ import annotations

import importlib
import io
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path


def run_module(module: str, arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a module's `main` in this process, which spares the seconds that Paddle takes to start; tell how it ended."""
    out, err = io.StringIO(), io.StringIO()
    code, before, given, terminate = 0, Path.cwd(), sys.argv, signal.getsignal(signal.SIGTERM)
    sys.argv = [module, *arguments]
    os.chdir(folder)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = importlib.import_module(module).main() or 0
    except SystemExit as end:
        code = int(end.code or 0)
    except Exception:
        code = 1
        err.write(traceback.format_exc())
    finally:
        os.chdir(before)
        sys.argv = given
        signal.signal(signal.SIGTERM, terminate)
    return subprocess.CompletedProcess([module, *arguments], code, out.getvalue(), err.getvalue())
