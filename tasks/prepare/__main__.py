"""`python -m tasks.prepare --job NAME`: read the user's model and samples, check them, write them in one form.

Writes `model/` (the normalised fp32 model), `batch_norms.npz` (gamma of each folded batch norm, by weight),
`calibration/`, `evaluation/`, for a metric that needs it also `reference/` (the fp32 outputs of the evaluation
samples), and `prepare.json`. The user's files are only read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from act.artifacts import replace_folder, stage_folder, write_json
from act.errors import InputError
from act.paddleslim import refuse_lagging
from act.settings import Job
from tasks.stage import job_from_command_line

if TYPE_CHECKING:  # Paddle takes seconds to import, and wrong settings are told before
    from act.program.model import InferenceModel
    from act.samples.dataset import Array, FeedSpec, Ragged, Samples

LARGEST_DEVIATION = 1e-4


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.prepare", "Normalise one job's model and data.") as (name, job):
        refuse_lagging(name, job)
        _prepare(job, stage_folder(name, "prepare"))


def _prepare(job: Job, final: Path) -> None:
    import numpy as np

    from act.formats.source import resolve
    from act.metrics import check_labels, needs_reference
    from act.program.files import find_files
    from act.program.model import InferenceModel
    from act.program.passes.normalise import normalise, set_inference_mode
    from act.samples.dataset import check_samples
    from act.samples.readers import read

    source = resolve(Path(job.model.path), "folder")
    files = find_files(source, job.model.model_filename, job.model.params_filename)
    original = InferenceModel.load(source, job.model.model_filename, job.model.params_filename)
    set_inference_mode(original)
    feeds, fetches = original.feed_specs(), original.fetch_specs()
    _check_batch_axes(feeds, files[0])
    with replace_folder(final) as folder:
        calibration, evaluation = read(job.data, feeds, _class_count(fetches), folder)
        for samples, role in ((calibration, "calibration"), (evaluation, "evaluation")):
            check_samples(samples, feeds, f"{job.data.path} ({role} samples)")
        check_labels(job.metric, evaluation.labels, _class_count(fetches), job.data.path)
        model, changes = normalise(original)
        first = next(calibration.head(4).batches(4))
        before = _outputs(original, first, f"{files[0]}: on the first calibration samples")
        deviation = _deviation(before, model.run(first))
        if not deviation <= LARGEST_DEVIATION:  # NaN too
            raise RuntimeError(f"normalising changed the model's outputs by {deviation:.2g} of their size")
        counts = {name: value for name, value in vars(changes).items() if isinstance(value, int)}
        constant: list[str] = []
        (folder / "model").mkdir()
        model.save(folder / "model")
        np.savez(folder / "batch_norms.npz", **changes.batch_norms)
        calibration.save(folder / "calibration")
        evaluation.save(folder / "evaluation")
        if needs_reference(job.metric):
            reference = _reference(model, evaluation, files[0], folder)
            reference.save(folder / "reference")
            constant = [name for name, values in reference.feeds.items() if _is_constant(values)]
        write_json(
            folder / "prepare.json",
            {
                "source": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
                "inputs": [vars(spec) for spec in feeds],
                "outputs": [vars(spec) for spec in fetches],
                "samples": {"calibration": len(calibration), "evaluation": len(evaluation)},
                "constant_outputs": constant,
                "normalised": {**counts, "largest_relative_deviation": deviation},
            },
        )
    print(
        f"prepare: {len(calibration)} calibration and {len(evaluation)} evaluation samples; "
        f"{changes.folded_batch_norms} batch norms folded, {changes.removed_identities} identities removed"
    )
    for name in constant:
        print(f"prepare: output `{name}` is the same for every evaluation sample, so that similarity to it says little")


def _class_count(fetches: Sequence[FeedSpec]) -> int:
    """How many classes the first output tells apart; -1 when it does not say."""
    return fetches[0].shape[-1] if fetches and fetches[0].shape else -1


def _check_batch_axes(feeds: Sequence[FeedSpec], program: Path) -> None:
    """Refuse a model that takes only so many samples at a time: every stage runs several, and the target decides."""
    fixed = next((feed for feed in feeds if not feed.shape or feed.shape[0] != -1), None)
    if fixed is not None:
        raise InputError(
            f"{program}: input `{fixed.name}` has shape {list(fixed.shape)}; its first axis must be the batch, of any "
            "length (-1): export the model again with `None` there"
        )


def _outputs(model: InferenceModel, batch: Mapping[str, Array], where: str) -> list[Array]:
    """The outputs of a batch.

    Args:
        where: file and samples, for the message.

    Raises:
        InputError: the model cannot run it, an output has no batch axis, or holds NaN or infinity.
    """
    import numpy as np

    from act.program.model import reason

    size = len(next(iter(batch.values())))
    try:
        found = model.run(batch)
    except Exception as error:  # Paddle raises a dozen kinds
        raise InputError(
            f"{where} Paddle cannot run the model: {reason(error)}; mend the samples or the model"
        ) from None
    for name, values in zip(model.fetch_names, found):
        if values.ndim == 0 or len(values) != size:
            raise InputError(
                f"{where} output `{name}` has shape {list(values.shape)} for {size} samples; export the model so that "
                "the first axis of every output is the batch"
            )
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise InputError(f"{where} output `{name}` holds NaN or infinity; mend the model or leave out such samples")
    return found


def _deviation(first: Sequence[Array], second: Sequence[Array]) -> float:
    """The largest difference of the outputs, as a share of the largest output; NaN when one of them is NaN."""
    import numpy as np

    shares = [0.0]
    for before, after in zip(first, second):
        before, after = before.astype(np.float64), after.astype(np.float64)
        shares.append(float(np.abs(before - after).max(initial=0) / max(np.abs(before).max(initial=0), 1e-12)))
    return float(np.max(shares))


def _reference(model: InferenceModel, samples: Samples, program: Path, scratch: Path) -> Samples:
    """The fp32 outputs of every sample, as samples whose feeds are the outputs.

    Raises:
        InputError: as `_outputs`.
    """
    from act.samples.dataset import Gathering, Samples

    gathered = [Gathering(scratch) for _ in model.fetch_names]
    for index, batch in enumerate(samples.batches(1)):
        for outputs, output in zip(gathered, _outputs(model, batch, f"{program}: on evaluation sample {index}")):
            outputs.add(output[0])
        samples.release()
    return Samples({name: outputs.ragged() for name, outputs in zip(model.fetch_names, gathered)})


def _is_constant(values: Ragged) -> bool:
    """Whether several samples gave one and the same output."""
    import numpy as np

    return len(values) > 1 and all(np.array_equal(each, values[0]) for each in values)


if __name__ == "__main__":
    main()
