"""`prepare.json`: the user's model and samples, as they were read."""

from typing import Literal

from act.results.artifact import Artifact, Part

EXPECTED_AS_GIVEN = "expected_as_given"
"""Beside it, of a model that was quantized already: folder of its first outputs, as its own runtime rounds."""


class Tensor(Part):
    """An input or an output of the model; -1 is an axis of any length."""

    name: str
    dtype: str
    shape: list[int]


class SampleCounts(Part):
    calibration: int
    evaluation: int


class Normalisation(Part):
    """What was folded and removed, and how far that moved the outputs, as a share of the largest."""

    folded_batch_norms: int
    removed_identities: int
    folded_reshapes: int
    transposed_weights: int
    folded_scalars: int
    pooled_means: int = 0
    folded_pads: int = 0
    largest_relative_deviation: float


class Preparation(Artifact):
    format: str  # of the user's files
    given: str  # a copy of them, below the stage's folder: the file or folder that engines load
    given_format: str  # that of the user's files, or the one they were converted to where no engine loads them
    source: dict[str, str]  # SHA-256 of the user's files, by name
    import_deviation: float | None  # of outputs from those of the file's own runtime, as a share of the largest value
    batch: Literal["free", "freed", "one"]  # "freed": it was fixed at 1 in the user's files; "one": it still is
    inputs: list[Tensor]
    outputs: list[Tensor]
    samples: SampleCounts
    constant_outputs: list[str]  # those that are the same for every evaluation sample
    normalised: Normalisation
    rounded: int = 0  # tensors that were rounded in the user's files, which were quantized already
    tail: list[str] | None = None  # types of the operators that were cut off behind the layers
