"""What a model that does not exist yet would take: whole as it was measured, pruned as the latency model says.

`analyze` measures the model itself on each engine, in fp32, bf16 and int8, with the kernels that the engine made of it.
For what is pruned those kernels get fewer channels and are predicted: from the table that `act.strategy.profile`
measured on this machine, where there is one, and from the model's own kernels in any case.
"""

from __future__ import annotations

from dataclasses import astuple
from functools import cached_property
from pathlib import Path

from act.strategy.latency.model import Latency, LatencyModel
from act.strategy.latency.scale_channels import scale_to_macs
from act.strategy.latency.table import FOLDER, Table, find_table


class Predictor:
    """The latencies of one model on one engine.

    Args:
        own: the table of the model's own measurements.
        folder: where the tables of machines are.
    """

    def __init__(self, own: Table, folder: Path = FOLDER) -> None:
        self._table = find_table(own.header, folder)
        self._threads = own.rows[0].threads if own.rows else 1
        self._measured = {row.precision: row.measured for row in own.rows if row.failure is None}

    @property
    def source(self) -> str:
        """Tell where predictions come from."""
        if self._table is None:
            return "the model's own kernels alone, for there is no table of this machine: roughly"
        return f"the table {self._table.path.name}"

    def latency(self, precision: str, share: float) -> Latency | None:
        """Return the latency with a share of the MACs left, below 1; None where the engine told no kernels."""
        whole = self._measured.get(precision)
        if whole is None or not whole.kernels:
            return None
        kernels = [kernel for kernel, _ in whole.kernels]
        # What the model makes of the whole is known to be wrong by so much, and so is what it makes of a part.
        known = whole.seconds / self._model.predict(kernels).seconds
        return Latency(*(known * each for each in astuple(self._model.predict(scale_to_macs(kernels, share)))))

    @cached_property
    def _model(self) -> LatencyModel:
        own = [measured for measured in self._measured.values() if measured.kernels]
        if self._table is None:
            return LatencyModel(own, errors=())
        others, errors = self._table.measured(self._threads), self._table.noted.get(self._threads, ())
        return LatencyModel([*others, *own], errors)
