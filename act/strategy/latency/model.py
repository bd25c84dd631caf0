"""The latency of kernels and of whole models, learned from a table of measurements; with an error bar on each answer.

A kernel that was measured answers from the table. For others there is a model for each kind of kernel and precision:
a roofline (a start, MACs, bytes; each at a rate that is not negative, fitted for relative errors), and extremely
randomised trees (Geurts et al., 2006) and a support-vector machine, averaged, that learn how far kernels lie from it:
trees know the steps that blocks of channels make, the machine what lies between. A whole model takes the sum over its
fused kernels plus a measured overhead: a start, and something for each kernel.

A kernel's weights lie in a nearer cache the less the whole network has of them, and the less a network makes on the
way, the nearer is all that it reads again. So these sizes are features of each of a network's kernels, and a
measurement answers only for networks of about the same size. Nothing learned is stored: fitting takes seconds.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
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
_SVR_OPTIONS = {"C": 10.0, "epsilon": 0.02, "gamma": 0.02}
# Of the mean of trees and support-vector machine, the machine's share.
SVR_SHARE = 0.7
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
MOST_RESCALED = 1.3
FOLDS = 5
WITHIN = 0.9
# More than these are thinned out, for a support-vector machine takes the square of their number; of what does not
# multiply there may be as many.
MOST_TO_FIT = 4000

# The engine's name of a kernel with what tells its uses apart, and the precision that it computes in.
Kind = tuple[str, str]
_OTHERS: Kind = ("", "")


@dataclass(frozen=True)
class Measured:
    """A network that was measured as a whole and kernel by kernel, at one precision and number of threads."""

    name: str
    seconds: float
    kernels: Sequence[tuple[Kernel, float]]


@dataclass(frozen=True)
class Latency:
    """Seconds of one inference, and the error bar, within which nine of ten measurements lie; alike where measured."""

    seconds: float
    low: float
    high: float


@dataclass(frozen=True)
class _InNetwork:
    """A kernel within a network; `touched_bytes` are the network's weights and what its kernels make."""

    kernel: Kernel
    weight_bytes: int
    touched_bytes: int
    network_seconds: float

    @cached_property
    def features(self) -> list[float]:
        weights, touched = max(1, self.weight_bytes), max(1, self.touched_bytes)
        share = math.log2(1 + self.kernel.weight_bytes / weights)
        return [*features(self.kernel), math.log2(weights), share, math.log2(touched), math.log2(self.network_seconds)]

    @property
    def answers_for(self) -> tuple[Kernel, int, int]:
        """Return what is the same for all that this one's measurement answers for."""
        small = self.kernel.weight_bytes < SMALL_WEIGHTS
        weights = 0 if small else round(math.log2(max(1, self.weight_bytes)))
        return self.kernel, weights, round(math.log2(max(1, self.touched_bytes)))


def _weights(seconds: Vector) -> Vector:
    return np.asarray((seconds / np.median(seconds)) ** WEIGHT_POWER)


class _KindModel:
    """The kernels of one kind and precision: a roofline of them, and how far each lies from it.

    The roofline is a rate, not negative, for each of a kernel's costs. Few kernels have no more than that.
    """

    def __init__(self, kernels: Sequence[Kernel], seconds: Sequence[float]) -> None:
        self.count, measured = len(seconds), np.array(seconds)
        self.members: list[tuple[_InNetwork, float]] = []  # the same with what else is in their networks
        root = np.sqrt(_weights(measured))
        self._rates = nnls(np.array([costs(kernel) for kernel in kernels]) * (root / measured)[:, None], root)[0]

    def roofline(self, kernels: Sequence[Kernel]) -> Vector:
        """Return the seconds of each by its costs alone."""
        return np.maximum(np.array([costs(kernel) for kernel in kernels]) @ self._rates, SHORTEST_SECONDS)

    @cached_property
    def fitted(self) -> tuple[Any, Any, float, float]:
        """Return trees, support-vector machine, and the least and the largest factor that was measured, as logarithms;
        farther from the roofline than that is a mistake."""
        members, measured = zip(*self.members[:: math.ceil(len(self.members) / MOST_TO_FIT)])
        seconds = np.array(measured)
        weights, table = _weights(seconds), np.array([each.features for each in members])
        target = np.log(seconds / self.roofline([each.kernel for each in members]))
        trees = ExtraTreesRegressor(TREES, max_features=1.0, bootstrap=True, random_state=SEED, n_jobs=1)
        svr = make_pipeline(StandardScaler(), SVR(**_SVR_OPTIONS))
        trees.fit(table, target, sample_weight=weights)
        svr.fit(table, target, svr__sample_weight=weights)
        return trees, svr, float(np.min(target)), float(np.max(target))

    def predict(self, kernels: Sequence[_InNetwork]) -> Vector:
        """Return the seconds of each."""
        base = self.roofline([each.kernel for each in kernels])
        if self.count < FEWEST_FOR_TREES:
            return base
        forest, svr, least, largest = self.fitted
        table = np.array([each.features for each in kernels])
        # What the forest's own `predict` does, without its checks of each tree's input, which take most of its time.
        single = table.astype(np.float32)
        trees = np.mean([tree.tree_.predict(single)[:, 0] for tree in forest.estimators_], axis=0)
        correction = (1 - SVR_SHARE) * trees + SVR_SHARE * predict_svr(svr, table)
        return base * np.exp(np.clip(correction, least, largest))


def predict_svr(svr: Any, table: Vector) -> Vector:
    """Return what the machine's own `predict` gives, sooner: distances are a product of matrices, in float32."""
    scaler, machine = svr[0], svr[-1]
    scaled = ((table - scaler.mean_) / scaler.scale_).astype(np.float32)
    support = machine.support_vectors_.astype(np.float32)
    squared = (scaled**2).sum(axis=1)[:, None] + (support**2).sum(axis=1) - 2 * scaled @ support.T
    near = np.exp(np.float32(-machine.gamma) * squared)
    return np.asarray(near @ machine.dual_coef_[0].astype(np.float32) + machine.intercept_[0])


class LatencyModel:
    """Predicts the latency of kernels and of models on one engine, with one number of threads.

    Args:
        measured: networks; those of all precisions together, for a kernel carries its own.
        errors: of networks that were left out of the fit, logarithms of measured to predicted, for the error bar.
    """

    def __init__(self, measured: Sequence[Measured], errors: Sequence[float]) -> None:
        self._errors = errors
        self._overhead = _fit_overhead(measured)
        networks = [_rescaled_kernels(network, self._overhead) for network in measured]
        by_kind: dict[Kind, list[tuple[Kernel, float]]] = defaultdict(list)
        for kernel, seconds in chain.from_iterable(networks):
            for kind in _kinds(kernel):
                by_kind[kind].append((kernel, seconds))
        self.kinds = {kind: _KindModel(*zip(*members)) for kind, members in by_kind.items()}
        gathered: dict[tuple[Kernel, int, int], list[float]] = defaultdict(list)
        for network in networks:
            for each, (kernel, seconds) in zip(self.in_network([kernel for kernel, _ in network]), network):
                gathered[each.answers_for].append(seconds)
                for kind in _kinds(kernel):
                    self.kinds[kind].members.append((each, seconds))
        self._known = {key: float(np.median(values)) for key, values in gathered.items()}

    def predict_kernels(self, kernels: Sequence[Kernel]) -> list[float]:
        """Return the seconds of each kernel of a network that consists of these."""
        found: dict[Kernel, float] = {}
        unknown: dict[Kind, list[_InNetwork]] = defaultdict(list)
        for each in {each.kernel: each for each in self.in_network(kernels)}.values():
            seconds = self._known.get(each.answers_for)
            if seconds is None:
                unknown[kind_of(each.kernel)].append(each)
            else:
                found[each.kernel] = seconds
        for members in unknown.values():
            predicted = self._answering(members[0].kernel).predict(members)
            found |= {each.kernel: float(seconds) for each, seconds in zip(members, predicted)}
        return [found[kernel] for kernel in kernels]

    def in_network(self, kernels: Sequence[Kernel]) -> list[_InNetwork]:
        """Return the kernels as those of one network."""
        weights = sum(kernel.weight_bytes for kernel in kernels)
        touched = weights + sum(kernel.output.bytes for kernel in kernels)
        kinds: dict[_KindModel, list[Kernel]] = defaultdict(list)
        for kernel in kernels:
            kinds[self._answering(kernel)].append(kernel)
        seconds = sum(float(kind.roofline(members).sum()) for kind, members in kinds.items())
        return [_InNetwork(kernel, weights, touched, seconds) for kernel in kernels]

    def _answering(self, kernel: Kernel) -> _KindModel:
        """Return the model of a kernel's kind; where too few of it were measured, of the one that is most like it."""
        kind = kind_of(kernel)
        least = 1 if kernel.multiplies else FEWEST_OF_A_KIND
        if kind in self.kinds and self.kinds[kind].count >= least:
            return self.kinds[kind]
        plain = (kernel.kind, kernel.computes_in) if kernel.multiplies else _OTHERS
        if plain in self.kinds:
            return self.kinds[plain]
        return max(self.kinds.items(), key=lambda each: (each[0][1] == kind[1], each[1].count))[1]

    def predict(self, kernels: Sequence[Kernel]) -> Latency:
        """Return the latency of a model that the engine runs as these kernels."""
        total = sum(self.predict_kernels(kernels))
        # The overhead may be negative, for counting costs time.
        seconds = max(float(self._overhead @ _whole_costs(total, kernels)), SHORTEST_SECONDS)
        spread = float(np.quantile(np.abs(self._errors), WITHIN)) if len(self._errors) else 1.0
        return Latency(seconds, seconds * float(np.exp(-spread)), seconds * float(np.exp(spread)))


def cross_predict(measured: Sequence[Measured]) -> Iterable[tuple[Measured, Latency]]:
    """Yield each network with a prediction of it by a model that did not see it, nor any other of its name."""
    names = list(dict.fromkeys(network.name for network in measured))
    if len(names) < 2:
        return
    for fold in range(min(FOLDS, len(names))):
        out = set(names[fold::FOLDS])
        model = LatencyModel([network for network in measured if network.name not in out], errors=())
        for network in measured:
            if network.name in out:
                yield network, model.predict([kernel for kernel, _ in network.kernels])


def _kinds(kernel: Kernel) -> tuple[Kind, ...]:
    """Return its own, and what rarer ones answer from."""
    return (kind_of(kernel),) if kernel.multiplies else (kind_of(kernel), _OTHERS)


def kind_of(kernel: Kernel) -> Kind:
    """Tell what is learned together: one of the engine's kinds, taken apart where it does several things.

    What does not multiply takes a time that goes with its bytes, in whatever precision.
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


def _whole_costs(total: float, kernels: Sequence[Kernel]) -> Vector:
    """Return a start, the kernels' time, their number, and the bytes that are copied into the engine and out of it."""
    copied = kernels[0].read_bytes + kernels[-1].output.bytes if kernels else 0
    return np.array([1.0, total, float(len(kernels)), float(copied)])


def _rescaled_kernels(network: Measured, overhead: Vector) -> list[tuple[Kernel, float]]:
    """Raise or lower its kernels' times together until they come to the whole.

    The whole is timed in many rounds, and its kernels are counted in one go: what disturbed that one goes.
    """
    total, scale = sum(max(seconds, SHORTEST_SECONDS) for _, seconds in network.kernels), 1.0
    if total and overhead[1] > 0:
        missing = network.seconds - float(overhead @ _whole_costs(total, [kernel for kernel, _ in network.kernels]))
        target = total + missing / overhead[1]
        scale = float(np.clip(target / total, 1 / MOST_RESCALED, MOST_RESCALED))
    return [(kernel, max(seconds * scale, SHORTEST_SECONDS)) for kernel, seconds in network.kernels]


def _fit_overhead(measured: Sequence[Measured]) -> Vector:
    """Fit what a whole inference takes for a start, a second of its kernels, each kernel, and each byte of its ends."""
    totals = [sum(seconds for _, seconds in each.kernels) for each in measured]
    table = np.array([_whole_costs(total, [k for k, _ in each.kernels]) for total, each in zip(totals, measured)])
    whole = np.array([each.seconds for each in measured])
    if len(measured) < FEWEST_FOR_TREES:
        return np.array([0.0, float(np.median(whole / np.maximum(table[:, 1], SHORTEST_SECONDS))), 0.0, 0.0])
    scaled = table / whole[:, None]
    # A few networks that something else disturbed must not bend it: fitted twice, without the worst tenth.
    first = np.linalg.lstsq(scaled, np.ones(len(whole)), rcond=None)[0]
    missed = np.abs(scaled @ first - 1)
    kept = missed <= np.quantile(missed, 0.9)
    return np.asarray(np.linalg.lstsq(scaled[kept], np.ones(int(kept.sum())), rcond=None)[0])
