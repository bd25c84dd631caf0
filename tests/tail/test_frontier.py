"""Where models are cut, on graphs of names."""

from __future__ import annotations

import pytest

from act.tail.frontier import Cut, Operator, find_cut

SHAPES = {"scores", "boxes"}


def operator(text: str) -> Operator:
    """Read `layer x -> y`; the first word is `layer`, `stays` or `plain`."""
    kind, rest = text.split(maxsplit=1)
    reads, makes = (tuple(side.split()) for side in rest.split("->"))
    return Operator(reads, makes, kind == "layer", kind == "stays")


CHOICE = ["layer x -> boxes", "plain boxes -> scores", "stays boxes scores -> chosen", "plain scores chosen -> best"]
CASES = {
    "what chooses, and what reads it": (CHOICE, ["best"], [], Cut(["boxes", "scores"], [2, 3])),
    "an output of the body stays first": (CHOICE, ["best", "scores"], [], Cut(["scores", "boxes"], [2, 3])),
    "a layer behind what chooses": ([*CHOICE, "layer best -> classes"], ["classes"], [], None),
    "no layer before what chooses": (["stays x -> chosen", "layer chosen -> y"], ["y"], [], None),
    "nothing stays": (CHOICE[:2], ["scores"], [], None),
    "an output that does not fit is made in the tail": (CHOICE[:2], ["scores"], ["scores"], Cut(["boxes"], [1])),
    "a layer is never moved": (CHOICE[:1], ["boxes"], ["boxes"], None),
    "what does not fit is made of what does": (
        ["layer x -> boxes", "plain boxes -> flat", "plain c ->  k", "stays flat k -> chosen", "plain flat -> other"],
        ["chosen", "other"],
        ["flat"],
        Cut(["other", "boxes"], [1, 2, 3]),
    ),
    "what hangs on inputs alone is in the tail": (
        ["layer x -> boxes", "plain sizes -> factor", "stays boxes factor -> chosen"],
        ["chosen"],
        [],
        Cut(["boxes"], [1, 2]),
    ),
}


@pytest.mark.parametrize(("texts", "outputs", "unfit", "wanted"), CASES.values(), ids=CASES)
def test_the_cut(texts: list[str], outputs: list[str], unfit: list[str], wanted: Cut | None) -> None:
    operators = [operator(text) for text in texts]
    assert find_cut(operators, ["x", "sizes"], outputs, lambda name: name not in unfit) == wanted
