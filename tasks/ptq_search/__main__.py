"""`python -m tasks.ptq_search --job NAME`: search static post-training quantization, keep every trial.

Reads the model and samples of `prepare` and the strategy of `select`. Writes

- `trials.json`: every trial with its settings, quality and seconds, the sensitivity of each layer, the reference;
- `candidates.json`: what later stages take on, without anything measured by a clock;
- `schemes/ID.json`: the thresholds of each candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from act.artifacts import read_json, replace_folder, stage_folder, write_json
from act.errors import InputError
from act.params import Job, PtqSearch
from act.stage import job_from_command_line

if TYPE_CHECKING:  # Paddle takes seconds to import, and a skipped stage needs none of it
    from tasks.ptq_search.search import Search, Settings

SENSITIVITY_SAMPLES = 4
CANDIDATE_IDS = ("int8-ptq", "int8-ptq-mixed")


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.ptq_search", "Search PTQ settings for one job.") as (name, job):
        strategy = read_json(stage_folder(name, "select") / "strategy.json")
        with replace_folder(stage_folder(name, "ptq_search")) as folder:
            if strategy["quantize"]:
                settings = job.ptq_search if strategy["search"] else _first_only(job.ptq_search)
                _search(name, job, settings, folder)
            else:
                _skip(folder, "the strategy does not quantize")


def _skip(folder: Path, why: str) -> None:
    print(f"ptq_search: nothing to do: {why}")
    write_json(folder / "trials.json", {"why": why, "trials": [], "sensitivity": []})
    write_json(folder / "candidates.json", {"why": why, "reference": None, "candidates": []})
    (folder / "schemes").mkdir()


def _first_only(settings: PtqSearch) -> PtqSearch:
    """The one setting that is tried when the strategy names `QuantPost` without a search."""
    update = {
        "algorithms": settings.algorithms[:1],
        "hist_percent": settings.hist_percent[:1],
        "max_float_layers": 0,
    }
    return settings.model_copy(update=update)


def _search(name: str, job: Job, settings: PtqSearch, folder: Path) -> None:
    from act.evaluation import Evaluation
    from act.model import InferenceModel
    from act.onnx_format import to_onnx
    from act.quantization import quantizable_layers
    from act.samples import Samples
    from tasks.ptq_search.search import Search
    from tasks.ptq_search.sensitivity import measure
    from tasks.ptq_search.statistics import collect

    prepared = stage_folder(name, "prepare")
    model = InferenceModel.load(prepared / "model")
    samples = Samples.load(prepared / "calibration")
    layers = quantizable_layers(model, settings.quantizable_op_type)
    if not layers:
        _skip(folder, f"the model has no layer of the types {', '.join(settings.quantizable_op_type)}")
        return
    try:
        statistics = collect(
            model,
            (layer.activation for layer in layers),
            samples.batches(settings.batch_size),
            -(-len(samples) // settings.batch_size),
        )
    except FloatingPointError as error:
        raise InputError(f"{prepared / 'model'}: {error}; mend the model or the samples") from None

    evaluation = Evaluation(
        job.target.engines[0],
        job.metric,
        prepared / "evaluation",
        prepared / "reference" if job.metric == "similarity" else None,
        threads=job.target.threads,
    )
    fp32_onnx = to_onnx(model)
    reference = evaluation.quality(model, None, fp32_onnx)
    search = Search(model, layers, statistics, lambda scheme: evaluation.quality(model, scheme, fp32_onnx), settings)
    _try_all(search, search.rules(), "threshold rules")
    best = search.best().settings
    sensitivities = measure(
        model,
        layers,
        search.thresholds(best.algorithm, best.hist_percent),
        next(samples.head(SENSITIVITY_SAMPLES).batches(SENSITIVITY_SAMPLES)),
    )
    _try_all(search, search.float_layers(sensitivities), "float layers")

    write_json(
        folder / "trials.json",
        {
            "reference": {"engine": evaluation.engine, "quality": reference.value, "beside": reference.beside},
            "trials": [
                {
                    "id": trial.number,
                    "settings": trial.settings.to_json(),
                    "quality": trial.quality.value,
                    "beside": trial.quality.beside,
                    "drop": reference.value - trial.quality.value,
                    "seconds": round(trial.seconds, 3),
                }
                for trial in search.trials
            ],
            "sensitivity": [vars(entry) for entry in sensitivities],
        },
    )
    (folder / "schemes").mkdir()
    candidates: list[dict[str, Any]] = []
    for identity, trial in zip(CANDIDATE_IDS, search.candidates()):
        write_json(folder / "schemes" / f"{identity}.json", trial.scheme.to_json())
        candidates.append(
            {
                "id": identity,
                "scheme": f"schemes/{identity}.json",
                "trial": trial.number,
                "settings": trial.settings.to_json(),
                "quality": trial.quality.value,
                "drop": reference.value - trial.quality.value,
                "float_layers": list(trial.settings.float_layers),
            }
        )
    write_json(
        folder / "candidates.json",
        {"reference": {"engine": evaluation.engine, "quality": reference.value}, "candidates": candidates},
    )
    for candidate in candidates:
        print(f"ptq_search: {candidate['id']}: quality {candidate['quality']:.4f}, fp32 {reference.value:.4f}")


def _try_all(search: Search, trials: Sequence[Settings], what: str) -> None:
    with tqdm(trials, desc=what, unit="trial") as bar:
        for settings in bar:
            trial = search.run(settings)
            bar.set_postfix_str(f"{settings.algorithm}, quality {trial.quality.value:.4f}")


if __name__ == "__main__":
    main()
