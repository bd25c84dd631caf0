"""The latency of kernels and of whole models, learned from a table of measurements; with an error bar on each answer.

A kernel that was measured answers from the table. For others there is a model for each kind of kernel and precision:
a roofline (a start, MACs, bytes; each at a rate that is not negative, fitted for relative errors), and
extremely randomised trees (Geurts et al., 2006) and a support-vector machine, averaged, that learn how far kernels lie
from it (scikit-learn): trees know the steps that blocks of channels make, the machine what lies between. A whole model
takes the sum over its fused kernels plus what was measured to be left over: a start, and something for each kernel.

A kernel's weights lie in a nearer cache the less the whole network has of them: a layer of 4 MB took 150 us in a
network of 17 MB and 300 in one of 32; and the less a network makes on the way, the nearer is all that it reads again.
So the weights of the whole network, and these with all that its kernels make, are features of each of its kernels; and
a measurement answers only for networks of about the same size.

Nothing learned is stored: fitting takes seconds, always gives the same from the same table, and depends on no format
but the table's.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls  # type: ignore[import-untyped]
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from act.strategy.latency.features import Vector, costs, features
from act.strategy.latency.kernel import Kernel

# A counter counts whole microseconds.
SHORTEST_SECONDS = 0.3e-6
SMALL_WEIGHTS = 64 * 1024
TREES = 48
_SMOOTH = {"C": 10.0, "epsilon": 0.02, "gamma": 0.02}
# Of the mean of both, the machine's share.
SMOOTH_SHARE = 0.7
# A kernel's weight in the fit goes with this power of its time: long ones make up the whole, and are measured better.
WEIGHT_POWER = 0.3
SEED = 0
FEWEST_FOR_TREES = 12
# What does not multiply and is rarer answers from all others that do not.
FEWEST_OF_A_KIND = 3
# Convolutions of so few channels are of the model's input, with kernels of their own.
_PICTURE_CHANNELS = 4
_RESIZING = ("Resize", "Upsample", "Interpolate")
# Kernels' times are changed by no more than this to come to the whole.
MOST_LEVELLED = 1.3
FOLDS = 5
WITHIN = 0.9
_OTHERS = ("", "")
# More than these are thinned out, for a support-vector machine takes the square of their number; of what does not
# multiply there may be as many.
MOST_TO_FIT = 4000


@dataclass(frozen=True)
class Measured:
    """A network that was measured as a whole and kernel by kernel, at one precision and number of threads.

    Attributes:
        name: of the network; what is left out together when errors are estimated.
        seconds: of one inference.
        kernels: with their seconds, in order.
    """

    name: str
    seconds: float
    kernels: Sequence[tuple[Kernel, float]]


@dataclass(frozen=True)
class KernelPrediction:
    """A kernel's latency.

    Attributes:
        kernel: which.
        seconds: of it.
        error: the standard deviation of its relative error; 0 where it was measured.
        measured: whether the table has this very kernel.
    """

    kernel: Kernel
    seconds: float
    error: float
    measured: bool


@dataclass(frozen=True)
class Prediction:
    """A model's latency.

    Attributes:
        seconds: of one inference.
        low, high: within which nine of ten measurements of such models lie.
        kernels: the parts.
        left_over: seconds that no kernel accounts for; may be negative, for counting costs time.
    """

    seconds: float
    low: float
    high: float
    kernels: Sequence[KernelPrediction] = field(repr=False)
    left_over: float

    @property
    def measured_share(self) -> float:
        """The share of the kernels' time that comes from the table."""
        total = sum(kernel.seconds for kernel in self.kernels)
        return sum(kernel.seconds for kernel in self.kernels if kernel.measured) / total if total else 0.0


@dataclass(frozen=True)
class _Placed:
    """A kernel within a network.

    Attributes:
        around: bytes of all weights of the network.
        touched: those, and what its kernels make.
        lasts: seconds of the network, by a first guess.
    """

    kernel: Kernel
    around: int
    touched: int
    lasts: float

    @cached_property
    def features(self) -> list[float]:
        around, touched = max(1, self.around), max(1, self.touched)
        own = math.log2(1 + self.kernel.weight_bytes / around)
        return [*features(self.kernel), math.log2(around), own, math.log2(touched), math.log2(self.lasts)]

    @property
    def answers_for(self) -> tuple[Kernel, int, int]:
        """What is the same for all that this one's measurement answers for."""
        small = self.kernel.weight_bytes < SMALL_WEIGHTS
        around = 0 if small else round(math.log2(max(1, self.around)))
        return self.kernel, around, round(math.log2(max(1, self.touched)))


def _weights(seconds: Vector) -> Vector:
    weights: Vector = (seconds / np.median(seconds)) ** WEIGHT_POWER
    return weights


class _Roofline:
    """The kernels of one kind and precision: a rate, not negative, for each of their costs.

    Args:
        seconds: measured, of each kernel.
    """

    def __init__(self, kernels: Sequence[Kernel], seconds: Vector) -> None:
        self.count = len(seconds)
        root = np.sqrt(_weights(seconds))
        self._rates = nnls(self._costs(kernels) * (root / seconds)[:, None], root)[0]

    @staticmethod
    def _costs(kernels: Sequence[Kernel]) -> Vector:
        return np.array([costs(kernel) for kernel in kernels])

    def predict(self, kernels: Sequence[Kernel]) -> Vector:
        """Seconds of each."""
        return np.maximum(self._costs(kernels) @ self._rates, SHORTEST_SECONDS)


class _KindModel:
    """How far the kernels of one kind and precision lie from their roofline."""

    def __init__(self, roofline: _Roofline, placed: Sequence[_Placed], seconds: Vector) -> None:
        self._roofline = roofline
        self._trees: ExtraTreesRegressor | None = None
        self._smooth: Any = None
        # Factors farther from the roofline than any that was measured are a mistake.
        self._farthest = (0.0, 0.0)
        self.error = 0.5
        if len(placed) >= FEWEST_FOR_TREES:
            base, weights = roofline.predict([each.kernel for each in placed]), _weights(seconds)
            wanted = np.log(seconds / base)
            features = self._features(placed)
            with warnings.catch_warnings():  # of samples that every tree has seen, for they weigh most: they are few
                warnings.filterwarnings("ignore", message="Some inputs do not have OOB scores")
                self._trees = ExtraTreesRegressor(
                    TREES, max_features=1.0, bootstrap=True, oob_score=True, random_state=SEED, n_jobs=1
                ).fit(features, wanted, sample_weight=weights)
            self._smooth = make_pipeline(StandardScaler(), SVR(**_SMOOTH)).fit(
                features, wanted, svr__sample_weight=weights
            )
            missed = self._trees.oob_prediction_ - wanted
            self.error = float(np.sqrt(np.mean(missed**2)))
            self._farthest = float(np.min(wanted)), float(np.max(wanted))

    @staticmethod
    def _features(placed: Sequence[_Placed]) -> Vector:
        return np.array([each.features for each in placed])

    def predict(self, placed: Sequence[_Placed]) -> Vector:
        base = self._roofline.predict([each.kernel for each in placed])
        if self._trees is None:
            return base
        table = self._features(placed)
        # What the forest's own `predict` does, without its checks of each tree's input, which take most of its time.
        narrow = table.astype(np.float32)
        trees = np.mean([tree.tree_.predict(narrow)[:, 0] for tree in self._trees.estimators_], axis=0)
        found = (1 - SMOOTH_SHARE) * trees + SMOOTH_SHARE * self._at(table)
        return base * np.exp(np.clip(found, *self._farthest))

    def _at(self, table: Vector) -> Vector:
        """What the machine's own `predict` gives, sooner: the distances are a product of matrices, in float32."""
        scaler, machine = self._smooth[0], self._smooth[-1]
        scaled = ((table - scaler.mean_) / scaler.scale_).astype(np.float32)
        support = machine.support_vectors_.astype(np.float32)
        squared = (scaled**2).sum(axis=1)[:, None] + (support**2).sum(axis=1) - 2 * scaled @ support.T
        near = np.exp(np.float32(-machine.gamma) * squared)
        found: Vector = near @ machine.dual_coef_[0].astype(np.float32) + machine.intercept_[0]
        return found


class LatencyModel:
    """Predicts the latency of kernels and of models on one engine, with one number of threads.

    Args:
        measured: networks; those of all precisions together, for a kernel carries its own.
        corrections: what an error bar is made from: of each network that was left out of the fit, the logarithm of
            measured to predicted. Estimated by cross-validation over the networks when left out.
    """

    def __init__(self, measured: Sequence[Measured], errors: Sequence[float] | None = None) -> None:
        if not measured:
            raise ValueError("there is nothing measured to learn from")
        self._left_over = _left_over(measured)
        measured = [_levelled(network, self._left_over) for network in measured]
        self._rooflines = _rooflines(measured)
        gathered: dict[tuple[Kernel, int, int], list[float]] = defaultdict(list)
        self._members: dict[tuple[str, str], list[tuple[_Placed, float]]] = defaultdict(list)
        for network in measured:
            placed = self._placed([kernel for kernel, _ in network.kernels])
            for each, (kernel, told) in zip(placed, network.kernels):
                seconds = max(told, SHORTEST_SECONDS)
                gathered[each.answers_for].append(seconds)
                for kind in _kinds(kernel):
                    self._members[kind].append((each, seconds))
        self._known = {place: float(np.median(values)) for place, values in gathered.items()}
        self._fitted: dict[tuple[str, str], _KindModel] = {}
        self.errors = list(errors) if errors is not None else cross_validate(measured)

    def predict_kernels(self, kernels: Sequence[Kernel]) -> list[KernelPrediction]:
        """The latency of each kernel of a network that consists of these."""
        found: dict[Kernel, KernelPrediction] = {}
        unknown: dict[tuple[str, str], list[_Placed]] = defaultdict(list)
        for each in {each.kernel: each for each in self._placed(kernels)}.values():
            seconds = self._known.get(each.answers_for)
            if seconds is None:
                unknown[_kind(each.kernel)].append(each)
            else:
                found[each.kernel] = KernelPrediction(each.kernel, seconds, 0.0, True)
        for members in unknown.values():
            model = self._fit(self._answering(members[0].kernel))
            for each, predicted in zip(members, model.predict(members)):
                found[each.kernel] = KernelPrediction(each.kernel, float(predicted), model.error, False)
        return [found[kernel] for kernel in kernels]

    def fit_all(self) -> None:
        """Fit every kind of kernel now, and not when the first of its kind is asked for."""
        for kind in self._members:
            self._fit(kind)

    def _fit(self, kind: tuple[str, str]) -> _KindModel:
        if kind not in self._fitted:
            members = self._members[kind]
            members = members[:: math.ceil(len(members) / MOST_TO_FIT)]
            self._fitted[kind] = _KindModel(
                self._rooflines[kind], [each for each, _ in members], np.array([seconds for _, seconds in members])
            )
        return self._fitted[kind]

    def _placed(self, kernels: Sequence[Kernel]) -> list[_Placed]:
        around = sum(kernel.weight_bytes for kernel in kernels)
        touched = around + sum(kernel.output.bytes for kernel in kernels)
        kinds: dict[tuple[str, str], list[Kernel]] = defaultdict(list)
        for kernel in kernels:
            kinds[self._answering(kernel)].append(kernel)
        lasts = sum(float(self._rooflines[kind].predict(members).sum()) for kind, members in kinds.items())
        return [_Placed(kernel, around, touched, lasts) for kernel in kernels]

    def _answering(self, kernel: Kernel) -> tuple[str, str]:
        """A kernel's kind; where too few of it were measured, the one that is most like it."""
        kind = _kind(kernel)
        least = 1 if kernel.multiplies else FEWEST_OF_A_KIND
        if kind in self._rooflines and self._rooflines[kind].count >= least:
            return kind
        plain = (kernel.kind, kernel.computes_in) if kernel.multiplies else _OTHERS
        if plain in self._rooflines:
            return plain
        return max(self._rooflines, key=lambda each: (each[1] == kind[1], self._rooflines[each].count))

    def predict(self, kernels: Sequence[Kernel]) -> Prediction:
        """The latency of a model that the engine runs as these kernels."""
        parts = self.predict_kernels(kernels)
        total = sum(part.seconds for part in parts)
        left_over = float(self._left_over @ _whole_costs(total, kernels)) - total
        seconds = max(total + left_over, SHORTEST_SECONDS)
        spread = float(np.quantile(np.abs(self.errors), WITHIN)) if self.errors else 1.0
        return Prediction(seconds, seconds * float(np.exp(-spread)), seconds * float(np.exp(spread)), parts, left_over)


def cross_validate(measured: Sequence[Measured], folds: int = FOLDS) -> list[float]:
    """The logarithm of measured to predicted latency of each network, by models that did not see it.

    Args:
        measured: those of one name are left out together.
        folds: in how many parts the names are dealt.
    """
    return [
        float(np.log(network.seconds / prediction.seconds)) for network, prediction in cross_predict(measured, folds)
    ]


def cross_predict(measured: Sequence[Measured], folds: int = FOLDS) -> Iterable[tuple[Measured, Prediction]]:
    """Each network with a prediction of it by a model that did not see it."""
    names = list(dict.fromkeys(network.name for network in measured))
    if len(names) < 2:
        return
    for fold in range(min(folds, len(names))):
        out = set(names[fold::folds])
        model = LatencyModel([network for network in measured if network.name not in out], errors=())
        for network in measured:
            if network.name in out:
                yield network, model.predict([kernel for kernel, _ in network.kernels])


def _rooflines(measured: Sequence[Measured]) -> dict[tuple[str, str], _Roofline]:
    members: dict[tuple[str, str], list[tuple[Kernel, float]]] = defaultdict(list)
    for network in measured:
        for kernel, told in network.kernels:
            for kind in _kinds(kernel):
                members[kind].append((kernel, max(told, SHORTEST_SECONDS)))
    return {
        kind: _Roofline([kernel for kernel, _ in those], np.array([seconds for _, seconds in those]))
        for kind, those in members.items()
    }


def _kinds(kernel: Kernel) -> tuple[tuple[str, str], ...]:
    """Its own, and what rarer ones answer from."""
    return (_kind(kernel),) if kernel.multiplies else (_kind(kernel), _OTHERS)


def _kind(kernel: Kernel) -> tuple[str, str]:
    """What is learned together; one of the engine's kinds is taken apart where it does several things.

    What does not multiply takes a time that goes with its bytes, in whatever precision, and is learned together.
    """
    name = kernel.kind
    if kernel.convolves and kernel.groups > 1:
        name += ", depthwise" if kernel.groups == kernel.channels[0] else ", in groups"
    elif kernel.convolves and kernel.channels[0] <= _PICTURE_CHANNELS:
        name += ", of pictures"
    elif "MatMul" in kernel.operators and "Softmax" in kernel.operators:
        name += ", attention"
    elif kernel.kind in _RESIZING and kernel.inputs and kernel.inputs[0].shape[-1:] == kernel.output.shape[-1:]:
        name += ", channels last"
    if kernel.convolves and kernel.blocked:
        name += ", blocked"
    return name, kernel.computes_in if kernel.multiplies else ""


def _whole_costs(total: float, kernels: Sequence[Kernel]) -> npt.NDArray[np.float64]:
    """A start, the kernels' time, their number, and the bytes that are copied into the engine and out of it."""
    copied = kernels[0].read_bytes + kernels[-1].output.bytes if kernels else 0
    return np.array([1.0, total, float(len(kernels)), float(copied)])


def _levelled(network: Measured, left_over: npt.NDArray[np.float64]) -> Measured:
    """With its kernels' times raised or lowered together until they come to the whole.

    The whole is the quickest of several passes, and its kernels are counted in one: what disturbed that one goes.
    """
    kernels = [kernel for kernel, _ in network.kernels]
    total = sum(max(seconds, SHORTEST_SECONDS) for _, seconds in network.kernels)
    if not total or left_over[1] <= 0:
        return network
    wanted = total + (network.seconds - float(left_over @ _whole_costs(total, kernels))) / left_over[1]
    scale = float(np.clip(wanted / total, 1 / MOST_LEVELLED, MOST_LEVELLED))
    return Measured(network.name, network.seconds, [(kernel, seconds * scale) for kernel, seconds in network.kernels])


def _left_over(measured: Sequence[Measured]) -> npt.NDArray[np.float64]:
    """What a whole inference takes for a start, a second of its kernels, each kernel, and each byte of its ends."""
    table = np.array(
        [_whole_costs(sum(s for _, s in each.kernels), [kernel for kernel, _ in each.kernels]) for each in measured]
    )
    whole = np.array([each.seconds for each in measured])
    if len(measured) < FEWEST_FOR_TREES:
        return np.array([0.0, float(np.median(whole / np.maximum(table[:, 1], SHORTEST_SECONDS))), 0.0, 0.0])
    scaled = table / whole[:, None]
    # A few networks that something else disturbed must not bend it: fitted twice, without the worst tenth.
    found = np.linalg.lstsq(scaled, np.ones(len(whole)), rcond=None)[0]
    missed = np.abs(scaled @ found - 1)
    kept = missed <= np.quantile(missed, 0.9)
    return np.asarray(np.linalg.lstsq(scaled[kept], np.ones(int(kept.sum())), rcond=None)[0])
