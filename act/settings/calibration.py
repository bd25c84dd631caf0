"""`calibration`: the pass over the calibration samples."""

from __future__ import annotations

from pydantic import Field

from act.settings.base import BatchNumber, BatchSize, Settings


class Calibration(Settings):
    """The one pass over the calibration samples that every threshold rule reads its statistics from."""

    batch_size: BatchSize = 8
    batch_num: list[BatchNumber] = Field(
        default=[4, 16],
        min_length=1,
        max_length=8,
        description="numbers of batches after which the statistics are kept, for the search to choose from",
    )
