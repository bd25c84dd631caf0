"""`min_max`: the range seen, as in Paddle's `PostTrainingQuantization`; it differs from `abs_max` in name only."""

from act.quantization.thresholds import Rule
from act.quantization.thresholds.abs_max import clip

RULE = Rule(clip, "extremes", asymmetric_twin="abs_max")
