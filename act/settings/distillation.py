"""`distillation`: what training compares the student with."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from act.settings.base import Settings
from act.settings.model import ModelSource

DistillationLoss = Literal["l2", "soft_label", "dkd", "skd", "fsp"]


class Distillation(Settings):
    """What training compares the student with; ACT's names, for one teacher and for several.

    `loss`, `node`, `alpha` and `teachers` may each be one or a list. Lists of one length belong together, entry by
    entry; what is given once holds for all.
    """

    loss: DistillationLoss | list[DistillationLoss] | None = Field(
        default=None,
        description="when left out, each output's squared error as a share of its mean square, for a softmax that of "
        "its logits and the cross entropy to the teacher's probabilities",
    )
    node: list[str] | list[list[str]] | None = Field(
        default=None,
        description="variables of the model, for `fsp` in pairs; found in the graph when left out",
    )
    alpha: float | list[float] = Field(default=1.0, description="weight of the loss")
    temperature: float = Field(default=1.0, gt=0, le=100, description="of `soft_label` and `dkd`")
    beta: float = Field(
        default=1.0, ge=0, le=100, description="of `dkd`: weight of the classes that are not the target"
    )
    teachers: list[ModelSource] = Field(
        default=[], max_length=8, description="other models that do the same; the fp32 model itself when left out"
    )

    @field_validator("loss", "node", "alpha")
    @classmethod
    def _no_empty_list(cls, value: Any) -> Any:
        if value == [] or (isinstance(value, list) and [] in value):
            raise ValueError("an empty list: leave it out, or fill it")
        return value

    @model_validator(mode="after")
    def _lists_belong_together(self) -> Distillation:
        if self.loss is None and self.node is not None:
            raise ValueError("`node` needs a `loss`")
        lengths = {key: len(values) for key, values in self._lists().items() if len(values) > 1}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"`{key}` has {length}" for key, length in lengths.items())
            raise ValueError(f"lists must have the same length, or one entry: {found}")
        return self

    def _lists(self) -> dict[str, list[Any]]:
        """Return what holds for each part, or once for all."""
        several_nodes = self.node is not None and isinstance(self.node[0], list)
        return {
            "loss": self.loss if isinstance(self.loss, list) else [self.loss],
            "node": list(self.node or []) if several_nodes else [self.node],
            "alpha": self.alpha if isinstance(self.alpha, list) else [self.alpha],
            "teachers": list(range(len(self.teachers) or 1)),
        }

    def terms(self) -> list[tuple[DistillationLoss | None, list[str] | None, float, int]]:
        """Return the parts of the loss: which, on which variables (None: found), its weight, and which teacher."""
        lists = self._lists().values()
        count = max(map(len, lists))
        return list(zip(*(values * count if len(values) == 1 else values for values in lists)))
