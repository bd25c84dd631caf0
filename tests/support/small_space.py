"""A space of few settings, for searches with made-up qualities."""

from __future__ import annotations

from act.search.space import Space

SPACE = Space(
    algorithms=("hist", "avg", "mse"),
    hist_percents=(0.999, 0.9999),
    batch_nums=(4, 16),
    symmetric=(True, False),
    weight_quantize_types=("channel_wise_abs_max",),
    bias_correct=(True, False),
    op_types=(("conv2d",),),
    float_layers=(0, 1, 2),
)
