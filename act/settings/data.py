"""`model` and `data`: where the model and the samples are.

Each reader of samples has its own settings, in its module of `act.samples.readers`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from act.registry import READERS
from act.settings.base import Settings, Text

Labels = Literal["class", "sequence", "classes", "boxes", "score", "nothing"]
"""What an evaluation sample's label is: one class; a sequence of classes; the class of each part (pixel, token); the
boxes of a picture; a number; or there is none"""


class ModelInput(Settings):
    """Describe one input of a model that does not say what it reads."""

    shape: list[Annotated[int, Field(gt=0)] | Literal[-1] | Text] = Field(min_length=1, max_length=8)
    """the length of each axis; a name, or -1, where any is taken: axes of one name are equally long"""
    dtype: Literal["float32", "float64", "int64", "int32", "uint8", "bool"] = "float32"


class ModelSource(Settings):
    """Where the inference model is."""

    path: Text
    """an ONNX model, a Paddle `.pdmodel` file, a folder with one of these, PyTorch's `.pt2` or TorchScript, or a
    `.yaml` file that names a folder inside an installed package"""
    model_filename: str | None = Field(default=None, description="name of the program file, when it is not a usual one")
    params_filename: str | None = Field(default=None, description="name of the weights file, if not a usual one")
    inputs: dict[Text, ModelInput] | None = Field(
        default=None, max_length=64, description="shapes and dtypes by input, for TorchScript, which says none"
    )

    @property
    def declared_inputs(self) -> dict[str, Any]:
        """Return `inputs` as plain dictionaries."""
        return {name: each.model_dump() for name, each in (self.inputs or {}).items()}


class Data(Settings):
    """The settings of every reader; those of one extend them, by keys not called `reader`, `path` or `labels`."""

    reader: Text
    path: Text = Field(description="file or folder with the samples, which DVC follows")

    @property
    def labels(self) -> Labels | None:
        """Tell what the labels of the evaluation samples are; None where the reader does not know."""
        return None


def settings_of_reader(raw: Any) -> type[Data]:
    """Return the settings of the reader that some data name; `ValueError` where there is none."""
    reader = raw.get("reader") if isinstance(raw, Mapping) else None
    if not isinstance(reader, str):
        return Data
    try:
        kind: type[Data] = READERS.load(reader).Settings
    except ValueError as error:
        raise ValueError(f"`reader`: {error}") from None
    return kind


AnyData = Annotated[SerializeAsAny[Data], BeforeValidator(lambda raw: settings_of_reader(raw).model_validate(raw))]
