"""The latency of kernels and of whole models, learned from a table of measurements; with an error bar on each answer.

A kernel that was measured answers from the table. For others there is a model for each kind of kernel and precision:
a roofline (a start, multiply-adds, bytes; each at a rate that is not negative, fitted for relative errors), and extremely
randomised trees (Geurts et al., 2006; scikit-learn) that learn how far kernels lie from it. A whole model takes the sum
over its fused kernels plus what was measured to be left over: a start, and something for each kernel.

Nothing learned is stored: fitting takes seconds, always gives the same from the same table, and depends on no format
but the table's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls
from sklearn.ensemble import ExtraTreesRegressor

from act.latency.features import Vector, costs, matrix
from act.latency.kernel import Kernel

# A counter counts whole microseconds.
SHORTEST_SECONDS = 0.3e-6
TREES = 48
SEED = 0
FEWEST_FOR_TREES = 12
# Factors farther than this from the roofline are a mistake of the trees.
MOST_CORRECTION = 5.0
_SMEARING = (0.8, 1.25)
FOLDS = 5
WITHIN = 0.9
_OTHERS = ("", "")


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


class _KindModel:
    """The kernels of one kind and precision."""

    def __init__(self, kernels: Sequence[Kernel], seconds: Vector) -> None:
        table = np.array([costs(kernel) for kernel in kernels])
        self._rates = nnls(table / seconds[:, None], np.ones(len(seconds)))[0]
        self._trees: ExtraTreesRegressor | None = None
        self._smearing = 1.0
        self.error = 0.5
        if len(kernels) >= FEWEST_FOR_TREES:
            wanted = np.log(seconds / self.roofline(kernels))
            self._trees = ExtraTreesRegressor(
                TREES, min_samples_leaf=1, max_features=0.6, bootstrap=True, oob_score=True, random_state=SEED, n_jobs=1
            ).fit(matrix(kernels), wanted)
            missed = self._trees.oob_prediction_ - wanted
            self.error = float(np.sqrt(np.mean(missed**2)))
            # A mean of logarithms is the logarithm of less than the mean, and sums are made of means (Duan, 1983).
            total = float(np.sum(self.roofline(kernels) * np.exp(self._trees.oob_prediction_)))
            self._smearing = float(np.clip(np.sum(seconds) / total, *_SMEARING))

    def roofline(self, kernels: Sequence[Kernel]) -> Vector:
        table = np.array([costs(kernel) for kernel in kernels])
        return np.maximum(table @ self._rates, SHORTEST_SECONDS)

    def predict(self, kernels: Sequence[Kernel]) -> Vector:
        base = self.roofline(kernels)
        if self._trees is None:
            return base
        limit = np.log(MOST_CORRECTION)
        return base * np.exp(np.clip(self._trees.predict(matrix(kernels)), -limit, limit)) * self._smearing


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
        gathered: dict[Kernel, list[float]] = defaultdict(list)
        for network in measured:
            for kernel, seconds in network.kernels:
                gathered[kernel].append(max(seconds, SHORTEST_SECONDS))
        self._known = {kernel: float(np.median(values)) for kernel, values in gathered.items()}
        self._members = _by_kind(self._known)
        self._members[_OTHERS] = [kernel for kernel in self._known if not kernel.multiplies] or list(self._known)
        self._fitted: dict[tuple[str, str], _KindModel] = {}
        self._left_over = _left_over(measured)
        self.errors = list(errors) if errors is not None else cross_validate(measured)

    def kernel(self, kernel: Kernel) -> KernelPrediction:
        """The latency of one kernel."""
        return self.predict_kernels([kernel])[0]

    def predict_kernels(self, kernels: Sequence[Kernel]) -> list[KernelPrediction]:
        """The latency of each kernel."""
        found: dict[Kernel, KernelPrediction] = {}
        unknown = []
        for kernel in dict.fromkeys(kernels):
            seconds = self._known.get(kernel)
            if seconds is None:
                unknown.append(kernel)
            else:
                found[kernel] = KernelPrediction(kernel, seconds, 0.0, True)
        for kind, members in _by_kind(unknown).items():
            model = self._model_of(kind)
            for kernel, seconds in zip(members, model.predict(members)):
                found[kernel] = KernelPrediction(kernel, float(seconds), model.error, False)
        return [found[kernel] for kernel in kernels]

    def fit_all(self) -> None:
        """Fit every kind of kernel now, and not when the first of its kind is asked for."""
        for kind in self._members:
            self._model_of(kind)

    def _model_of(self, kind: tuple[str, str]) -> _KindModel:
        kind = kind if kind in self._members else _OTHERS
        if kind not in self._fitted:
            self._fitted[kind] = _fit(self._members[kind], self._known)
        return self._fitted[kind]

    def predict(self, kernels: Sequence[Kernel]) -> Prediction:
        """The latency of a model that the engine runs as these kernels."""
        parts = self.predict_kernels(kernels)
        total = sum(part.seconds for part in parts)
        left_over = float(self._left_over @ _whole_costs(total, len(parts))) - total
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
        float(np.log(network.seconds / prediction.seconds))
        for network, prediction in cross_predict(measured, folds)
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


def _by_kind(kernels: Iterable[Kernel]) -> dict[tuple[str, str], list[Kernel]]:
    groups: dict[tuple[str, str], list[Kernel]] = defaultdict(list)
    for kernel in kernels:
        groups[_name(kernel), kernel.computes_in].append(kernel)
    return groups


def _name(kernel: Kernel) -> str:
    """The kind, told apart where one kind does several things."""
    if _depthwise(kernel):
        return f"{kernel.kind}, depthwise"
    return f"{kernel.kind}, attention" if kernel.multiplies and not kernel.convolves and len(kernel.operators) > 2 and "Softmax" in kernel.operators else kernel.kind


def _depthwise(kernel: Kernel) -> bool:
    return kernel.convolves and kernel.groups > 1 and kernel.groups == kernel.channels[0]


def _fit(kernels: Collection[Kernel], known: Mapping[Kernel, float]) -> _KindModel:
    return _KindModel(list(kernels), np.array([known[kernel] for kernel in kernels]))


def _whole_costs(total: float, count: int) -> npt.NDArray[np.float64]:
    return np.array([1.0, total, float(count)])


def _left_over(measured: Sequence[Measured]) -> npt.NDArray[np.float64]:
    """What a whole inference takes for a start, for each second of its kernels, and for each kernel."""
    table = np.array([_whole_costs(sum(s for _, s in each.kernels), len(each.kernels)) for each in measured])
    whole = np.array([each.seconds for each in measured])
    if len(measured) < 4:
        return np.array([0.0, float(np.median(whole / np.maximum(table[:, 1], SHORTEST_SECONDS))), 0.0])
    scaled = table / whole[:, None]
    # A few networks that something else disturbed must not bend it: fitted twice, without the worst tenth.
    found = np.linalg.lstsq(scaled, np.ones(len(whole)), rcond=None)[0]
    missed = np.abs(scaled @ found - 1)
    kept = missed <= np.quantile(missed, 0.9)
    return np.asarray(np.linalg.lstsq(scaled[kept], np.ones(int(kept.sum())), rcond=None)[0])
