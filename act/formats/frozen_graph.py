"""TensorFlow's frozen graphs: a `.pb` file of one graph whose variables have become constants."""

from collections.abc import Sequence
from pathlib import Path

from act.environments import TENSORFLOW as ENVIRONMENT
from act.formats._tensorflow import WORKER, only_file

__all__ = ["ENVIRONMENT", "WORKER", "find", "recognises"]

_HEAD_BYTES = 64
_DELIMITED_1, _DELIMITED_2 = 0x0A, 0x12  # protobuf's fields 1 and 2, as bytes with their length before them


def recognises(path: Path) -> bool:
    """Tell whether a file begins with a node that has a name and an operator, as a graph of TensorFlow does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return _begins_with_node(head)


def find(path: Path, model_filename: str | None = None, params_filename: str | None = None) -> Sequence[Path]:
    """Return the file."""
    return only_file(path, model_filename, params_filename)


def _begins_with_node(head: bytes) -> bool:
    place = _skip_length(head, 0, _DELIMITED_1)
    place = _skip_length(head, place, _DELIMITED_1)
    if not 0 < place < len(head):
        return False
    # The name is longer than what was read in few graphs only; then its first letters must do.
    end = place + head[place - 1]
    name = head[place:end]
    follows = end >= len(head) or head[end] == _DELIMITED_2
    return bool(name) and name.isascii() and name.decode().isprintable() and follows


def _skip_length(head: bytes, place: int, field: int) -> int:
    """Return where the content of a field begins, whose number stands at a place; -1 where another stands there."""
    if not 0 <= place < len(head) or head[place] != field:
        return -1
    place += 1
    while place < len(head) and head[place] & 0x80:
        place += 1
    return place + 1
