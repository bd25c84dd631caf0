"""The speed-up of a smaller model over the whole one in fp32, measured before it is trained.

Training moves weights and not latency, and neither do the ranges of int8: so how much must go for a speed-up is known
within seconds of each guess.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from act.engines.base import RuntimePrecision
from act.engines.process import EngineFailure, EngineProcess
from act.engines.variants import export_variants
from act.program.model import InferenceModel
from act.results.select import SpeedupSearch
from act.samples.dataset import Array, Samples
from act.settings import EngineName, Target
from act.timing.rounds import TimedModel, time_in_rounds

log = logging.getLogger(__name__)

_ROUNDS, _RUNS, _WARM_UP_SECONDS, _LIMIT_SECONDS = 7, 20, 1.0, 300


@dataclass(frozen=True)
class Stopwatch:
    """Measures one smaller model after the other, in turn with the whole one.

    Attributes:
        batch: samples of the target's batch size, batch axis first.
        engine, precisions: what the smaller ones run on and in, where the quickest counts, as in the benchmark that
            follows; the whole one is in fp32.
        least_seconds: how long rounds go on at least.
    """

    whole: InferenceModel
    batch: Mapping[str, Array]
    target: Target
    engine: EngineName
    precisions: Sequence[RuntimePrecision] = ("fp32",)
    least_seconds: float = 4.0

    def __call__(self, smaller: InferenceModel) -> float:
        """Return how many times as fast the smaller model is, both in rounds that nothing disturbed.

        Raises:
            EngineFailure: the engine cannot run one of them.
        """
        with ExitStack() as stack:
            models = []
            in_fp32: Sequence[RuntimePrecision] = ("fp32",)
            for model, precisions in ((self.whole, in_fp32), (smaller, self.precisions)):
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                written = export_variants("model", model, self.batch, self.engine, precisions, folder)
                for precision in precisions:
                    file = written.files[precision]
                    process = EngineProcess(self.engine, file, precision, self.target.threads, _LIMIT_SECONDS)
                    models.append(TimedModel(stack.enter_context(process), written.samples, self.target.batch, _RUNS))
            for each in models:
                each.process.load()
                each.warm_up(_WARM_UP_SECONDS)
            time_in_rounds(models, _ROUNDS, least_seconds=self.least_seconds)
            for each in models:
                if each.failure is not None:
                    raise each.failure
            whole, *rest = (each.typical_seconds for each in models)
        return whole / min(rest)

    def __str__(self) -> str:
        return f"{self.engine} in {' or '.join(self.precisions)}"


def find_stopwatch(
    whole: InferenceModel, samples: Samples, target: Target, search: SpeedupSearch | None
) -> Stopwatch | None:
    """Return what measures speed-ups where the strategy says, else in fp32 on the target's first engine; None where
    that cannot run."""
    engine = search.engine if search else target.engines[0]
    precisions = cast("list[RuntimePrecision]", search.precisions if search else ["fp32"])
    stopwatch = Stopwatch(whole, samples.first(target.batch), target, engine, precisions)
    try:
        stopwatch(whole)
    except EngineFailure as failure:
        log.warning("prune: %s cannot be timed: %s", stopwatch, failure)
        return None
    return stopwatch
