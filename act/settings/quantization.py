"""`calibration`, `ptq_search` and `refine`: post-training quantization; parameters have ACT's names."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from act.settings.base import (
    Ascending,
    BatchSize,
    Distinct,
    Minutes,
    QuantizableOperator,
    Seed,
    Settings,
    ThresholdAlgorithm,
)

RefineMethod = Literal["adaround", "layer_wise", "region_wise"]
SmoothStrength = Annotated[float, Field(ge=0, le=1)]
WeightQuantization = Literal["abs_max", "channel_wise_abs_max", "channel_wise_mse"]


class Calibration(Settings):
    """The one pass over the calibration samples that every threshold rule reads its statistics from."""

    batch_size: BatchSize = 8
    batch_num: list[Annotated[int, Field(ge=1, le=1_000_000)]] = Field(default=[4, 16], min_length=1, max_length=8)
    """numbers of batches after which the statistics are kept, for the search to choose from"""
    smooth_strength: Ascending[SmoothStrength] = Field(default=[0.3, 0.5, 0.7], max_length=8)
    """SmoothQuant's alpha: how much of what stands out in single channels moves from what matrix products read into
    their weights; the search chooses one of them, or none; empty: always none"""


class PtqSearch(Settings):
    """The search over post-training quantization settings: its space and its limits."""

    ptq_algo: Distinct[ThresholdAlgorithm] = Field(default=["abs_max", "avg", "min_max", "hist", "mse", "emd", "KL"])
    hist_percent: Distinct[Annotated[float, Field(ge=0.5, le=1)]] = Field(default=[0.999, 0.9999, 0.99999])
    """for `hist`: the share of values that is covered"""
    batch_num: Distinct[int] | None = None
    """some of `calibration.batch_num`; all of them when left out"""
    smooth_strength: Distinct[SmoothStrength | None] | None = None
    """some of `calibration.smooth_strength`, null for none; all of them and none when left out"""
    weight_quantize_type: Distinct[WeightQuantization] = Field(default=["channel_wise_abs_max", "channel_wise_mse"])
    bias_correct: Distinct[bool] = Field(default=[True, False])
    activation_symmetric: Distinct[bool] = Field(default=[True, False])
    """whether activations have no zero point"""
    quantizable_op_type: Distinct[QuantizableOperator] = Field(default=list(get_args(QuantizableOperator)))
    """those that the target's first engine cannot run in int8 are left out"""
    max_float_layers: int = Field(default=8, ge=0, le=1000)
    """how many of the most sensitive layers may stay in floating point, and small last ones with them"""
    max_quant_count: int = Field(default=30, ge=1, le=10_000, description="trials")
    side_by_side: int = Field(default=2, ge=1, le=32)
    """trials that are suggested at a time, and so may run at the same time; part of what is searched, wherever they
    run: the fewer, the more each learns from those before it"""
    time_limit_minutes: Minutes = 30.0
    seed: Seed = 0


class Refine(Settings):
    """Later refinements of the search's best candidates; one that measures no better is dropped."""

    methods: list[RefineMethod] = Field(default=["adaround", "layer_wise", "region_wise"])
    """in this order, each from the best so far"""
    candidates: int = Field(default=2, ge=0, le=100, description="of those that lose quality, how many are refined")
    least_drop: float = Field(default=0.0025, ge=0, le=1)
    """those that lose no more are left: no more can be won than is lost, and refining takes minutes"""
    samples: int = Field(default=64, ge=1, le=100_000, description="calibration samples, at most")
    batch_size: BatchSize = 8
    steps: int = Field(default=48, ge=1, le=100_000, description="of training, for each reconstruction")
    learning_rate: float = Field(default=3e-5, gt=0, le=1)
    region_layers: int = Field(default=4, ge=1, le=1000, description="fewest quantized layers in a region")
    time_limit_minutes: Minutes = 10.0
    seed: Seed = 0
