"""`python -m tasks.prepare --job NAME`: read the user's model and samples, check them, write them in one form.

Writes `given/` (the user's files, which speed-ups are measured against), `expected/` (its outputs on the first
evaluation samples, which every engine's fp32 must give), `model/`, `batch_norms.npz` (gamma of each folded batch norm,
by weight), `tail/` (what was cut off behind the layers, if anything, and the user's model without it; all else is then
of the body), `calibration/`, `evaluation/`, for a metric that needs it `reference/` (the fp32 outputs of the evaluation
samples), and `prepare.json`. Of a model that is quantized already, `given_quantization.json` has what it rounds, over
which ranges, and `expected_as_given/` its first outputs with that rounding; `reference/` has its own outputs.
"""

import logging
import shutil
from dataclasses import asdict, replace
from pathlib import Path

from act.artifacts import replace_folder, sha256, stage_folder
from act.paddleslim.translate import refuse_lagging
from act.results.prepare import EXPECTED_AS_GIVEN, Normalisation, Preparation, SampleCounts, Tensor
from act.results.quantization import GIVEN_QUANTIZATION, GivenQuantization
from act.settings import Job
from tasks.stage import job_from_command_line

log = logging.getLogger(__name__)

LARGEST_DEVIATION = 1e-3  # as for imports: where layers amplify, rounding in another order alone gives 1e-4
EXPECTED_SAMPLES = 8
_BATCH = {True: "it is free now", False: "its operators allow no more, so everything runs one sample at a time"}


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.prepare", "Normalise one job's model and data.") as (name, job):
        refuse_lagging(name, job)
        _prepare(job, stage_folder(name, "prepare"))


def _prepare(job: Job, final: Path) -> None:
    # Paddle takes seconds to import, and wrong settings are told before.
    import numpy as np

    from act.errors import InputError
    from act.formats import SourceModel
    from act.metrics import check_labels, needs_reference, reading, with_known
    from act.program.outputs import (
        check_sizes,
        checked_outputs,
        constant_outputs,
        deviation,
        expected_outputs,
        reference_outputs,
    )
    from act.program.passes.free_batch import different_samples, fixed_batch, free_batch, runs_together
    from act.program.passes.normalise import normalise
    from act.samples.dataset import check_samples
    from act.samples.readers import read
    from act.settings.files import resolve

    folder_or_file = resolve(Path(job.model.path), "folder")
    source = SourceModel.find(
        folder_or_file, job.model.model_filename, job.model.params_filename, job.model.declared_inputs
    )
    parts, program = source.split(), source.files[0]
    original, tail, rounding = parts.body, parts.tail, parts.rounding
    feeds, fetches = original.feed_specs(), original.fetch_specs()
    # How many classes the first output tells apart; -1 when it does not say.
    class_count = fetches[0].shape[-1] if fetches and fetches[0].shape else -1
    for feed in feeds:
        if not feed.shape:
            raise InputError(f"{program}: input `{feed.name}` has no axes; export it with a batch axis")
    fixed = fixed_batch(original)
    if fixed not in (None, 1):
        raise InputError(
            f"{program}: its inputs take {fixed} samples at a time, no more and no less; export the model with a batch "
            "of 1 or of any length"
        )
    with replace_folder(final) as folder:
        calibration, evaluation = read(job.data, feeds, class_count, folder)
        for samples, role in ((calibration, "calibration"), (evaluation, "evaluation")):
            check_samples(samples, feeds, f"{job.data.path} ({role} samples)")
            source.check_axes(samples, f"{job.data.path} ({role} samples)")
        check_labels(job.metric, evaluation.labels, class_count, job.data.path)
        judged = fetches if tail is None or needs_reference(job.metric) else tail.by_sample
        read_as = reading(job.metric, judged, feeds)
        calibration.save(folder / "calibration")
        beside = source.save_tail(tail, original, calibration, folder / "tail") if tail is not None else None
        if parts.save_float is not None:
            (folder / "float").mkdir()
            beside = parts.save_float(folder / "float")
        whole, one_by_one = parts.whole, replace(calibration, largest_batch=1)
        beside = None if whole is not None else beside
        imported = source.check(whole or original, one_by_one, folder / "calibration", beside, whole is None)
        freed = False
        if fixed is not None and (free := free_batch(original)) is not None:
            freed = runs_together(free, original, *different_samples(calibration))
            original = free if freed else original
        if fixed is not None and not freed:
            calibration = replace(calibration, largest_batch=1)
        # A tail computes what it did in the user's file, for as many samples at a time.
        is_one = fixed is not None and (tail is not None or not freed)
        if is_one:
            evaluation = replace(evaluation, largest_batch=1)
        model, changes = normalise(original, rounding.activations if rounding is not None else ())
        first = next(calibration.head(4).batches(4))
        before = checked_outputs(original, first, f"{program}: on the first calibration samples")
        changed = deviation(before, model.run(first))
        if changed > LARGEST_DEVIATION:
            raise RuntimeError(f"normalising changed the model's outputs by {changed:.2g} of their size")
        for samples, role in ((calibration, "calibration"), (evaluation, "evaluation")):
            check_sizes(model, samples, f"{program}: on {role}")
        shutil.rmtree(folder / "float", ignore_errors=True)
        (folder / "model").mkdir()
        model.save(folder / "model")
        np.savez(folder / "batch_norms.npz", **changes.batch_norms)
        shutil.rmtree(folder / "calibration")
        calibration.save(folder / "calibration")
        evaluation.save(folder / "evaluation")
        as_given = source.given()
        given = as_given.copy_to(folder / "given")
        if (expected := expected_outputs(original, evaluation.head(EXPECTED_SAMPLES))) is not None:
            expected.save(folder / "expected")
        if parts.outputs_as_given is not None:
            parts.outputs_as_given(evaluation.head(EXPECTED_SAMPLES), folder).save(folder / EXPECTED_AS_GIVEN)
        constant: list[str] = []
        if needs_reference(job.metric):
            if parts.outputs_as_given is not None:
                reference = parts.outputs_as_given(evaluation, folder)
            else:
                reference = reference_outputs(model, evaluation, program, folder)
            with_known(job.metric, reference).save(folder / "reference")
            constant = constant_outputs(reference)
        if rounding is not None:
            ranges = {changes.renamed.get(name, name): span for name, span in rounding.activations.items()}
            GivenQuantization(activations=ranges).write(folder / GIVEN_QUANTIZATION)
        counts = {name: count for name, count in vars(changes).items() if name in Normalisation.model_fields}
        Preparation(
            format=source.format,
            given=given.relative_to(folder).as_posix(),
            given_format=as_given.format,
            source={file.name: sha256(file).hex() for file in source.files},
            import_deviation=imported,
            inputs=[Tensor(**asdict(spec)) for spec in feeds],
            outputs=[Tensor(**asdict(spec)) for spec in (fetches if tail is None else tail.outputs)],
            batch="free" if fixed is None else "one" if is_one else "freed",
            samples=SampleCounts(calibration=len(calibration), evaluation=len(evaluation)),
            constant_outputs=constant,
            normalised=Normalisation(**counts, largest_relative_deviation=changed),
            rounded=len(rounding.activations) if rounding is not None else 0,
            tail=None if tail is None else tail.operators,
        ).write(folder / "prepare.json")
    log.info(
        f"prepare: {len(calibration)} calibration and {len(evaluation)} evaluation samples; "
        f"{changes.folded_batch_norms} batch norms folded, {changes.removed_identities} identities removed"
    )
    if read_as is not None:
        log.info(f"prepare: {read_as}")
    if imported is not None:
        log.info(f"prepare: outputs differ from those of {program.name} by {imported:.1e} of the largest value at most")
    if as_given.format != source.format:
        log.info(
            f"prepare: no engine loads {program.name} itself: the {as_given.format} model made of it stands for it"
        )
    if fixed is not None:
        log.info(f"prepare: the batch was fixed at 1; {_BATCH[not is_one]}")
    if rounding is not None:
        log.info(
            f"prepare: {program.name} is quantized already: {len(rounding.activations)} tensors are rounded in it. Its "
            "weights and ranges are taken over, and others are tried beside them"
        )
    if tail is not None:
        log.info(f"prepare: kept as it is, behind the layers: {', '.join(tail.operators)}")
    for name in constant:
        log.info(f"prepare: output `{name}` is the same for every evaluation sample: it counts by agreement alone")


if __name__ == "__main__":
    main()
