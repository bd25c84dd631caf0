"""`python -m tasks.prepare --job NAME`: read the user's model and samples, check them, write them in one form.

Writes `model/` (the normalised fp32 model), `calibration/`, `evaluation/`, for the metric `similarity` also
`reference/` (the fp32 outputs of the evaluation samples), and `prepare.json`. The user's files are only read.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

from act.artifacts import replace_folder, stage_folder, write_json
from act.errors import InputError, exit_on_input_error
from act.params import DEFAULT_PATH, Job, load_job

LARGEST_DEVIATION = 1e-4


def main() -> None:
    """Parse the command line and run the stage."""
    parser = argparse.ArgumentParser(prog="python -m tasks.prepare", description="Normalise one job's model and data.")
    parser.add_argument("--job", required=True, help="a job in params.yaml")
    parser.add_argument("--params", type=Path, default=DEFAULT_PATH)
    arguments = parser.parse_args()
    with exit_on_input_error():
        _prepare(load_job(arguments.job, arguments.params), stage_folder(arguments.job, "prepare"))


def _prepare(job: Job, final: Path) -> None:
    from act.model import InferenceModel, find_files
    from act.samples import check_samples
    from tasks.prepare.normalise import normalise
    from tasks.prepare.readers import read
    from tasks.prepare.source import resolve

    source = resolve(Path(job.model.path), "folder")
    files = find_files(source, job.model.model_filename, job.model.params_filename)
    original = InferenceModel.load(source, job.model.model_filename, job.model.params_filename)
    feeds = original.feed_specs()
    calibration, evaluation = read(job.data, feeds)
    for samples, role in ((calibration, "calibration"), (evaluation, "evaluation")):
        check_samples(samples, feeds, f"{job.data.path} ({role} samples)")
    if job.metric != "similarity" and evaluation.labels is None:
        raise InputError(
            f"{job.data.path}: metric `{job.metric}` needs labels, but the evaluation samples have none; "
            "add an array `label`, or set `metric: similarity`"
        )
    model, changes = normalise(original)
    deviation = _deviation(original, model, next(calibration.head(4).batches(4)))
    if deviation > LARGEST_DEVIATION:
        raise RuntimeError(f"normalising changed the model's outputs by {deviation:.2g} of their size")

    with replace_folder(final) as folder:
        (folder / "model").mkdir()
        model.save(folder / "model")
        calibration.save(folder / "calibration")
        evaluation.save(folder / "evaluation")
        if job.metric == "similarity":
            _reference(model, evaluation).save(folder / "reference")
        write_json(
            folder / "prepare.json",
            {
                "source": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
                "inputs": [vars(spec) for spec in feeds],
                "outputs": [vars(spec) for spec in original.fetch_specs()],
                "samples": {"calibration": len(calibration), "evaluation": len(evaluation)},
                "normalised": {**vars(changes), "largest_relative_deviation": deviation},
            },
        )
    print(
        f"prepare: {len(calibration)} calibration and {len(evaluation)} evaluation samples; "
        f"{changes.folded_batch_norms} batch norms folded, {changes.removed_identities} identities removed"
    )


def _deviation(original: Any, model: Any, batch: Any) -> float:
    """The largest difference of the outputs, as a share of the largest output."""
    import numpy as np

    pairs = zip(original.run(batch), model.run(batch))
    return max(float(np.abs(a - b).max() / max(float(np.abs(a).max()), 1e-12)) for a, b in pairs)


def _reference(model: Any, samples: Any) -> Any:
    """The fp32 outputs of every sample, as samples whose feeds are the outputs."""
    from act.samples import Ragged, Samples

    rows = [[output[0] for output in model.run(batch)] for batch in samples.batches(1)]
    return Samples({name: Ragged.of([row[i] for row in rows]) for i, name in enumerate(model.fetch_names)})


if __name__ == "__main__":
    main()
