"""`analyze` and `benchmark`: how sensitivity, latency and throughput are measured."""

from typing import Annotated

from pydantic import Field

from act.settings.base import Ascending, NonEmpty, Seed, Settings, Share


class Analyze(Settings):
    """How each layer's sensitivity is measured; 0 samples or 0 seconds measure none."""

    samples: int = Field(default=8, ge=0, le=1024, description="calibration samples, at most")
    prune_ratios: Ascending[Share] = Field(default=[0.1, 0.3, 0.5], description="shares of a layer's channels")
    time_limit_seconds: float = Field(default=60, ge=0, le=24 * 3600, description="after which no layer is begun")


class Timing(Settings):
    """How latency and throughput are measured."""

    rounds: int = Field(default=20, ge=3, le=10_000)
    """in each, every candidate takes a turn, in random order; a candidate's latency is the 20 % quantile of its turns'
    medians, so that many short rounds tell more than few long ones"""
    runs_per_round: int = Field(default=4, ge=1, le=10_000)
    seconds: float = Field(default=8.0, ge=0, le=24 * 3600)
    """rounds go on for at least so long, because those of small models would all fall into one moment of what else the
    machine does; below 1 s it ends warming up, too"""
    time_limit_seconds: float = Field(default=300, gt=0, le=24 * 3600, description="for one candidate on one engine")
    streams: int | None = Field(default=None, ge=1, le=256)
    """inferences at a time when throughput is measured; as many as there are cores for when left out, 1 measures
    none"""
    seed: Seed = 0


class Benchmark(Timing):
    """How the candidates of a job are measured."""

    shapes: list[dict[str, NonEmpty[Annotated[int, Field(ge=1)]]]] = Field(default=[], max_length=16)
    """further shapes of the inputs to measure the latency of, for models with dynamic axes: for each feed the shape of
    a sample, without the batch axis"""
