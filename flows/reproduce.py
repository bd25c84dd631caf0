"""`python -m flows.reproduce STAGE FD`: bring one stage up to date through DVC, and tell on a descriptor how it went.

A process of its own, which the flow can kill with all that it started. What it tells is a JSON object: `how` as
`flows.stages.How`, or `exit_code` of a command that failed, or `message` and `cause` of a `StageFailed`.
"""

import json
import logging
import os
import sys
from typing import Any

from dvc.lock import LockError
from dvc.repo import Repo
from dvc.stage.cache import StageCache
from dvc.stage.exceptions import StageCmdFailedError


class _RunCache(StageCache):
    """DVC's cache of earlier runs, which notes whether it knew the result."""

    restored = False

    def restore(self, *args: Any, **kwargs: Any) -> None:
        super().restore(*args, **kwargs)
        self.restored = True


def reproduce(stage: str) -> dict[str, Any]:
    """Bring a stage of the repository in the working directory up to date, whatever is before it."""
    try:
        # Waits for the lock, which other DVC commands hold for moments only.
        with Repo(_wait_for_lock=True) as repo:
            repo.stage_cache = _RunCache(repo)
            done = repo.reproduce(stage, single_item=True)
            return {"how": "unchanged" if not done else "restored" if repo.stage_cache.restored else "ran"}
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, StageCmdFailedError):
            # It keeps the code in its message only: "failed to run: COMMAND, exited with CODE".
            return {"exit_code": int(str(cause).rpartition(" ")[2])}
        is_busy = isinstance(cause, LockError)
        return {"message": " ".join(str(cause).split()), "cause": "outside" if is_busy else "command"}


def main() -> None:
    """Parse the command line and run the stage."""
    # The stage's own output is what the user wants to see.
    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    _, stage, descriptor = sys.argv
    os.write(int(descriptor), json.dumps(reproduce(stage)).encode())


if __name__ == "__main__":
    main()
