"""What training leaves in the results of the stages that train."""

from __future__ import annotations

from act.results.artifact import Part


class TrainingPoint(Part):
    """One evaluation while training goes on; the start is step 0, without a loss."""

    epoch: int
    step: int
    loss: float | None  # mean since the evaluation before
    quality: float


class ComparedPart(Part):
    """What was compared with a teacher."""

    loss: str  # by its name in ACT
    node: list[str]  # variables of the student
    teacher_node: list[str]
    alpha: float  # weight of this part
    teacher: int  # its number
