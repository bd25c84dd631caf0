"""The base of all results: typed files with a schema version, written and read by their type alone.

Pydantic is imported here and not in `act.artifacts`, which the interpreters of engines import with NumPy alone.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from act.artifacts import read_json, write_json
from act.errors import InputError


class Part(BaseModel):
    """A piece of a result: fixed once made, with no unknown key and no NaN or infinity, for which JSON has no word."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Artifact(Part):
    """A result that is a file of its own."""

    schema_version: int = 1

    def write(self, path: Path) -> None:
        """Write the file whole or not at all."""
        write_json(path, self.model_dump(mode="json"))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote; `InputError` as `read_json`, or where a key does not fit."""
        content = read_json(path, cls.model_fields["schema_version"].default)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise InputError(f"{path}: `{key}`: {first['msg']}; remove it and run its stage again") from None
