"""The outputs of a program: run and checked, compared, and traced back to logits."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from act.errors import InputError
from act.program.model import InferenceModel, reason
from act.samples.dataset import Array, Gathering, Ragged, Samples


def real_outputs(model: InferenceModel) -> list[str]:
    """Return the outputs of real numbers that operators make; for a softmax over the last axis the logits that it
    reads, which tell more."""
    found = []
    for name in model.fetch_names:
        op = model.producer(name)
        if op is not None and model.dtype(name) == "float32":
            from_softmax = op.type == "softmax" and op.attr("axis") in (-1, len(model.shape(name)) - 1)
            found.append(str(op.input("X")[0]) if from_softmax else name)
    return found


def checked_outputs(model: InferenceModel, batch: Mapping[str, Array], where: str) -> list[Array]:
    """Return the outputs of a batch.

    Raises:
        InputError: the model cannot run it, an output has no batch axis, or holds NaN or infinity.
    """
    size = len(next(iter(batch.values())))
    try:
        outputs = model.run(batch)
    except Exception as error:  # Paddle raises a dozen kinds
        raise InputError(
            f"{where} Paddle cannot run the model: {reason(error)}; mend the samples or the model"
        ) from None
    for name, values in zip(model.fetch_names, outputs):
        if values.ndim == 0 or len(values) != size:
            raise InputError(
                f"{where} output `{name}` has shape {list(values.shape)} for {size} samples; export the model so that "
                "the first axis of every output is the batch"
            )
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise InputError(f"{where} output `{name}` holds NaN or infinity; mend the model or leave out such samples")
    return outputs


def check_sizes(model: InferenceModel, samples: Samples, where: str) -> None:
    """Run the first sample of each size, so that one which the model cannot take is found before any work is done.

    Raises:
        InputError: as `checked_outputs`; names the sample.
    """
    known: set[tuple[tuple[int, ...], ...]] = set()
    for index in range(len(samples)):
        sizes = tuple(tuple(feed.shapes[index].tolist()) for feed in samples.feeds.values())
        if sizes not in known:
            known.add(sizes)
            checked_outputs(model, samples.stack([index]), f"{where} sample {index}:")
            samples.release()


def deviation(found: Sequence[Array], wanted: Sequence[Array]) -> float:
    """Return max|a - b| / max|b| of the output where that is largest.

    Infinity where shapes differ, or one has NaN or infinity where the other has not.
    """
    worst = 0.0
    for have, want in zip(found, wanted):
        if have.shape != want.shape:
            return float("inf")
        a, b = have.astype(np.float64), want.astype(np.float64)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        if same.all():
            continue
        finite = np.isfinite(a) & np.isfinite(b)
        if not (finite | same).all():
            return float("inf")
        worst = max(worst, float(np.abs(a - b)[finite].max()) / max(float(np.abs(b[finite]).max()), 1e-12))
    return worst


def reference_outputs(model: InferenceModel, samples: Samples, program: Path, scratch: Path) -> Samples:
    """Return the outputs of every sample, checked, as samples whose feeds are the outputs.

    Args:
        program: the file, for the message.
        scratch: a folder for what does not fit in memory.
    """
    gathered = [Gathering(scratch) for _ in model.fetch_names]
    for index, batch in enumerate(samples.batches(1)):
        outputs = checked_outputs(model, batch, f"{program}: on evaluation sample {index}")
        for gathering, output in zip(gathered, outputs):
            gathering.add(output[0])
        samples.release()
    return Samples({name: gathering.ragged() for name, gathering in zip(model.fetch_names, gathered)})


def expected_outputs(model: InferenceModel, samples: Samples) -> Samples | None:
    """Return the outputs as samples, up to the first sample that the model cannot run, or has no finite outputs for.

    None where that is the first of all.
    """
    rows = []
    for index, batch in enumerate(samples.batches(1)):
        try:
            rows.append([output[0] for output in checked_outputs(model, batch, f"sample {index}:")])
        except InputError:  # a row of the benchmark will say so, too
            break
    return Samples({name: Ragged.of(column) for name, column in zip(model.fetch_names, zip(*rows))}) if rows else None


def constant_outputs(reference: Samples) -> list[str]:
    """Return the outputs that are one and the same for several samples."""
    feeds = reference.feeds.items() if len(reference) > 1 else ()
    return [name for name, values in feeds if all(np.array_equal(each, values[0]) for each in values)]
