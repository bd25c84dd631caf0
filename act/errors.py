"""The one exception for input that the user must mend, and how a command ends on it.

Its message is one line that names the file or key, the value and the cure. By the exit code 2 a caller can tell wrong
input from a failed stage.
"""

import errno
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

USER_ERROR_EXIT_CODE = 2


class InputError(Exception):
    """The user's model, data or settings are wrong; the message says which, where, and what to do.

    It is one line: what names in files have of line breaks and control characters is written as escapes.
    """

    def __str__(self) -> str:
        return "".join(each if each.isprintable() else repr(each)[1:-1] for each in super().__str__())


def quoted(names: Iterable[str]) -> str:
    """Return names for a message."""
    return ", ".join(f"`{name}`" for name in names) or "nothing"


@contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Turn an `InputError` into one line on stderr and exit code 2, a full disk into one line and exit code 1."""
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(USER_ERROR_EXIT_CODE)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"error: the disk is full: {error}; make room and run again", file=sys.stderr, flush=True)
        sys.exit(1)
