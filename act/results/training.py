"""What training leaves in the results of the stages that train."""

from __future__ import annotations

from act.results.artifact import Part


class TrainingPoint(Part):
    """One evaluation while training goes on; the start is step 0, without a loss.

    Attributes:
        loss: mean since the evaluation before.
    """

    epoch: int
    step: int
    loss: float | None
    quality: float


class ComparedPart(Part):
    """What was compared with a teacher.

    Attributes:
        loss: by its name in ACT.
        node, teacher_node: variables of the student and of the teacher.
        alpha: weight of this part.
        teacher: its number.
    """

    loss: str
    node: list[str]
    teacher_node: list[str]
    alpha: float
    teacher: int
