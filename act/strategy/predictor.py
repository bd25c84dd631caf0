"""What a model that does not exist yet would take: whole as it was measured, pruned as the latency model says.

`analyze` measures the model itself on each engine, in fp32, bf16 and int8, with the kernels that the engine made of it.
For what is pruned those kernels get fewer channels and are predicted: from the table that `act.strategy.profile`
measured on this machine, where there is one, and from the model's own kernels in any case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from act.strategy.latency.kernel import Kernel
from act.strategy.latency.model import LatencyModel, Measured
from act.strategy.latency.scale_channels import scale_to_macs
from act.strategy.latency.table import FOLDER, Table, find_table


@dataclass(frozen=True)
class Latency:
    """Seconds of one inference, and the error bar; all three alike where it was measured."""

    seconds: float
    low: float
    high: float


class Predictor:
    """The latencies of one model on one engine.

    Args:
        own: the table of the model's own measurements.
        folder: where the tables of machines are.
    """

    def __init__(self, own: Table, folder: Path = FOLDER) -> None:
        self._own = own
        self._table = find_table(own.header, folder)
        self._threads = own.rows[0].threads if own.rows else 1
        self._measured: Mapping[str, Measured] = {
            row.precision: row.measured for row in own.rows if row.failure is None
        }

    def has_kernels(self, precision: str) -> bool:
        """Tell whether the engine ran the model in this precision and told its kernels."""
        return precision in self._measured and len(self._measured[precision].kernels) > 0

    @property
    def source(self) -> str:
        """Tell where predictions come from."""
        if self._table is None:
            return "the model's own kernels alone, for there is no table of this machine: roughly"
        return f"the table {self._table.path.name}"

    def latency(self, precision: str, share: float = 1.0) -> Latency:
        """Return the latency with a share of the MACs left.

        Raises:
            KeyError: the engine did not run the model in this precision.
        """
        whole = self._measured[precision]
        if share >= 1.0:
            return Latency(whole.seconds, whole.seconds, whole.seconds)
        kernels = [kernel for kernel, _ in whole.kernels]
        # What the model makes of the whole is known to be wrong by so much, and so is what it makes of a part.
        known = whole.seconds / self._predict(kernels)[0]
        seconds, low, high = self._predict(scale_to_macs(kernels, share))
        return Latency(seconds * known, low * known, high * known)

    def _predict(self, kernels: list[Kernel]) -> tuple[float, float, float]:
        found = self._model.predict(kernels)
        return found.seconds, found.low, found.high

    @cached_property
    def _model(self) -> LatencyModel:
        others: list[Measured] = []
        if self._table is not None and self._threads in self._table.threads:
            others = self._table.measured(self._threads)
        own = [measured for measured in self._measured.values() if measured.kernels]
        errors = self._table.noted.get(self._threads, []) if self._table is not None else []
        return LatencyModel([*others, *own], errors=errors)
