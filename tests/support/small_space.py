"""A space of few settings, for searches with made-up qualities."""

from __future__ import annotations

from typing import Any

from act.results.ptq_search import TrialSettings
from act.search.space import PARAMETERS, Space

SPACE = Space(
    ptq_algo=("hist", "avg", "mse"),
    hist_percent=(0.999, 0.9999),
    batch_num=(4, 16),
    activation_symmetric=(True, False),
    weight_quantize_type=("channel_wise_abs_max",),
    bias_correct=(True, False),
    quantizable_op_type=(("conv2d",),),
    float_layers=(0, 1, 2),
)


def setting(*values: Any) -> TrialSettings:
    """Return the setting with these values of its parameters, in their order."""
    return TrialSettings(**dict(zip(PARAMETERS, values, strict=True)))
