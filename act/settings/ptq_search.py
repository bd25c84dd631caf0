"""`ptq_search`: the search over post-training quantization; its parameters have ACT's names."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from act.settings.base import Distinct, Minutes, QuantizableOperator, Seed, Settings, ThresholdAlgorithm

WeightQuantization = Literal["abs_max", "channel_wise_abs_max", "channel_wise_mse"]


class PtqSearch(Settings):
    """The search over post-training quantization settings: its space and its limits."""

    ptq_algo: Distinct[ThresholdAlgorithm] = Field(default=["abs_max", "avg", "min_max", "hist", "mse", "emd", "KL"])
    hist_percent: Distinct[Annotated[float, Field(ge=0.5, le=1)]] = Field(
        default=[0.999, 0.9999, 0.99999], description="for `hist`: the share of values that is covered"
    )
    batch_num: Distinct[int] | None = Field(
        default=None, description="some of `calibration.batch_num`; all of them when left out"
    )
    weight_quantize_type: Distinct[WeightQuantization] = Field(default=["channel_wise_abs_max", "channel_wise_mse"])
    bias_correct: Distinct[bool] = Field(default=[True, False])
    activation_symmetric: Distinct[bool] = Field(
        default=[True, False], description="whether activations have no zero point"
    )
    quantizable_op_type: Distinct[QuantizableOperator] = Field(
        default=list(get_args(QuantizableOperator)),
        description="those that the target's first engine cannot run in int8 are left out",
    )
    max_float_layers: int = Field(
        default=8, ge=0, le=1000, description="how many of the most sensitive layers may stay in floating point"
    )
    max_quant_count: int = Field(default=30, ge=1, le=10_000, description="trials")
    side_by_side: int = Field(
        default=2,
        ge=1,
        le=32,
        description="trials that are suggested at a time, and so may run at the same time; part of what is searched, "
        "wherever they run: the fewer, the more each learns from those before it",
    )
    time_limit_minutes: Minutes = 30.0
    seed: Seed = 0
