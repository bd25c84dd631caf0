"""Rules that turn the statistics of an activation into its clipping range.

They are the methods of Paddle's `PostTrainingQuantization`, for symmetric and for asymmetric ranges. A symmetric range
is a threshold around zero; an asymmetric one holds zero and stays within the values seen. A rule is a module of this
package with a constant `RULE`; its name in the settings is the module's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from act.quantization.ranges import Range
from act.quantization.statistics import TensorStatistics
from act.registry import THRESHOLDS

# Rules that choose ranges alike, the best family first: a share of the values, the mean of the batches' extremes, the
# closest fit to the values, the extremes of all values.
Family = Literal["share", "mean", "fit", "extremes"]
FAMILIES: tuple[Family, ...] = get_args(Family)
_BY_CLIPPING: tuple[Family, ...] = ("extremes", "mean", "fit", "share")

Clip = Callable[[TensorStatistics, bool], Range]
"""Gives the range for the statistics of an activation, symmetric or not."""


@dataclass(frozen=True)
class Rule:
    """A threshold rule."""

    clip: Callable[..., Range]  # a `Clip`; with `takes_share` it also takes the `share` of the values that it covers
    family: Family
    place: int = 0  # in its family, the best first
    takes_share: bool = False  # has the parameter `hist_percent`, above 0.5 and at most 1
    asymmetric_twin: str | None = None  # the rule that gives the same asymmetric ranges


def find(name: str) -> Rule:
    rule: Rule = THRESHOLDS.load(name).RULE
    return rule


def clip_by(name: str, share: float | None = None) -> Clip:
    """Return what gives the range of an activation by the rule of that name; `ValueError` where it lacks a share."""
    rule = find(name)
    if not rule.takes_share:
        return rule.clip
    if share is None:
        raise ValueError(f"`{name}` needs `hist_percent`")
    return partial(rule.clip, share=share)


def asymmetric_rules(shares: tuple[float, ...]) -> dict[str, Clip]:
    """Return every rule that gives asymmetric ranges of its own, with each share that it takes, by a label.

    Those that clip least come first.
    """
    rules: dict[str, Rule] = {name: module.RULE for name, module in THRESHOLDS.load_all().items()}
    clips: dict[str, Clip] = {}
    for name, rule in sorted(rules.items(), key=lambda each: (_BY_CLIPPING.index(each[1].family), each[1].place)):
        if rule.takes_share:
            clips |= {f"{name} {share:g}": clip_by(name, share) for share in shares}
        elif rule.asymmetric_twin is None:
            clips[name] = rule.clip
    return clips
