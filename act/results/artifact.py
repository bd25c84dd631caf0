"""The base of all results: typed files with a schema version, written and read by their type alone.

Pydantic is imported here and not in `act.artifacts`, which the interpreters of engines import with NumPy alone.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from act.errors import InputError


class Part(BaseModel):
    """A piece of a result: fixed once made, with no unknown key and no NaN or infinity, for which JSON has no word."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Artifact(Part):
    """A result that is a file of its own."""

    schema_version: int = 1

    def write(self, path: Path) -> None:
        """Write the file whole or not at all."""
        text = json.dumps(self.model_dump(mode="json"), indent=2, allow_nan=False, ensure_ascii=False)
        partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
        partial.write_text(text + "\n", encoding="utf-8")
        partial.rename(path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            InputError: the file is missing, is not JSON, has another schema version, or a key that does not fit.
        """
        cure = "remove it and run its stage again"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; run the stage that writes it, or `dvc repro`") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read as JSON: {error}; {cure}") from None
        version = cls.model_fields["schema_version"].default
        if not isinstance(content, dict) or content.get("schema_version") != version:
            raise InputError(f"{path}: not of schema version {version}; {cure}")
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise InputError(f"{path}: `{key}`: {first['msg']}; {cure}") from None
