"""The quantization settings that a search may try, as samplers see them: drawn, varied and turned into numbers.

The parameters and their names are those of ACT's `QuantPost` in PaddleSlim. One is conditional in the sense of SMAC
(Hutter, Hoos, Leyton-Brown: Sequential Model-Based Optimization for General Algorithm Configuration, 2011):
`hist_percent` exists only under threshold rules that take a share.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from act.quantization.thresholds import FAMILIES, find
from act.results.ptq_search import TrialSettings
from act.settings import PtqSearch

PARAMETERS = tuple(TrialSettings.model_fields)
WEIGHTS_BY_MERIT = ("channel_wise_abs_max", "channel_wise_mse", "abs_max")
GOOD_SHARE = 0.9999
GOOD_STRENGTH = 0.5
MOST_FIRST = 6

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Space:
    """The choices of every parameter of `TrialSettings`, one or more and all different; iteration gives every setting
    once, always in the same order."""

    ptq_algo: tuple[str, ...]
    hist_percent: tuple[float, ...]
    batch_num: tuple[int, ...]
    activation_symmetric: tuple[bool, ...]
    weight_quantize_type: tuple[str, ...]
    bias_correct: tuple[bool, ...]
    quantizable_op_type: tuple[tuple[str, ...], ...]
    float_layers: tuple[int, ...]
    smooth_strength: tuple[float | None, ...] = (None,)

    @classmethod
    def of(
        cls,
        settings: PtqSearch,
        batch_nums: Sequence[int],
        op_types: Sequence[str],
        strengths: Sequence[float] = (),
    ) -> Space:
        """Return the space of a job.

        Args:
            batch_nums: ascending, that have statistics.
            op_types: the layers', one each.
            strengths: of smoothing, that have statistics; none where there is nothing to be smoothed.
        """
        present = tuple(kind for kind in settings.quantizable_op_type if kind in op_types)
        # Depthwise convolutions hold few of the MACs and lose most in int8; matrix products are the next to go.
        subsets = [present, tuple(kind for kind in present if kind != "depthwise_conv2d")]
        subsets.append(tuple(kind for kind in present if kind in ("conv2d", "depthwise_conv2d", "conv2d_transpose")))
        most = min(settings.max_float_layers, len(op_types) - 1)
        allowed = settings.batch_num or batch_nums
        smoothing = settings.smooth_strength or (None, *strengths)
        return cls(
            tuple(settings.ptq_algo),
            tuple(settings.hist_percent),
            tuple(number for number in batch_nums if number in allowed) or (batch_nums[-1],),
            tuple(settings.activation_symmetric),
            tuple(settings.weight_quantize_type),
            tuple(settings.bias_correct),
            tuple(dict.fromkeys(subset for subset in subsets if subset)),
            (0, *(2**power for power in range(most.bit_length()))),
            tuple(each for each in (None, *strengths) if each in smoothing) or (None,),
        )

    @property
    def size(self) -> int:
        """The number of different settings."""
        return sum(math.prod(map(len, self._choices(rule))) for rule in self.ptq_algo)

    def __iter__(self) -> Iterator[TrialSettings]:
        for rule in self.ptq_algo:
            for choice in itertools.product(*self._choices(rule)):
                yield _setting(rule, *choice)

    def first(self) -> list[TrialSettings]:
        """Return one to six settings to begin with, the most promising first.

        Asymmetric activations with each family of rules, then symmetric ones, which lose quality and run faster. In
        turn with the fewest and the most layers in float, so that both ends of cost are seen: on some models no rule
        makes up for a sensitive layer. One pair of these in turn without smoothing and with SmoothQuant's own strength.
        The other parameters have the choice that loses the least quality.
        """
        settings: list[TrialSettings] = []
        for symmetric in sorted(self.activation_symmetric):
            for family in FAMILIES:
                members = [name for name in self.ptq_algo if find(name).family == family]
                if not members:
                    continue
                rule = min(members, key=lambda name: find(name).place)
                share = min(self._shares(rule), key=lambda share: abs((share or 0) - GOOD_SHARE))
                weights = min(self.weight_quantize_type, key=WEIGHTS_BY_MERIT.index)
                op_types = max(self.quantizable_op_type, key=len)
                layers = (max if len(settings) % 2 else min)(self.float_layers)
                wanted = GOOD_STRENGTH if len(settings) // 2 % 2 else 0.0
                smoothing = min(self.smooth_strength, key=lambda strength: abs((strength or 0.0) - wanted))
                best = (rule, share, max(self.batch_num), symmetric, weights, max(self.bias_correct), op_types, layers)
                settings.append(_setting(*best, smoothing))
        return settings[:MOST_FIRST]

    def sample(self, rng: np.random.Generator) -> TrialSettings:
        """Return a random setting: every parameter that exists is uniform over its choices."""
        rule = _pick(rng, self.ptq_algo)
        return _setting(rule, *(_pick(rng, choices) for choices in self._choices(rule)))

    def neighbours(self, setting: TrialSettings, rng: np.random.Generator, count: int) -> list[TrialSettings]:
        """Return random different settings that differ from one in one or two parameters.

        A `hist_percent` that comes or goes with its rule does not count as a parameter of its own. There are fewer
        than `count` where the space has fewer, or few enough to be drawn again and again.
        """
        every = zip(PARAMETERS, (self.ptq_algo, *self._choices(setting.ptq_algo)))
        others = {name: [choice for choice in choices if choice != getattr(setting, name)] for name, choices in every}
        alternatives = {name: choices for name, choices in others.items() if choices}
        neighbours: dict[TrialSettings, None] = {}
        for _ in range(4 * count if alternatives else 0):
            order = rng.permutation(len(alternatives))[: rng.integers(1, 3)]
            names = [list(alternatives)[i] for i in order]
            changes = {name: _pick(rng, alternatives[name]) for name in names}
            if "ptq_algo" in changes:
                changes["hist_percent"] = _pick(rng, self._shares(changes["ptq_algo"]))
            neighbours[setting.model_copy(update=changes)] = None
            if len(neighbours) == count:
                break
        return list(neighbours)

    @property
    def feature_owner(self) -> tuple[str, ...]:
        """The parameter that each column of `encode` belongs to."""
        features = self._features(next(iter(self)))
        return tuple(name for name in PARAMETERS for _ in features[name])

    def encode(self, settings: Sequence[TrialSettings]) -> NDArray[np.float64]:
        """Return settings as numbers for a regression: float64 [settings, features], columns as in `feature_owner`.

        Categories are one-hot, operator types 0 or 1 each, a share is its negative decimal logarithm of what it
        leaves out (0 where there is none), counts are logarithms to base 2, no smoothing is a strength of -1.
        """
        features = map(self._features, settings)
        return np.array([[value for name in PARAMETERS for value in each[name]] for each in features], dtype=np.float64)

    def _features(self, setting: TrialSettings) -> dict[str, list[float]]:
        # 1e-16 is below the distance of any float under 1 from 1, so that the share 1 differs from all others.
        left_out = 1.0 if setting.hist_percent is None else max(1 - setting.hist_percent, 1e-16)
        op_types = sorted(set().union(*self.quantizable_op_type))
        return {
            "ptq_algo": [setting.ptq_algo == name for name in self.ptq_algo],
            "hist_percent": [-math.log10(left_out)],
            "batch_num": [math.log2(setting.batch_num)],
            "activation_symmetric": [setting.activation_symmetric],
            "weight_quantize_type": [setting.weight_quantize_type == name for name in self.weight_quantize_type],
            "bias_correct": [setting.bias_correct],
            "quantizable_op_type": [name in setting.quantizable_op_type for name in op_types],
            "float_layers": [math.log2(1 + setting.float_layers)],
            "smooth_strength": [-1.0 if setting.smooth_strength is None else setting.smooth_strength],
        }

    def _shares(self, rule: str) -> tuple[float | None, ...]:
        return self.hist_percent if find(rule).takes_share else (None,)

    def _choices(self, rule: str) -> tuple[tuple[Any, ...], ...]:
        """Return the choices of all parameters under a threshold rule, in order."""
        return (self._shares(rule), *(getattr(self, name) for name in PARAMETERS[2:]))


def _setting(*values: Any) -> TrialSettings:
    return TrialSettings(**dict(zip(PARAMETERS, values)))


def _pick(rng: np.random.Generator, choices: Sequence[Choice]) -> Choice:
    # Not `rng.choice`: it gives numpy's scalars, which are no JSON.
    return choices[int(rng.integers(len(choices)))]
