"""`python -m tasks.qat --job NAME`: train the quantized candidate with the fp32 model as its teacher, where needed.

Writes `qat.json`, and when training made the candidate better `model/` (fp32, with the trained weights) and
`scheme.json` (what quantizes it). A checkpoint is kept beside them until training has ended. Several processes train
together where Paddle's launcher starts them (`act/training/processes.py`); the first one writes.
"""

import logging
import shutil
from pathlib import Path

from act.artifacts import replace_folder, stage_folder
from act.results.ptq_search import Candidates, Plan
from act.results.training import Training
from act.settings import Job
from tasks.stage import checkpoint_folder, job_from_command_line

log = logging.getLogger(__name__)

CANDIDATE = "int8-qat"
_IN_VAIN = "post-training quantization is enough, or training would be in vain"


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.qat", "Train one job's quantized model.") as (name, job):
        start = Plan.read(stage_folder(name, "plan") / "plan.json").start
        if start is None:
            with replace_folder(stage_folder(name, "qat")) as folder:
                _finish(folder, Training(needed=False, why=_IN_VAIN))
            return
        # Paddle takes seconds to import, and a job without training needs none of it.
        from act.training.processes import processes

        if not processes().first:
            _train(name, job, start, None)
            return
        with replace_folder(stage_folder(name, "qat")) as folder:
            checkpoint = _train(name, job, start, folder)
        if checkpoint is not None:
            shutil.rmtree(checkpoint, ignore_errors=True)


def _train(name: str, job: Job, start: str, folder: Path | None) -> Path | None:
    """Train a candidate, and write the result into a folder, if one is given; return the folder of a checkpoint, if
    there is one: it is of no more use once the stage has ended."""
    from act.engines.evaluation import Evaluation
    from act.program.model import InferenceModel
    from act.quantization.calibration import calibrated_model
    from act.quantization.scheme import Scheme
    from act.samples.dataset import Samples
    from act.training.distillation import load_teachers, teacher_files
    from act.training.train import train_quantized, why_untrainable

    prepared, searched = stage_folder(name, "prepare"), stage_folder(name, "refine")
    found = Candidates.read(searched / "candidates.json")
    assert found.reference is not None
    chosen = next(candidate for candidate in found.candidates if candidate.id == start)
    model = calibrated_model(stage_folder(name, "calibrate"), chosen.smooth_strength)
    if (why := why_untrainable(model)) is not None:
        if folder is not None:
            _finish(folder, Training(needed=False, why=why))
        return None
    evaluation = Evaluation.of(job, prepared, found.reference.engine)
    samples = Samples.load(prepared / "calibration")
    dumped = [part.model_dump() for part in (job.qat, job.distillation)]
    settings = (dumped, job.metric, evaluation.engine, job.target.threads, start)
    inputs = [prepared, stage_folder(name, "calibrate"), searched, *teacher_files(job.distillation)]
    checkpoint = checkpoint_folder(name, "qat", settings, inputs, tidy=folder is not None)
    whole = InferenceModel.load(prepared / "model")
    teachers = load_teachers(job.distillation, whole, model, samples, job.qat.batch_size)

    def evaluate(model: InferenceModel, scheme: Scheme | None) -> float:
        return evaluation.quality(model, scheme).value

    scheme = Scheme.read(searched / chosen.scheme)
    result = train_quantized(model, scheme, teachers, samples, job.qat, job.distillation, evaluate, checkpoint)
    if folder is None:
        return None
    if result.model is not None and result.scheme is not None:
        (folder / "model").mkdir()
        result.model.save(folder / "model")
        result.scheme.write(folder / "scheme.json")
    fit = result.fit
    training = Training(
        needed=True,
        why=fit.why,
        start=start,
        distillation=result.compared,
        quality_before=fit.quality_before,
        quality_after=fit.quality_after,
        candidate=None if result.model is None else CANDIDATE,
        history=fit.history,
    )
    _finish(folder, training)
    return checkpoint


def _finish(folder: Path, training: Training) -> None:
    training.write(folder / "qat.json")
    log.info("qat: %s: %s", "trained" if training.needed else "not needed", training.why)


if __name__ == "__main__":
    main()
