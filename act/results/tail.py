"""`tail/tail.json` of the stage `prepare`: what was cut off behind the last layers, and in which forms it is there."""

from act.results.artifact import Artifact

TAIL_FILE = "tail.json"


class TailDescription(Artifact):
    operators: list[str]  # its types of operators
    outputs: list[str]  # of the whole model, in the user's order
    whole: list[int]  # numbers of those whose first axis is not the batch: they are judged one sample at a time
    lacks: dict[str, str]  # forms of models that it does not have, as `act.tail.files.FORMS`, with the cause
    given: str  # the user's own model without it, beside this file: what engines load
