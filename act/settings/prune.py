"""`prune`: pruning, and the training after it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from act.errors import quoted
from act.settings.base import ChannelCriterion, NonEmpty, Settings, Share, Steps, Text
from act.settings.training import TrainConfig


class ChannelPrune(Settings):
    """Whole output channels are taken out of convolutions, and of all that goes with them."""

    pruned_ratio: Share | NonEmpty[Share] | None = None
    """share of the channels that goes, one for all layers or one for each of `prune_params_name`; chosen layer by layer
    when left out"""
    prune_params_name: NonEmpty[Text] | None = None
    """weights of the convolutions that are pruned; all that can be when left out"""
    criterion: ChannelCriterion = "l1_norm"
    target_speedup: float | None = Field(default=None, gt=1, le=100)
    """ratios are chosen so that the model is this many times faster on the target's first engine"""
    kept_multiply_adds: float | None = Field(default=None, gt=0, le=1)
    """ratios are chosen so that this share of the MACs is left; 0.6, or what the chosen strategy says, when all three
    are left out"""

    @model_validator(mode="after")
    def _one_way_to_choose(self) -> ChannelPrune:
        ways = ("pruned_ratio", "target_speedup", "kept_multiply_adds")
        given = [name for name in ways if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{quoted(given)} each say how much is pruned: choose one of them")
        names = len(self.prune_params_name or [])
        if isinstance(self.pruned_ratio, list) and len(self.pruned_ratio) != names:
            found = f"{len(self.pruned_ratio)} ratios for {names} names in `prune_params_name`"
            raise ValueError(f"`pruned_ratio` lists {found}: give each name one ratio, or all the same")
        return self


class GmpConfig(Settings):
    """The steps of gradual magnitude pruning, by ACT's names; what is left out is a share of all training steps."""

    stable_iterations: int | None = Field(default=None, ge=0, description="steps before pruning; 0 when left out")
    pruning_iterations: Steps | None = Field(default=None, description="steps of pruning; half of all when left out")
    tunning_iterations: int | None = Field(default=None, ge=0)
    """steps after pruning; the rest when left out, and training ends with them"""
    resume_iteration: int = Field(default=-1, ge=-1, le=0, description="a stage that was stopped goes on by itself")
    pruning_steps: int = Field(default=100, ge=1, description="how many times the ratio is raised")
    initial_ratio: float = Field(default=0.15, ge=0, lt=1, description="share of zeros at the first of them")


class UnstructurePrune(Settings):
    """Single weights of smallest magnitude become zero."""

    prune_strategy: Literal["base", "gmp"] = "gmp"
    """`base`: all of them before training; `gmp`: more and more while it goes on"""
    prune_mode: Literal["ratio", "threshold"] = "ratio"
    ratio: Share = Field(default=0.75, description="share of zeros, for the mode `ratio`")
    threshold: float = Field(default=0.01, gt=0, description="magnitude below which weights go, for `threshold`")
    gmp_config: GmpConfig = GmpConfig()
    prune_params_type: Literal["conv1x1_only"] | None = Field(default=None, description="only 1x1 convolutions")
    local_sparsity: bool = Field(default=False, description="`ratio` holds for each layer, not for all together")

    @model_validator(mode="after")
    def _gmp_has_a_ratio(self) -> UnstructurePrune:
        wanted = self.prune_strategy == "gmp" and "prune_strategy" in self.model_fields_set
        if wanted and self.prune_mode == "threshold":
            raise ValueError("`gmp` raises a ratio step by step: use `prune_mode: ratio`, or `prune_strategy: base`")
        first, last = self.gmp_config.initial_ratio, self.ratio
        if self.gradual and first > last:
            raise ValueError(f"`gmp_config.initial_ratio` is {first:g}: more than `ratio`, {last:g}, to which it rises")
        return self

    @property
    def gradual(self) -> bool:
        """Tell whether zeros become more while the training goes on; a threshold makes all of them at once."""
        return self.prune_strategy == "gmp" and self.prune_mode == "ratio"


class ASPPrune(Settings):
    """Of every four weights in a row along the input channels two become zero: the 2:4 pattern of NVIDIA's GPUs."""

    prune_params_name: NonEmpty[Text] | None = None
    """weights that are pruned; all that hold the pattern when left out"""


class TransformerPrune(Settings):
    """Heads of attention and feed-forward width are taken out of a transformer."""

    pruned_ratio: Share = Field(default=0.25, description="share of the heads and of the width that goes")


class Prune(TrainConfig):
    """Pruning, and training after it with the fp32 model as teacher.

    What is pruned, and in which order, the list in `strategy` says; the sub-sections say how.
    """

    epochs: int = Field(default=10, ge=1, le=100_000)
    learning_rate: float = Field(default=3e-4, gt=0, le=1)
    channel: ChannelPrune = ChannelPrune()
    unstructured: UnstructurePrune = UnstructurePrune()
    asp: ASPPrune = ASPPrune()
    transformer: TransformerPrune = TransformerPrune()
