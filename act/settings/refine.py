"""`refine`: what is tried on the search's best candidates."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from act.settings.base import BatchSize, Minutes, Seed, Settings

RefineMethod = Literal["adaround", "layer_wise", "region_wise"]


class Refine(Settings):
    """Later refinements of the search's best candidates; one that measures no better is dropped."""

    methods: list[RefineMethod] = Field(
        default=["adaround", "layer_wise", "region_wise"], description="in this order, each from the best so far"
    )
    candidates: int = Field(default=2, ge=0, le=100, description="of those that lose quality, how many are refined")
    samples: int = Field(default=64, ge=1, le=100_000, description="calibration samples, at most")
    batch_size: BatchSize = 8
    steps: int = Field(default=48, ge=1, le=100_000, description="of training, for each reconstruction")
    learning_rate: float = Field(default=3e-5, gt=0, le=1)
    region_layers: int = Field(default=4, ge=1, le=1000, description="fewest quantized layers in a region")
    time_limit_minutes: Minutes = 10.0
    seed: Seed = 0
