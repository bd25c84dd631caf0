"""`min_max`: the range seen, as Paddle's `PostTrainingQuantization` takes it.

Paddle's is asymmetric by nature. A symmetric range that holds the same values is the one of `abs_max`, and `abs_max`
without symmetry is this one, so that the two rules differ in name only; a job may ask for either.
"""

from __future__ import annotations

from act.quantization.thresholds import Rule
from act.quantization.thresholds.abs_max import clip

RULE = Rule(clip, "extremes", asymmetric_twin="abs_max")
