"""`python -m tasks.ptq_search --job NAME`: search static post-training quantization, keep every trial.

Reads the samples of `prepare`, the operators of `analyze`, the strategy of `select`, and the model and the statistics
of `calibrate`. Writes

- `trials.json`: every trial with its settings, quality, expected cost and seconds; the Pareto front; the sensitivity of
  each layer; the importance of each parameter; the fp32 reference;
- `candidates.json`: what later stages may take on, without anything measured by a clock;
- `schemes/ID.json`: the quantization scheme of each candidate.

Trials are also kept in a journal beside the artefacts until the search has ended, so that a killed one goes on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from act.artifacts import fingerprint, replace_folder, stage_folder, write_json
from act.results.analyze import Analysis
from act.results.prune import Pruning
from act.results.ptq_search import Candidate, Candidates, LayerSensitivity, Reference, Trials
from act.results.select import Strategy
from act.search.cluster import Cluster
from act.settings import Job, PtqSearch
from tasks.stage import code_of, job_from_command_line

if TYPE_CHECKING:  # Paddle takes seconds to import, and a skipped stage needs none of it
    from act.engines.evaluation import Evaluation
    from act.metrics import Quality
    from act.quantization.scheme import Scheme
    from act.search.measure import TrialJob
    from act.search.schemes import SchemeMaker
    from act.search.search import Search
    from act.search.space import Space

SENSITIVITY_SAMPLES = 8


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.ptq_search", "Search PTQ settings for one job.") as (name, job):
        strategy = Strategy.read(stage_folder(name, "select") / "strategy.json")
        with replace_folder(stage_folder(name, "ptq_search")) as folder:
            if strategy.quantize:
                settings = job.ptq_search if strategy.search else _one_trial(job.ptq_search)
                _search(name, job, settings, folder)
            else:
                _skip(folder, "the strategy does not quantize")


def _skip(folder: Path, why: str) -> None:
    print(f"ptq_search: nothing to do: {why}")
    Trials(why=why).write(folder / "trials.json")
    Candidates(why=why).write(folder / "candidates.json")
    (folder / "schemes").mkdir()


def _one_trial(settings: PtqSearch) -> PtqSearch:
    """What is tried when the strategy names `QuantPost` without a search: the most promising setting of the space."""
    return settings.model_copy(update={"max_quant_count": 1})


def _search(name: str, job: Job, settings: PtqSearch, folder: Path) -> None:
    from act.engines.evaluation import Evaluation
    from act.engines.process import EngineFailure
    from act.engines.spec import spec_of
    from act.onnx_graph.conversion import to_onnx
    from act.program.layers import quantizable_layers
    from act.program.model import InferenceModel
    from act.quantization.sensitivity import rank_layers
    from act.quantization.statistics import STATISTICS_FILE, load
    from act.samples.dataset import Samples
    from act.search.runners import choose
    from act.search.sampler import ForestSampler, importance
    from act.search.schemes import SchemeMaker
    from act.search.search import Journal, Search

    cluster = Cluster.from_environment()
    prepared, calibrated = stage_folder(name, "prepare"), stage_folder(name, "calibrate")
    model = InferenceModel.load(calibrated / "model")
    able = [kind for kind in settings.quantizable_op_type if kind in spec_of(job.target.engines[0]).int8_operators]
    layers = quantizable_layers(model, able)
    if not layers:
        _skip(folder, f"the model has no layer of the types {', '.join(able)}")
        return
    pruning = Pruning.read(stage_folder(name, "prune") / "prune.json")
    operators = Analysis.read(stage_folder(name, "analyze") / "analysis.json").operators
    macs = pruning.macs or {operator.name: operator.macs for operator in operators}
    statistics = load(calibrated / STATISTICS_FILE)
    maker = SchemeMaker(model, layers, statistics, macs)
    space = _space(settings, sorted(statistics), [layer.op_type for layer in layers])
    fp32_onnx = to_onnx(model)
    batch = next(Samples.load(prepared / "calibration").head(SENSITIVITY_SAMPLES).batches(SENSITIVITY_SAMPLES))
    start = space.first()[0]
    sensitivities = rank_layers(model, fp32_onnx, layers, lambda layer: maker.make_for([layer], start), batch)
    maker.order = [entry.layer for entry in sensitivities]

    evaluation = Evaluation.of(job, prepared)
    try:
        # A pruned model may have lost quality already, which is part of what a candidate loses.
        whole = InferenceModel.load(prepared / "model") if pruning.pruned else model
        reference = evaluation.quality(whole, None, None if pruning.pruned else fp32_onnx)
    except EngineFailure as failure:
        _skip(folder, f"{evaluation.engine} cannot run the fp32 model, the measure of every trial: {failure}")
        return
    journal = _journal(name, job, settings)
    with choose(cluster, settings.side_by_side, job.target.threads) as runner:
        search = Search(
            ForestSampler(space, settings.seed),
            maker.make,
            maker.cost,
            lambda scheme: _trial_job(evaluation, model, scheme, fp32_onnx, reference),
            reference,
            Journal(journal),
            runner,
        )
        _run(search, settings, space.size, reference.value)
    candidates = search.candidates()
    if not candidates:
        causes = "; ".join(dict.fromkeys(t.result.failure or "too much quality is lost" for t in search.trials))
        print(f"ptq_search: no trial gave a candidate: {causes}")
    _write(folder, search, maker, sensitivities, importance(space, search.history()), (evaluation, reference))
    journal.unlink(missing_ok=True)


def _space(settings: PtqSearch, batch_nums: Sequence[int], op_types: Sequence[str]) -> Space:
    from act.search.space import Space

    present = tuple(kind for kind in settings.quantizable_op_type if kind in op_types)
    # Depthwise convolutions hold few of the MACs and lose most in int8; matrix products are the next to go.
    subsets = [present, tuple(kind for kind in present if kind != "depthwise_conv2d")]
    subsets.append(tuple(kind for kind in present if kind in ("conv2d", "depthwise_conv2d", "conv2d_transpose")))
    most = min(settings.max_float_layers, len(op_types) - 1)
    wanted = settings.batch_num or batch_nums
    kept = [number for number in batch_nums if number in wanted] or [batch_nums[-1]]
    return Space(
        algorithms=tuple(settings.ptq_algo),
        hist_percents=tuple(settings.hist_percent),
        batch_nums=tuple(kept),
        symmetric=tuple(settings.activation_symmetric),
        weight_quantize_types=tuple(settings.weight_quantize_type),
        bias_correct=tuple(settings.bias_correct),
        op_types=tuple(dict.fromkeys(subset for subset in subsets if subset)),
        float_layers=(0, *(2**power for power in range(most.bit_length()))),
    )


def _trial_job(evaluation: Evaluation, model: Any, scheme: Scheme, fp32_onnx: Any, reference: Quality) -> TrialJob:
    """The measurement of a scheme's model, with the model in it."""
    from act.engines.writer import write_for_engine
    from act.search.measure import TrialJob

    with tempfile.TemporaryDirectory() as name:
        entry = write_for_engine(evaluation.engine, model, scheme, Path(name), fp32_onnx)
        files = {path.name: path.read_bytes() for path in sorted(Path(name).iterdir())}
        return TrialJob(
            engine=evaluation.engine,
            files=files,
            entry=str(entry.relative_to(name)),
            precision="int8",
            threads=evaluation.threads,
            samples=evaluation.samples.resolve(),
            metric=evaluation.metric,
            reference=evaluation.reference.resolve() if evaluation.reference is not None else None,
            fp32=reference,
            batch=evaluation.batch,
            time_limit_seconds=evaluation.time_limit_seconds,
        )


def _run(search: Search, settings: PtqSearch, size: int, fp32: float) -> None:
    from act.search.progress import Progress

    total = min(settings.max_quant_count, size)
    with Progress(total, fp32, 60 * settings.time_limit_minutes, settings.side_by_side) as progress:
        search.run(settings, progress)


def _journal(name: str, job: Job, settings: PtqSearch) -> Path:
    """Where the trials of exactly this search are kept while it lasts: the name stands for its inputs and its code."""
    parts = (settings.model_dump(), job.metric, job.target.engines[0], job.target.threads)
    inputs = [stage_folder(name, "prepare"), stage_folder(name, "calibrate"), stage_folder(name, "analyze")]
    digest = fingerprint(parts, inputs, code_of("ptq_search"))
    folder = stage_folder(name, "ptq_search").parent / ".ptq_search_journal"
    wanted = folder / f"{digest}.jsonl"
    for other in folder.glob("*.jsonl"):
        if other != wanted:
            other.unlink()
    return wanted


def _write(
    folder: Path,
    search: Search,
    maker: SchemeMaker,
    sensitivities: Sequence[LayerSensitivity],
    importance: dict[str, float],
    measured: tuple[Evaluation, Quality],
) -> None:
    evaluation, quality = measured
    reference = Reference(engine=evaluation.engine, quality=quality.value, beside=dict(quality.beside))
    Trials(
        reference=reference,
        trials=[trial.to_result(quality.value) for trial in search.trials],
        front=[trial.number for trial in search.front()],
        sensitivity=list(sensitivities),
        importance=importance,
    ).write(folder / "trials.json")
    (folder / "schemes").mkdir()
    candidates: list[Candidate] = []
    for trial in search.candidates():
        identity = f"int8-ptq-{trial.number}"
        scheme = maker.make(trial.setting)
        write_json(folder / "schemes" / f"{identity}.json", scheme.to_json())
        candidates.append(
            Candidate(
                id=identity,
                scheme=f"schemes/{identity}.json",
                trial=trial.number,
                settings=trial.setting.to_result(),
                quality=trial.result.quality,
                drop=quality.value - trial.result.quality,
                cost=trial.cost,
                symmetric=trial.setting.symmetric,
                layers=len(scheme.layers),
            )
        )
    Candidates(reference=reference, candidates=candidates).write(folder / "candidates.json")
    for candidate in candidates:
        print(
            f"ptq_search: {candidate.id}: quality {candidate.quality:.4f} (fp32 {quality.value:.4f}), "
            f"expected cost {candidate.cost:.2f} of fp32"
        )


if __name__ == "__main__":
    main()
