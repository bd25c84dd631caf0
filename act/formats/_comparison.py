"""An imported model beside the file that it was made of, on the runtime that is the file's own."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from act.engines.process import EngineFailure, EngineProcess
from act.engines.spec import title_of
from act.errors import InputError
from act.formats import SourceModel
from act.formats._apart import RunFailure, outputs
from act.program.model import InferenceModel, reason
from act.program.outputs import checked_outputs, deviation
from act.samples.dataset import Array, Ragged, Samples
from act.tail.split import Tail

log = logging.getLogger(__name__)

LARGEST_DEVIATION = 1e-3
"""Of an output, as a share of its largest value, that an import may differ from its file."""
LARGEST_HALF_DEVIATION = 2e-2
"""The same for a file that computes in half precision, which rounds more coarsely than the import."""
SAMPLES = 4
_ORDERING = frozenset(("top_k_v2", "argsort"))
_MOST_ROWS = 4096  # that are looked for in any order, each among all
_SMALLEST = 1e-12
_TAILS_RUNTIME = "onnxruntime"
_TIME_LIMIT_SECONDS = 300


def check_axes(names: Mapping[str, Sequence[str]], samples: Samples, origin: str) -> None:
    """Refuse samples in which axes of one name differ in length, but for the first, which is the batch.

    Args:
        names: those of each input's axes, the batch first; empty where an axis has none.
        origin: of the samples, for the message.
    """
    first: dict[str, tuple[str, int]] = {}
    for feed, ragged in samples.feeds.items():
        for axis, symbol in enumerate(names.get(feed, ())):
            if axis == 0 or not symbol:
                continue
            other, other_axis = first.setdefault(symbol, (feed, axis))
            lengths, others = ragged.shapes[:, axis - 1], samples.feeds[other].shapes[:, other_axis - 1]
            differing = np.flatnonzero(lengths != others)
            if len(differing):
                index = differing[0]
                raise InputError(
                    f"{origin}: sample {index}: axis {axis} of `{feed}` has length {lengths[index]}, but axis "
                    f"{other_axis} of `{other}` {others[index]}, and the model calls both `{symbol}`; mend the sample, "
                    "or export the model with a name for each"
                )


def difference_of_tails(file: Path, folder: Path, feeds: Sequence[Mapping[str, Array]], tail: Tail) -> str:
    """Tell in a few words how a tail's ONNX file and its Paddle program differ on what they read; empty if they do not.

    What is chosen may come in another order.

    Args:
        folder: of the program.
        feeds: of some samples, one at a time, all that the tail may read.
    """
    program = InferenceModel.load(folder)
    read = [{name: each[name] for name in program.feed_names} for each in feeds]
    try:
        there = _run_one_by_one(_TAILS_RUNTIME, file, read)
    except EngineFailure as failure:
        return f"{title_of(_TAILS_RUNTIME)}: {failure.cause}"
    try:
        here = [program.run(each) for each in read]
    except Exception as error:  # Paddle raises a dozen kinds
        return f"Paddle cannot run it: {reason(error)}"
    names = [each.name for each in tail.outputs]
    for mine, theirs in zip(here, there, strict=True):
        for name, found, wanted in zip(program.fetch_names, mine, theirs, strict=True):
            is_chosen = names.index(name) in tail.whole and found.shape == wanted.shape and found.ndim > 0
            off = _deviation_of_rows(found, wanted) if is_chosen else deviation([found], [wanted])
            if off > LARGEST_DEVIATION:
                return f"its two forms differ in `{name}` by {off:.2g} of the largest value"
    return ""


def _run_one_by_one(
    runtime: str, file: Path, feeds: Sequence[Mapping[str, Array]], optimised: bool = True
) -> list[list[Array]]:
    """Return a model's outputs for each of some feeds of one sample."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        EngineProcess(runtime, file, "fp32", 1, _TIME_LIMIT_SECONDS) as process,
    ):
        process.load(optimised=optimised)
        found = []
        for number, each in enumerate(feeds):
            place = Path(scratch) / str(number)
            Samples({name: Ragged.of(list(values)) for name, values in each.items()}).save(place)
            found.append(process.tensors(place))
    return found


def _deviation_of_rows(found: Array, wanted: Array) -> float:
    """Return the largest distance of a row of either array to the nearest of the other, as a share of the largest."""
    a, b = (each.reshape(len(each), -1).astype(np.float64) for each in (found, wanted))
    if not a.size:
        return 0.0
    distances = np.array([np.abs(row - b).max(axis=1) for row in a])
    return float(max(distances.min(axis=0).max(), distances.min(axis=1).max()) / max(np.abs(b).max(), _SMALLEST))


def check_import(
    source: SourceModel, model: InferenceModel, samples: Samples, folder: Path, given: Path, by_sample: bool = True
) -> float | None:
    """Return how far the import's outputs are from the file's; None where nothing can be run beside it.

    That is a format that Paddle itself reads, or one whose runtime is not there, which the log says.

    Args:
        samples: some of the job's own.
        folder: where they are saved.
        given: what the runtime loads: the model's file, or that without its tail.
        by_sample: the first axis of every output is the batch.

    Raises:
        InputError: the file's runtime cannot run it, or the outputs differ; names the first tensor that does.
    """
    if source.runtime is None and source.environment is None:
        return None
    title = title_of(source.runtime) if source.runtime is not None else source.environment_title
    if (lacking := source.runtime_lacks()) is not None:
        log.warning(
            f"{source.files[0]}: was not run beside {title}, so that shapes and dtypes alone show "
            f"that it was read right: {lacking}"
        )
        return None
    samples = samples.head(SAMPLES)
    try:
        wanted = _outputs_as_given(source, given, samples, folder if by_sample else None)
    except EngineFailure as failure:
        file = source.files[0]
        if failure.kind == "wrong_output":
            # The import names the output, where it was read right.
            for batch in samples.batches(1):
                checked_outputs(model, batch, f"{file}: on the first calibration samples")
            raise InputError(f"{file}: {title} gives {failure.cause}; mend the samples or the model") from None
        if isinstance(failure, RunFailure):
            raise InputError(
                f"{file}: {title} cannot run it on the first calibration samples ({failure.cause}); mend the samples "
                "or the model"
            ) from None
        raise InputError(
            f"{file}: {title} cannot run it ({failure.cause}), so that nothing shows whether it was read right; "
            "export the model so that it runs there"
        ) from None
    try:
        found = [model.run(batch) for batch in samples.batches(1)]
    except Exception as error:  # Paddle raises a dozen kinds
        raise InputError(
            f"{source.files[0]}: was read, but Paddle cannot run it: {reason(error)}; "
            "mend the samples, or report this model"
        ) from None
    allowed = LARGEST_HALF_DEVIATION if source.computes_in_half() else LARGEST_DEVIATION
    worst = largest_deviation(model, found, wanted, allowed)
    if worst > allowed:
        blamed = source.first_difference(model, next(samples.batches(1)))
        raise InputError(
            f"{source.files[0]}: was read, but computes something else than in {title}: its outputs "
            f"differ by {worst:.2g} of the largest value where {allowed:g} is allowed"
            f"{f'; first at {blamed}' if blamed else ''}; please report this model"
        )
    return worst


def largest_deviation(
    model: InferenceModel, found: Sequence[Sequence[Array]], wanted: Sequence[Sequence[Array]], allowed: float
) -> float:
    """Return the deviation of the sample whose outputs are furthest from those wanted, as `deviation` has it.

    Where the model puts something into an order, the rows of a sample whose outputs are further off than `allowed` are
    compared in any order.

    Args:
        found: the outputs of each sample, with a batch axis.
    """
    orders = any(op.type in _ORDERING for op in model.ops)
    compare = partial(_deviation_in_any_order, allowed=allowed) if orders else deviation
    return max(compare(*pair) for pair in zip(found, wanted, strict=True))


def _deviation_in_any_order(found: Sequence[Array], wanted: Sequence[Array], allowed: float) -> float:
    """Return the deviation of a sample's outputs, or where it is too large, that of their rows in any order.

    Detectors order what they choose by scores, and rounding swaps two that are nearly the same. All outputs must have
    the same number of rows, which are compared as one.
    """
    straight = deviation(found, wanted)
    counts = {each.shape[1] if each.ndim > 1 else 0 for each in wanted}
    if straight <= allowed or not np.isfinite(straight) or len(counts) > 1 or not 0 < min(counts) <= _MOST_ROWS:
        return straight
    largest = [max(float(np.abs(each).max()), _SMALLEST) for each in wanted]
    return _deviation_of_rows(_rows(found, largest), _rows(wanted, largest))


def _rows(outputs: Sequence[Array], largest: Sequence[float]) -> Array:
    """Return the rows of one sample's outputs side by side, each output as a share of its largest value."""
    rows = [each[0].reshape(each.shape[1], -1) / value for each, value in zip(outputs, largest)]
    return np.concatenate(rows, axis=1)


def _outputs_as_given(source: SourceModel, given: Path, samples: Samples, folder: Path | None) -> list[list[Array]]:
    """Return the outputs as `_outputs_of_runtime` does; without the runtime's optimisations where these crash it."""
    try:
        return _outputs_of_runtime(source, given, samples, folder)
    except EngineFailure as failure:
        if failure.kind != "crash":
            raise
        try:
            found = _outputs_of_runtime(source, given, samples, folder, optimised=False)
        except EngineFailure:
            raise failure from None
        log.warning(
            f"{source.files[0]}: its own runtime crashes as it optimises it ({failure.cause}); the import was held "
            "against that without optimisations"
        )
        return found


def _outputs_of_runtime(
    source: SourceModel, given: Path, samples: Samples, folder: Path | None, optimised: bool = True
) -> list[list[Array]]:
    """Return the outputs of each sample, run alone, as the files' own runtime computes them.

    Without its tail a model that was converted is run as what it was converted to.

    Args:
        folder: where the samples are saved; None: the outputs are taken as they are, whatever their first axes count.
        optimised: as the runtime makes the model fast.
    """
    if source.environment is not None and given == source.files[0] and folder is not None:
        return _by_sample(outputs(source, folder, len(samples)))
    runtime = source.runtime or source.given().runtime
    if runtime is None:
        raise ValueError(f"{source.format}: nothing else runs it")
    if folder is None:
        return _run_one_by_one(runtime, given, list(samples.batches(1)), optimised)
    with EngineProcess(runtime, given, "fp32", 1, _TIME_LIMIT_SECONDS) as process:
        process.load(optimised=optimised)
        try:
            return _by_sample(process.outputs(folder, len(samples)))
        except EngineFailure as failure:
            if failure.kind == "error":
                raise RunFailure(failure.kind, failure.cause) from None
            raise


def _by_sample(found: Sequence[Ragged]) -> list[list[Array]]:
    """Return what each output is on all samples as the outputs of each sample, with a batch axis."""
    return [[output[index][np.newaxis] for output in found] for index in range(len(found[0]))]
