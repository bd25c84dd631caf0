"""The search over quantization settings: which threshold rule, and which layers stay in floating point.

First every threshold rule is tried with all layers quantized. Then, under the best rule, the most sensitive layers
are given back to floating point, one, two, four, ... of them. Every trial's quality is measured on a real engine.
Nothing here depends on a clock, so that the same samples give the same candidates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from act.model import InferenceModel
from act.params import PtqSearch, ThresholdAlgorithm
from act.quality import Quality
from act.quantization import Layer, Scheme, make_scheme
from tasks.ptq_search.sensitivity import LayerSensitivity
from tasks.ptq_search.statistics import TensorStatistics
from tasks.ptq_search.thresholds import rule

Evaluate = Callable[[Scheme], Quality]


@dataclass(frozen=True)
class Settings:
    """What one trial tries.

    Attributes:
        algorithm: the threshold rule.
        hist_percent: the share of values that `hist` covers; None for other rules.
        float_layers: the layers that stay in floating point.
    """

    algorithm: ThresholdAlgorithm
    hist_percent: float | None = None
    float_layers: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The settings with ACT's keys."""
        return {
            "ptq_algo": self.algorithm,
            "hist_percent": self.hist_percent,
            "float_layers": list(self.float_layers),
        }


@dataclass(frozen=True)
class Trial:
    """One quantized model and how good it is; `seconds` is the time that making and measuring it took."""

    number: int
    settings: Settings
    scheme: Scheme
    quality: Quality
    seconds: float


@dataclass
class Search:
    """Runs trials and keeps them all.

    Attributes:
        model: the fp32 model.
        layers: the layers that may be quantized.
        statistics: of every activation that they read.
        evaluate: gives the quality of the model that a scheme makes.
        settings: the user's limits of the search.
    """

    model: InferenceModel
    layers: Sequence[Layer]
    statistics: Mapping[str, TensorStatistics]
    evaluate: Evaluate
    settings: PtqSearch
    trials: list[Trial] = field(default_factory=list)

    def thresholds(self, algorithm: ThresholdAlgorithm, hist_percent: float | None) -> dict[str, float]:
        """The threshold of every activation under one rule."""
        apply = rule(algorithm, hist_percent)
        return {name: apply(statistics) for name, statistics in self.statistics.items()}

    def rules(self) -> list[Settings]:
        """Each threshold rule with all layers quantized."""
        shares = self.settings.hist_percent
        return [
            Settings(rule, share)
            for rule in self.settings.algorithms
            for share in (shares if rule == "hist" else [None])
        ]

    def float_layers(self, sensitivities: Sequence[LayerSensitivity]) -> list[Settings]:
        """The best settings so far with the most sensitive layers left in floating point: one, two, four, ..."""
        best, most = self.best().settings, min(self.settings.max_float_layers, len(self.layers) - 1)
        counts = [2**power for power in range(most.bit_length())]
        return [
            Settings(best.algorithm, best.hist_percent, tuple(entry.layer for entry in sensitivities[:count]))
            for count in counts
        ]

    def run(self, settings: Settings) -> Trial:
        """Make one trial and keep it."""
        started = time.perf_counter()
        chosen = [layer for layer in self.layers if layer.name not in settings.float_layers]
        scheme = make_scheme(self.model, chosen, self.thresholds(settings.algorithm, settings.hist_percent))
        quality = self.evaluate(scheme)
        trial = Trial(len(self.trials), settings, scheme, quality, time.perf_counter() - started)
        self.trials.append(trial)
        return trial

    def best(self) -> Trial:
        """The trial of highest quality; of equal ones the one with fewer float layers, then the earlier one."""
        return min(self.trials, key=lambda t: (-t.quality.value, len(t.settings.float_layers), t.number))

    def candidates(self) -> list[Trial]:
        """What is worth exporting: the best with all layers quantized, and the best of all where that is better."""
        whole = min((t for t in self.trials if not t.settings.float_layers), key=lambda t: (-t.quality.value, t.number))
        best = self.best()
        return [whole] if best.number == whole.number else [whole, best]
