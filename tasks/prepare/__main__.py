"""`python -m tasks.prepare --job NAME`: read the user's model and samples, check them, write them in one form.

Writes `model/`, `batch_norms.npz` (gamma of each folded batch norm, by weight), `calibration/`, `evaluation/`, for a
metric that needs it `reference/` (the fp32 outputs of the evaluation samples), and `prepare.json`.
"""

import hashlib
import logging
from dataclasses import asdict
from pathlib import Path

from act.artifacts import replace_folder, stage_folder
from act.paddleslim.translate import refuse_lagging
from act.results.prepare import Normalisation, Preparation, SampleCounts, Tensor
from act.settings import Job
from tasks.stage import job_from_command_line

log = logging.getLogger(__name__)

LARGEST_DEVIATION = 1e-4


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.prepare", "Normalise one job's model and data.") as (name, job):
        refuse_lagging(name, job)
        _prepare(job, stage_folder(name, "prepare"))


def _prepare(job: Job, final: Path) -> None:
    # Paddle takes seconds to import, and wrong settings are told before.
    import numpy as np

    from act.formats import SourceModel, check_batch_axes
    from act.metrics import check_labels, needs_reference
    from act.program.outputs import checked_outputs, constant_outputs, deviation, reference_outputs
    from act.program.passes.normalise import normalise
    from act.samples.dataset import check_samples
    from act.samples.readers import read
    from act.settings.files import resolve

    folder_or_file = resolve(Path(job.model.path), "folder")
    source = SourceModel.find(folder_or_file, job.model.model_filename, job.model.params_filename)
    original, program = source.load(), source.files[0]
    feeds, fetches = original.feed_specs(), original.fetch_specs()
    # How many classes the first output tells apart; -1 when it does not say.
    class_count = fetches[0].shape[-1] if fetches and fetches[0].shape else -1
    check_batch_axes(feeds, program)
    with replace_folder(final) as folder:
        calibration, evaluation = read(job.data, feeds, class_count, folder)
        for samples, role in ((calibration, "calibration"), (evaluation, "evaluation")):
            check_samples(samples, feeds, f"{job.data.path} ({role} samples)")
        check_labels(job.metric, evaluation.labels, class_count, job.data.path)
        model, changes = normalise(original)
        first = next(calibration.head(4).batches(4))
        before = checked_outputs(original, first, f"{program}: on the first calibration samples")
        changed = deviation(before, model.run(first))
        if not changed <= LARGEST_DEVIATION:  # NaN too
            raise RuntimeError(f"normalising changed the model's outputs by {changed:.2g} of their size")
        (folder / "model").mkdir()
        model.save(folder / "model")
        np.savez(folder / "batch_norms.npz", **changes.batch_norms)
        calibration.save(folder / "calibration")
        evaluation.save(folder / "evaluation")
        constant: list[str] = []
        if needs_reference(job.metric):
            reference = reference_outputs(model, evaluation, program, folder)
            reference.save(folder / "reference")
            constant = constant_outputs(reference)
        counts = {name: count for name, count in vars(changes).items() if name != "batch_norms"}
        Preparation(
            source={file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in source.files},
            inputs=[Tensor(**asdict(spec)) for spec in feeds],
            outputs=[Tensor(**asdict(spec)) for spec in fetches],
            samples=SampleCounts(calibration=len(calibration), evaluation=len(evaluation)),
            constant_outputs=constant,
            normalised=Normalisation(**counts, largest_relative_deviation=changed),
        ).write(folder / "prepare.json")
    log.info(
        f"prepare: {len(calibration)} calibration and {len(evaluation)} evaluation samples; "
        f"{changes.folded_batch_norms} batch norms folded, {changes.removed_identities} identities removed"
    )
    for name in constant:
        log.info(f"prepare: output `{name}` is the same for every evaluation sample: similarity to it says little")


if __name__ == "__main__":
    main()
