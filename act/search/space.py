"""The quantization settings that a search may try, as samplers see them: drawn, varied and turned into numbers.

The parameters and their names are those of ACT's `QuantPost` in PaddleSlim. One is conditional in the sense of SMAC
(Hutter, Hoos, Leyton-Brown: Sequential Model-Based Optimization for General Algorithm Configuration, 2011):
`hist_percent` exists only under threshold rules that take a share.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from act.quantization.thresholds import FAMILIES, find
from act.results.ptq_search import TrialSettings
from act.settings import PtqSearch, ThresholdAlgorithm, WeightQuantization

# Field of `Setting` -> the parameter's name in ACT.
ACT_KEYS = {
    "algorithm": "ptq_algo",
    "hist_percent": "hist_percent",
    "batch_num": "batch_num",
    "symmetric": "activation_symmetric",
    "weight_quantize_type": "weight_quantize_type",
    "bias_correct": "bias_correct",
    "op_types": "quantizable_op_type",
    "float_layers": "float_layers",
}

WEIGHTS_BY_MERIT: tuple[WeightQuantization, ...] = ("channel_wise_abs_max", "channel_wise_mse", "abs_max")
GOOD_SHARE = 0.9999
MOST_FIRST = 6

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Setting:
    """What one trial tries.

    Attributes:
        algorithm: the rule for the activations' thresholds.
        hist_percent: the share of values that a rule covers; None for rules that take none.
        batch_num: the number of calibration batches.
        symmetric: whether the activations' zero point is 0.
        op_types: the operator types that are quantized.
        float_layers: how many of the most sensitive layers stay in floating point.
    """

    algorithm: ThresholdAlgorithm
    hist_percent: float | None
    batch_num: int
    symmetric: bool
    weight_quantize_type: WeightQuantization
    bias_correct: bool
    op_types: tuple[str, ...]
    float_layers: int

    def to_result(self) -> TrialSettings:
        """Return the setting with ACT's keys."""
        return TrialSettings(**{key: getattr(self, name) for name, key in ACT_KEYS.items()})


@dataclass(frozen=True)
class Space:
    """The choices of every parameter of `Setting`, one or more and all different; iteration gives every setting once,
    always in the same order."""

    algorithms: tuple[ThresholdAlgorithm, ...]
    hist_percents: tuple[float, ...]
    batch_nums: tuple[int, ...]
    symmetric: tuple[bool, ...]
    weight_quantize_types: tuple[WeightQuantization, ...]
    bias_correct: tuple[bool, ...]
    op_types: tuple[tuple[str, ...], ...]
    float_layers: tuple[int, ...]

    @classmethod
    def of(cls, settings: PtqSearch, batch_nums: Sequence[int], op_types: Sequence[str]) -> Space:
        """Return the space of a job for one model.

        Args:
            batch_nums: those that there are statistics of, ascending.
            op_types: of the model's layers, one each.
        """
        present = tuple(kind for kind in settings.quantizable_op_type if kind in op_types)
        # Depthwise convolutions hold few of the MACs and lose most in int8; matrix products are the next to go.
        subsets = [present, tuple(kind for kind in present if kind != "depthwise_conv2d")]
        subsets.append(tuple(kind for kind in present if kind in ("conv2d", "depthwise_conv2d", "conv2d_transpose")))
        most = min(settings.max_float_layers, len(op_types) - 1)
        allowed = settings.batch_num or batch_nums
        chosen = [number for number in batch_nums if number in allowed] or [batch_nums[-1]]
        return cls(
            algorithms=tuple(settings.ptq_algo),
            hist_percents=tuple(settings.hist_percent),
            batch_nums=tuple(chosen),
            symmetric=tuple(settings.activation_symmetric),
            weight_quantize_types=tuple(settings.weight_quantize_type),
            bias_correct=tuple(settings.bias_correct),
            op_types=tuple(dict.fromkeys(subset for subset in subsets if subset)),
            float_layers=(0, *(2**power for power in range(most.bit_length()))),
        )

    @property
    def size(self) -> int:
        """The number of different settings."""
        return sum(math.prod(map(len, self._choices(algorithm))) for algorithm in self.algorithms)

    def __iter__(self) -> Iterator[Setting]:
        for algorithm in self.algorithms:
            for choice in itertools.product(*self._choices(algorithm)):
                yield Setting(algorithm, *choice)

    def first(self) -> list[Setting]:
        """Return one to six settings to begin with, the most promising first.

        Asymmetric activations with each family of rules, then symmetric ones, which lose quality and run faster. In
        turn with the fewest and the most layers in float, so that both ends of cost are seen: on some models no rule
        makes up for a sensitive layer. The other parameters have the choice that loses the least quality.
        """
        settings: list[Setting] = []
        for symmetric in sorted(self.symmetric):
            for family in FAMILIES:
                members = [name for name in self.algorithms if find(name).family == family]
                algorithm = min(members, key=lambda name: find(name).place, default=None)
                if algorithm is not None:
                    end = max if len(settings) % 2 else min
                    settings.append(self._promising(algorithm, symmetric, end(self.float_layers)))
        return settings[:MOST_FIRST]

    def sample(self, rng: np.random.Generator) -> Setting:
        """Return a random setting: every parameter that exists is uniform over its choices."""
        algorithm = _pick(rng, self.algorithms)
        return Setting(algorithm, *(_pick(rng, choices) for choices in self._choices(algorithm)))

    def neighbours(self, setting: Setting, rng: np.random.Generator, count: int) -> list[Setting]:
        """Return random different settings that differ from one in one or two parameters.

        A `hist_percent` that comes or goes with its rule does not count as a parameter of its own. There are fewer
        than `count` where the space has fewer, or few enough to be drawn again and again.
        """
        alternatives = self._alternatives(setting)
        neighbours: dict[Setting, None] = {}
        for _ in range(4 * count if alternatives else 0):
            order = rng.permutation(len(alternatives))[: rng.integers(1, 3)]
            names = [list(alternatives)[i] for i in order]
            neighbours[self._changed(setting, {name: _pick(rng, alternatives[name]) for name in names}, rng)] = None
            if len(neighbours) == count:
                break
        return list(neighbours)

    @property
    def feature_owner(self) -> tuple[str, ...]:
        """ACT's name of the parameter that each column of `encode` belongs to."""
        widths = {
            "algorithm": len(self.algorithms),
            "weight_quantize_type": len(self.weight_quantize_types),
            "op_types": len(self._operators()),
        }
        return tuple(key for name, key in ACT_KEYS.items() for _ in range(widths.get(name, 1)))

    def encode(self, settings: Sequence[Setting]) -> NDArray[np.float64]:
        """Return settings as numbers for a regression: float64 [settings, features], columns as in `feature_owner`.

        Categories are one-hot, operator types 0 or 1 each, a share is its negative decimal logarithm of what it
        leaves out (0 where there is none), counts are logarithms to base 2.
        """
        rows = [self._row(setting) for setting in settings]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.feature_owner))

    def _row(self, setting: Setting) -> list[float]:
        # 1e-16 is below the distance of any float under 1 from 1, so that the share 1 differs from all others.
        left_out = 1.0 if setting.hist_percent is None else max(1 - setting.hist_percent, 1e-16)
        return [
            *(float(setting.algorithm == name) for name in self.algorithms),
            -math.log10(left_out),
            math.log2(setting.batch_num),
            float(setting.symmetric),
            *(float(setting.weight_quantize_type == name) for name in self.weight_quantize_types),
            float(setting.bias_correct),
            *(float(name in setting.op_types) for name in self._operators()),
            math.log2(1 + setting.float_layers),
        ]

    def _operators(self) -> list[str]:
        return sorted({name for choice in self.op_types for name in choice})

    def _shares(self, algorithm: str) -> tuple[float | None, ...]:
        return self.hist_percents if find(algorithm).takes_share else (None,)

    def _choices(self, algorithm: str) -> tuple[tuple[Any, ...], ...]:
        """Return the choices of all parameters under a threshold rule, in the order of `Setting`."""
        return (
            self._shares(algorithm),
            self.batch_nums,
            self.symmetric,
            self.weight_quantize_types,
            self.bias_correct,
            self.op_types,
            self.float_layers,
        )

    def _promising(self, algorithm: ThresholdAlgorithm, symmetric: bool, float_layers: int) -> Setting:
        share = min(self.hist_percents, key=lambda p: abs(p - GOOD_SHARE)) if find(algorithm).takes_share else None
        return Setting(
            algorithm,
            share,
            max(self.batch_nums),
            symmetric,
            min(self.weight_quantize_types, key=WEIGHTS_BY_MERIT.index),
            max(self.bias_correct),
            max(self.op_types, key=len),
            float_layers,
        )

    def _alternatives(self, setting: Setting) -> dict[str, list[Any]]:
        """Return the other choices of each parameter that can change, by field of `Setting`."""
        every = zip(ACT_KEYS, (self.algorithms, *self._choices(setting.algorithm)))
        others = {name: [choice for choice in choices if choice != getattr(setting, name)] for name, choices in every}
        return {name: choices for name, choices in others.items() if choices}

    def _changed(self, setting: Setting, changes: dict[str, Any], rng: np.random.Generator) -> Setting:
        if "algorithm" in changes:
            changes = {**changes, "hist_percent": _pick(rng, self._shares(changes["algorithm"]))}
        return replace(setting, **changes)


def _pick(rng: np.random.Generator, choices: Sequence[Choice]) -> Choice:
    # Not `rng.choice`: it gives numpy's scalars, which are no JSON.
    return choices[int(rng.integers(len(choices)))]
