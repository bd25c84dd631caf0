"""PaddleSlim's `AutoCompression` with this pipeline behind it: the same constructor, the same `compress()`.

The samples that the loaders give are written into a folder below `save_dir`, an entry of params.yaml is made of
`config` and the other arguments, and the stages run there, each in a process of its own. Nothing of the user's is
changed, and nothing is written outside `save_dir`. Paddle is imported when the model is looked at, not before.
"""

from __future__ import annotations

import logging
import math
import shutil
import sys
import zlib  # noqa: F401 - this and Pillow before Paddle, or PNG files crash the process (act/program/paddle_setup.py)
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image  # noqa: F401
import yaml

from act.artifacts import DEPLOY_ROOT, stage_folder
from act.engines.process import EngineFailure
from act.errors import InputError, quoted
from act.metrics import needs_reference
from act.paddleslim.translate import OWN_SECTION, POST_TRAINING, hardware_advice, merged, timed_shapes, translate
from act.results.export import ExportedCandidates
from act.results.flow import CallbackMetrics
from act.results.report import Manifest
from act.samples.dataset import LABEL, FeedSpec, Ragged, Samples, save_flat
from act.samples.readers.arrays import SHAPES, file_name
from act.settings import ModelSource, Params, read_mapping, validate
from flows.act_config import completed
from flows.stages import PlainJob
from tasks.stage import log_to_stdout

if TYPE_CHECKING:
    from act.program.model import InferenceModel

log = logging.getLogger(__name__)

JOB = "model"
WORK_FOLDER = ".pipeline"
# What the callback gave for the candidates of the model that is deployed.
_METRICS = "eval_callback.json"
# How far the metric of the model may lie from `origin_metric`: ACT's own figure.
ORIGIN_TOLERANCE = 0.05
# How many samples are taken of loaders that may be endless, and how much of the disk.
EVALUATION, CALIBRATION, TRAINING = 512, 128, 4096
# A callback that takes longer for one model is not asked for each trial; and how far, as a share, it may say something
# else of the given model on an engine.
LONGEST_CALLBACK_SECONDS, CALLBACK_TOLERANCE = 60, 0.005
LARGEST_SAMPLES = 4e9
LARGEST_BATCH = 1024

_HARDWARE = ("cpu", "gpu", "SD625", "SD710", "RK3288")


class AutoCompression:
    """Compress an inference model, with nothing but samples.

    Args:
        model_dir: folder of the inference model, or its file (an ONNX model or PyTorch's, too); only ever read.
        train_dataloader: gives the samples for calibration and training: an iterable of batches, or what returns one
            when called. A batch is a dictionary of arrays by input (or a list that holds just that), or a list of
            arrays in the order of the inputs. Labels (`label` in a dictionary, the last of a list) are left aside.
        model_filename: name of the program file, when it is not a usual one.
        params_filename: name of the weights file, likewise.
        save_dir: where the result comes: `model.pdmodel`, `model.pdiparams`, `calibration_table.txt` and
            `quant_model.onnx` (the two Paddle files also under the names of the two arguments above), what won on this
            machine in `winner/`, `manifest.json`, `report.html` and `params.yaml`.
        config: ACT's configuration: path of a YAML file, dictionary, or list of strategies; chosen automatically when
            left out. Its section `Pipeline` may hold any sections of a job of params.yaml, for what ACT has no key.
        input_shapes: shapes to measure the latency of beside the samples', for models with axes of any length.
        target_speedup: a model counts only when it is so many times as fast as the given one.
        eval_callback: called as ACT calls it, with a Paddle executor, a program, the names of the inputs and the output
            variables; returns a metric, higher is better. Where it is a function of a module in this folder, and works
            in a process of its own, the search goes by it, else by `eval_dataloader`. The metric of the given model and
            of each final candidate is measured by the callback in this process, and the quantized candidate that it
            likes best comes into `save_dir`.
        eval_dataloader: gives the samples that candidates are judged by: by the share of right classes where each has
            one class number and the model classifies, else by the similarity to the given model's outputs. When it is
            the training loader, or left out, that loader's samples are dealt out to both.
        deploy_hardware: accepted as ACT does; measured is this machine's CPU.

    Attributes:
        final_metric: what the callback gave for the model in `save_dir`; None without callback.

    Raises:
        InputError: an argument or a key of `config` is wrong.
    """

    def __init__(
        self,
        model_dir: str,
        train_dataloader: Any,
        model_filename: str | None = None,
        params_filename: str | None = None,
        save_dir: str = "./output",
        config: str | Mapping[str, Any] | Sequence[str] | None = None,
        input_shapes: Mapping[str, Sequence[int]] | Sequence[int] | None = None,
        target_speedup: float | None = None,
        eval_callback: Callable[[Any, Any, list[str], list[Any]], Any] | None = None,
        eval_dataloader: Any = None,
        deploy_hardware: str | None = "gpu",
    ) -> None:
        self.final_metric: float | None = None
        self._folder = Path(save_dir).resolve()
        given = Path(model_dir).resolve()
        if self._folder in (given, given.parent if given.is_file() else given):
            raise InputError(f"`save_dir` is {save_dir!r}, where the given model is; name another folder, to keep it")
        self._files = (model_filename, params_filename)
        self._train, self._eval, self._callback = train_dataloader, eval_dataloader, eval_callback
        self._shapes = input_shapes
        raw, origin = _sections(config)
        raw, self._counts = _without_counts(raw, origin)
        translation = translate(raw, origin, scripts=False)
        self._origin_metric, self._metric_is_given = translation.origin_metric, "metric" in translation.job
        self._given_metric: float | None = None
        entry = {
            "model": {"path": str(given), "model_filename": model_filename, "params_filename": params_filename},
            "data": {"reader": "arrays", "path": "data"},
            # A calibration table and Paddle's int8 kernels know no zero point, and ACT makes none.
            "ptq_search": {"activation_symmetric": [True]},
        }
        self._entry = completed(merged(entry, translation.job))
        if target_speedup is not None:
            number = isinstance(target_speedup, (int, float)) and not isinstance(target_speedup, bool)
            if not number or not 1 <= target_speedup <= 1000:
                raise InputError(f"`target_speedup` is {target_speedup!r:.80}; it must be a number from 1, such as 1.5")
            self._entry["budget"]["min_speedup"] = float(target_speedup)
        validate(Params, {"jobs": {JOB: self._entry}}, origin)
        if deploy_hardware not in (None, *_HARDWARE):
            raise InputError(f"`deploy_hardware` is {deploy_hardware!r:.80}; ACT knows {', '.join(_HARDWARE)}")
        for warning in translation.warnings:
            log.warning("warning: %s", warning)
        if self._origin_metric is not None and eval_callback is None:
            log.warning(f"warning: {origin}: `TrainConfig.origin_metric`: only an `eval_callback` is compared with it")
        if deploy_hardware not in (None, "cpu"):
            log.warning(f"warning: `deploy_hardware`: {hardware_advice(str(deploy_hardware))}")

    def compress(self) -> None:
        """Run the pipeline and fill `save_dir`.

        Raises:
            InputError: the model, the samples or the settings are wrong; the message says which and what to do.
            RuntimeError: a stage failed; its files are left in `save_dir`.
        """
        with log_to_stdout(logging.INFO, (__name__,)):
            given = ModelSource.model_validate(self._entry["model"])
            whole = _load_given(given, with_tail=True) if self._callback else None
            if whole is not None:
                self._given_metric, wanted = self._metric(whole), self._origin_metric
                if wanted is not None and abs(self._given_metric - wanted) > ORIGIN_TOLERANCE:
                    raise InputError(
                        f"`eval_callback` gives {self._given_metric:.4f} for the given model, but `TrainConfig."
                        f"origin_metric` is {wanted:g}; correct it, or mend the data that the callback reads"
                    )
            work = self._folder / WORK_FOLDER
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            self._write_samples(_load_given(given), work)
            if whole is not None and not self._metric_is_given and (metric := self._sent_callback(whole, work)):
                self._entry["metric"] = metric
                log.info("the search goes by `eval_callback`, in processes of its own")
            job = {"jobs": {JOB: self._entry}}
            validate(Params, job, "the job made of the arguments")
            text = yaml.safe_dump(job, sort_keys=False, default_flow_style=None)
            (work / "params.yaml").write_text(text, encoding="utf-8")
            # `prepare` has copied the samples.
            after = {"prepare": lambda: shutil.rmtree(work / "data"), "export": lambda: self._choose(work)}
            PlainJob(JOB, work, log.info, after).run()
            self._collect(work)
            shutil.rmtree(work)

    def export_onnx(self, model_name: str = "quant_model.onnx", deploy_backend: str | None = None) -> None:
        """Put the ONNX file into `save_dir/ONNX` too, as ACT does; its form is one that every engine reads.

        Raises:
            InputError: there is none, because `compress` has not run, or made no int8 model.
        """
        source = self._folder / "quant_model.onnx"
        if not source.is_file():
            raise InputError(f"{source}: no such file; run `compress` with a configuration that quantizes first")
        (self._folder / "ONNX").mkdir(exist_ok=True)
        shutil.copyfile(source, self._folder / "ONNX" / Path(model_name).name)

    def _write_samples(self, model: InferenceModel, work: Path) -> None:
        """Take samples of the loaders, write them, and fit the entry to them."""
        from act.samples.loaders import deal_out, peek, take

        feeds = model.feed_specs()
        batch, size, train = peek(self._train, feeds, "train_dataloader")
        counts = self._most(batch, size)
        log.info(f"taking at most {counts[0]} samples for calibration and training, and {counts[1]} for evaluation")
        if self._eval is None or self._eval is self._train:
            calibration, evaluation = deal_out(train, feeds, counts, work, "train_dataloader")
        else:
            calibration = take(train, feeds, counts[0], work, "train_dataloader", labelled=False)
            evaluation = take(self._eval, feeds, counts[1], work, "eval_dataloader")
        labelled = _are_classes(model, evaluation)
        _save(calibration.feeds, work / "data" / "calibration")
        if not self._metric_is_given:
            self._entry["metric"] = "top1" if labelled else "similarity"
        saved = dict(evaluation.feeds)
        if evaluation.labels is not None and (labelled or not needs_reference(self._entry["metric"])):
            saved[LABEL] = evaluation.labels
        _save(saved, work / "data" / "evaluation")
        log.info(f"{len(calibration)} and {len(evaluation)} samples; quality is `{self._entry['metric']}`")
        for section in ("calibration", "qat", "prune"):
            self._entry[section].setdefault("batch_size", min(batch, LARGEST_BATCH))
        if self._shapes is not None:
            self._time_shapes(feeds, evaluation)

    def _most(self, batch: int, sample_bytes: int) -> tuple[int, int]:
        """Return how many samples are taken at most, for calibration and for evaluation; `batch` is the loader's."""
        settings, strategy = self._entry["calibration"], self._entry["strategy"]
        trained = TRAINING if strategy != "auto" and {*strategy} - POST_TRAINING else 0
        read = max(settings.get("batch_num", [16])) * settings.get("batch_size", batch)
        counts = {"calibration": max(CALIBRATION, trained, read), "evaluation": EVALUATION, **self._counts}
        share = min(1.0, LARGEST_SAMPLES / max(sample_bytes * sum(counts.values()), 1))
        return max(int(counts["calibration"] * share), 1), max(int(counts["evaluation"] * share), 1)

    def _time_shapes(self, feeds: Sequence[FeedSpec], evaluation: Samples) -> None:
        """Ask for the latency at `input_shapes` too, where the samples are of other shapes."""
        names = [feed.name for feed in feeds]
        if not isinstance(self._shapes, Mapping) and len(names) != 1:
            there = f"the model has the inputs {quoted(names)}"
            raise InputError(f"`input_shapes` is one shape, but {there}: give a dictionary")
        shapes = self._shapes if isinstance(self._shapes, Mapping) else {names[0]: self._shapes}
        timed = timed_shapes(shapes, "`input_shapes`")
        for name in timed.keys() - names:
            raise InputError(f"`input_shapes` names `{name}`, which is no input of the model")
        first = {name: feed.shapes[0].tolist() for name, feed in evaluation.feeds.items()}
        if first != {**first, **timed}:
            self._entry["benchmark"].setdefault("shapes", [{**first, **timed}])

    def _metric(self, model: InferenceModel) -> float:
        """Return what the callback gives for a model, in static mode, as in ACT."""
        assert self._callback is not None
        with _static_mode() as paddle:
            outputs = [model.program.global_block().var(name) for name in model.fetch_names]
            with paddle.static.scope_guard(model.scope):
                executor = paddle.static.Executor(paddle.CPUPlace())
                found = self._callback(executor, model.program, list(model.feed_names), outputs)
        with suppress(TypeError, ValueError):
            if math.isfinite(metric := float(found)):
                return metric
        raise InputError(f"`eval_callback` returned {found!r:.80}; it must return one number, higher is better")

    def _sent_callback(self, model: InferenceModel, work: Path) -> dict[str, Any] | None:
        """Return the callback as a metric, where an engine's process can import it, and it says there what it says
        here, soon enough to be asked for each trial."""
        from act.engines.evaluation import Evaluation
        from act.samples.readers.arrays import Settings as Arrays
        from act.samples.readers.arrays import read

        name = _importable(self._callback)
        if name is None or self._given_metric is None:
            return None
        metric: dict[str, Any] = {"name": "eval_callback", "function": name, "project": str(Path.cwd())}
        metric |= {"inputs": list(model.feed_names), "outputs": list(model.fetch_names)}
        _, evaluation = read(Arrays(reader="arrays", path=str(work / "data")), model.feed_specs(), -1, work)
        evaluation.save(work / "asked")
        engine = Params.model_validate({"jobs": {JOB: self._entry}}).jobs[JOB].target.engines[0]
        try:
            with _static_mode():
                judged = Evaluation(engine, metric, work / "asked", None, time_limit_seconds=LONGEST_CALLBACK_SECONDS)
                found = judged.quality(model, None).value
        except EngineFailure as failure:
            log.info(
                f"`eval_callback` cannot be sent to a process, so that the search goes without it: {failure.cause}"
            )
            return None
        finally:
            shutil.rmtree(work / "asked")
        if abs(found - self._given_metric) > CALLBACK_TOLERANCE * max(abs(self._given_metric), CALLBACK_TOLERANCE):
            log.info(f"`eval_callback` gives {found:.4g} in a process of its own, so that the search goes without it")
            return None
        return metric

    def _choose(self, work: Path) -> None:
        """Choose what to deploy by the callback, where there is one, and note its figures beside the candidates."""
        if self._given_metric is None:
            return
        exported = work / stage_folder(JOB, "export")
        found = ExportedCandidates.read(exported / "candidates.json")
        others = [candidate.name for candidate in found.candidates if candidate.name != "fp32"]
        metrics = {"fp32": self._given_metric, **{name: self._metric(_load(exported / name)) for name in others}}
        CallbackMetrics(metrics=metrics).write(exported / _METRICS)
        for name, metric in metrics.items():
            log.info(f"  eval_callback: {name}: {metric:.4f}")
        quantized = [candidate.name for candidate in found.candidates if candidate.precision == "int8"]
        if quantized:
            liked = max(quantized, key=lambda name: (metrics[name], name == found.deploy))
            found.model_copy(update={"deploy": liked}).write(exported / "candidates.json")

    def _collect(self, work: Path) -> None:
        """Move the result into `save_dir`."""
        deployed = work / DEPLOY_ROOT / JOB
        name = Manifest.read(deployed / "manifest.json").deployed_candidate
        for source in sorted(deployed.iterdir()):
            target = self._folder / source.name
            shutil.rmtree(target, ignore_errors=True)
            source.replace(target)
        for given, file in zip(self._files, ("model.pdmodel", "model.pdiparams")):
            if given not in (None, file) and (self._folder / file).exists():
                shutil.copyfile(self._folder / file, self._folder / str(given))
        shutil.copyfile(work / "params.yaml", self._folder / "params.yaml")
        told = work / stage_folder(JOB, "export") / _METRICS
        if told.is_file():
            metrics = CallbackMetrics.read(told).metrics
            self.final_metric = metrics[name]
            CallbackMetrics(metrics=metrics, deployed=name).write(self._folder / _METRICS)
        log.info(f"{self._folder}: {name}" + ("" if self.final_metric is None else f", metric {self.final_metric:.4f}"))


def _importable(callback: Any) -> str | None:
    """Return a function's `module:name`, where its module is a file of this folder that can be imported once more."""
    module, name = getattr(callback, "__module__", None), getattr(callback, "__qualname__", "")
    file = getattr(sys.modules.get(str(module)), "__file__", None)
    if not isinstance(module, str) or module == "__main__" or not name.isidentifier() or file is None:
        return None
    inside = Path(file).resolve().is_relative_to(Path.cwd().resolve())
    return f"{module}:{name}" if inside and getattr(sys.modules[module], name, None) is callback else None


def _sections(config: Any) -> tuple[dict[str, Any], str]:
    """Return the sections of a configuration in any of ACT's forms, and where they come from."""
    if isinstance(config, str):
        return read_mapping(Path(config), "`config` names an ACT configuration"), config
    if config is None or isinstance(config, Mapping):
        return dict(config or {}), "config"
    if isinstance(config, (list, tuple, set)) and all(isinstance(name, str) for name in config):
        return dict.fromkeys(config), "config"
    raise InputError(f"`config` is {config!r:.80}; give a path, a dictionary of sections, or a list of their names")


def _without_counts(raw: dict[str, Any], origin: str) -> tuple[dict[str, Any], dict[str, int]]:
    """Take `Pipeline.data`, which here only says how many samples are taken, out of the sections; return both."""
    own = raw.get(OWN_SECTION)
    if not isinstance(own, dict) or own.get("data") is None:
        return raw, {}
    data = own["data"]
    counts = data if isinstance(data, dict) else {"data": data}
    for key, count in counts.items():
        if key not in ("calibration", "evaluation") or not isinstance(count, int) or count < 1:
            raise InputError(
                f"{origin}: `{OWN_SECTION}.data.{key}` is {count!r:.80}; the loaders give the samples, so that only "
                "the numbers `calibration` and `evaluation` can be set"
            )
    return {**raw, OWN_SECTION: {key: value for key, value in own.items() if key != "data"}}, dict(counts)


def _are_classes(model: InferenceModel, samples: Samples) -> bool:
    """Tell whether the labels are one class each of those that the model's first output tells apart."""
    labels, output = samples.labels, model.fetch_specs()[0].shape
    if labels is None or len(output) != 2 or output[1] < 2:
        return False
    return bool((labels.shapes == 1).all() and labels.flat.min() >= 0 and labels.flat.max() < output[1])


def _save(named: Mapping[str, Ragged], folder: Path) -> None:
    """Write samples as the reader `arrays` maps them."""
    folder.mkdir(parents=True)
    for name, ragged in named.items():
        if name == LABEL and (ragged.shapes == 1).all():
            np.save(folder / f"{name}.npy", ragged.flat, allow_pickle=False)
        else:
            save_flat(folder / f"{file_name(name)}.npy", ragged.flat)
            np.save(folder / f"{file_name(name + SHAPES)}.npy", ragged.shapes, allow_pickle=False)


def _load_given(given: ModelSource, with_tail: bool = False) -> InferenceModel:
    with _static_mode():
        from act.formats import SourceModel

        names = given.model_filename, given.params_filename
        source = SourceModel.find(Path(given.path), *names, given.declared_inputs)
        return source.load() if with_tail else source.split().body


def _load(folder: Path) -> InferenceModel:
    with _static_mode():
        from act.program.model import InferenceModel

        return InferenceModel.load(folder)


@contextmanager
def _static_mode() -> Iterator[Any]:
    """Give Paddle in its static mode, and put the caller's back afterwards, whatever a callback has switched to."""
    import paddle

    dynamic = paddle.in_dynamic_mode()
    paddle.enable_static()
    try:
        yield paddle
    finally:
        (paddle.disable_static if dynamic else paddle.enable_static)()
