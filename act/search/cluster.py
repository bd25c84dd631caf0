"""Where the trials of a search run: on this machine, or on a Dask or Ray cluster that an environment variable names.

It is no setting of a job, because it changes how long a search takes and nothing of what it finds.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal

from act.errors import InputError

TRIALS_ON = "ACT_TRIALS_ON"
ALLOWED = (
    "`dask` or `ray` (a temporary cluster on this machine), `dask:tcp://HOST:PORT` or `ray:ray://HOST:PORT` "
    "(one that runs already)"
)
_HOST_AND_PORT = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}"
_FORM = re.compile(rf"(?P<kind>dask|ray)|dask:(?P<dask>tcp://{_HOST_AND_PORT})|ray:(?P<ray>ray://{_HOST_AND_PORT})")


@dataclass(frozen=True)
class Cluster:
    """A cluster for trials.

    Attributes:
        address: of its scheduler (Dask) or head (Ray); None for a temporary one on this machine.
    """

    kind: Literal["dask", "ray"]
    address: str | None

    @classmethod
    def parse(cls, text: str, origin: str) -> Cluster:
        """Read what the user wrote; `origin` says where, for the error.

        Raises:
            InputError: it is of no form of `ALLOWED`.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise InputError(f"{origin} is {text!r}; allowed is {ALLOWED}")
        if match["dask"] or match["kind"] == "dask":
            return cls("dask", match["dask"])
        return cls("ray", match["ray"])

    @classmethod
    def from_environment(cls) -> Cluster | None:
        """Return the cluster that `ACT_TRIALS_ON` names; None where the variable is unset or empty.

        Raises:
            InputError: as `parse`.
        """
        text = os.environ.get(TRIALS_ON)
        return cls.parse(text, TRIALS_ON) if text else None

    def __str__(self) -> str:
        return f"{self.kind}:{self.address}" if self.address else self.kind
