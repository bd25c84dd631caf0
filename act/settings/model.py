"""`model`: where the inference model is."""

from __future__ import annotations

from pydantic import Field

from act.settings.base import Settings, Text


class ModelSource(Settings):
    """Where the inference model is."""

    path: Text = Field(
        description="a folder with an inference model, its `.pdmodel` file, or a `.yaml` file that names a folder "
        "inside an installed package",
    )
    model_filename: str | None = Field(default=None, description="name of the program file, when it is not a usual one")
    params_filename: str | None = Field(default=None, description="name of the weights file, if not a usual one")
