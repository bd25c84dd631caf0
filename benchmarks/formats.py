"""`python -m benchmarks.formats --models FOLDER`: whether models come in as they are, and compute the same.

- ONNX's own tests of single operators on what the importer makes of them (`benchmarks.onnx_nodes`);
- every model below the folder (ONNX, Paddle 3, SavedModel, frozen graph, Keras, TFLite), read and run beside its own
  runtime on inputs drawn at random and, where the folder has pictures with classes for it, on those: the
  deviation of each output, the quality of both, the seconds that reading takes beside starting Python; one whose
  environment (`make paddle3`, `make tensorflow`) is not there is named as not run;
- the same of what PyTorch's exporters write (`make exports`), and which of that they do not write;
- the detector of the folder with boxes chosen behind it, put together again (`benchmarks.tails`);
- with `--chain` each of the folder, or those named, through all stages, as a job with little to search.

The folder is not part of the project: its models have licences of their own. Prints tables, writes
`benchmarks/results/formats.json`, and ends with code 1, naming each figure that was not reached.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from benchmarks import onnx_nodes, tails
from benchmarks.bench import ROOT, STAGES, conclude

if TYPE_CHECKING:
    from act.formats import SourceModel

RESULT = ROOT / "benchmarks" / "results" / "formats.json"
EXPORTS = ROOT / "benchmarks" / "cache" / "exports"  # of `make exports`
_NOT_WRITTEN = "not_written.json"  # there: the cause for which the exporter did not write a file
LEAST_PASSED, LEAST_OPERATORS = 0.97, 110
LARGEST_DEVIATION, LARGEST_QUALITY_GAP = 1e-3, 0.005
SECONDS: Mapping[str, float] = {"yolov5n.onnx": 3.0, "minilm_l6.onnx": 10.0}
LONGEST_CHAIN_SECONDS = 3600
_PADDLE_3 = "inference.json"
_SAVED_MODEL = "saved_model.pb"
_MODELS = ("*.onnx", _PADDLE_3, "*.pb", "*.h5", "*.keras", "*.tflite")
_AT_ONCE = 250  # pictures, for each of which a runtime of its own environment starts anew
Run = Callable[[Mapping[str, Any]], Sequence[Any]]
_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
_LISTS = {"calibration_list": "calibration_list.txt", "evaluation_list": "evaluation_list.txt"}
# By file name: the settings of `data` below the folder, and what the published model reaches (top-1).
PICTURES: dict[str, dict[str, Any]] = {
    "resnet20.onnx": {"path": "data/cifar10", **_LISTS, "resize": None, **_IMAGENET, "evaluation": 1000},
    "mobilenet_v1_0.25_224.onnx": {
        "path": "data/imagenet1k_sample",
        **_LISTS,
        "scale": 1 / 127.5,
        "mean": [1.0],
        "std": [1.0],
        "evaluation": 1000,
    },
    "pplcnet_textline_ori_paddle3": {
        "path": "data/textlines",
        **_LISTS,
        "resize": None,
        **_IMAGENET,
        "evaluation": 600,
    },
    "yolov5n.onnx": {"path": "data/coco/evaluation", "resize": None, "mean": [0.0], "std": [1.0]},
    "nanodet_m.onnx": {
        "path": "data/coco/evaluation",
        "resize": None,
        "order": "BGR",
        "scale": 1.0,
        "mean": [103.53, 116.28, 123.675],
        "std": [57.375, 57.12, 58.395],
    },
    "ppseg_lite_portrait_398x224_with_softmax_fixed.onnx": {
        "path": "data/person_masks/evaluation",
        "resize": None,
        "scale": 1 / 127.5,
        "mean": [1.0],
        "std": [1.0],
    },
    "ppseg_onnx_triton.onnx": {
        "path": "data/person_masks/evaluation",
        "resize": None,
        "size": [224, 398],
        "scale": 1 / 127.5,
        "mean": [1.0],
        "std": [1.0],
    },
}
_PORTRAIT = PICTURES["ppseg_lite_portrait_398x224_with_softmax_fixed.onnx"]
# The same models in TensorFlow's forms, whose inputs have the channels last.
PICTURES |= {
    "mobilenet_v1_0.25_224.h5": PICTURES["mobilenet_v1_0.25_224.onnx"],
    "pretrainedResnet.tflite": {**PICTURES["resnet20.onnx"], "scale": 1.0, "mean": [0.0], "std": [1.0]},
    "vww_96_float.tflite": {"path": "data/coco/evaluation", "resize": None, "mean": [0.0], "std": [1.0]},
    "saved_model": _PORTRAIT,
    "ppseg_lite_portrait_398x224_with_softmax_fixed_float32.tflite": _PORTRAIT,
}
PUBLISHED: Mapping[str, float] = {
    "resnet20.onnx": 0.915,
    "mobilenet_v1_0.25_224.onnx": 0.59,
    "mobilenet_v1_0.25_224.h5": 0.59,
    "pretrainedResnet.tflite": 0.88,
    "pplcnet_textline_ori_paddle3": 0.963,
}
# What holds no whole model, and how it is refused.
REFUSED: Mapping[str, str] = {"drive_unet_best_weights.h5": "holds weights without the model that they belong to"}
# Free axes of inputs drawn at random, by how the file's name begins; others are of length 2.
_LENGTHS: Mapping[str, Mapping[int, int]] = {
    "unet_drive.onnx": {2: 64, 3: 64},
    "ppseg_onnx_triton.onnx": {2: 96, 3: 128},
    "unet_upsampling": {2: 64, 3: 96},
    "crnn": {3: 96},
    **{language_model: {1: 32} for language_model in ("bert", "minilm", "distilbert", "deberta")},
}
QUICK: Mapping[str, Any] = {
    "ptq_search": {"max_quant_count": 2},
    "refine": {"candidates": 0},
    "analyze": {"time_limit_seconds": 10},
    "benchmark": {"rounds": 10, "runs_per_round": 3},
}


def node_tests() -> dict[str, Any]:
    """Run ONNX's tests of the operators in scope."""
    scope = onnx_nodes.known_operators()
    tests = {kind: names for kind, names in onnx_nodes.operators().items() if kind in scope}
    table: dict[str, Counter[str]] = {kind: Counter() for kind in tests}
    failures = []
    for each in onnx_nodes.run_apart([name for names in tests.values() for name in names]):
        table[each.operator][each.outcome] += 1
        if each.outcome not in ("passed", "constant"):
            failures.append(vars(each))
    whole: Counter[str] = sum(table.values(), Counter())
    return {
        "operators": sorted(scope),
        "tested": {kind: dict(counts) for kind, counts in table.items()},
        "all": dict(whole),
        "share": (whole["passed"] + whole["constant"]) / max(1, sum(whole.values())),
        "failures": failures,
    }


def read_one(path: Path, data: Path | None) -> dict[str, Any]:
    """Read one model and run it beside its own runtime."""
    from act.errors import InputError
    from act.formats import SourceModel
    from act.program.passes.free_batch import fixed_batch, free_batch, runs_together

    started = time.perf_counter()
    try:
        source = SourceModel.find(path)
        if source.environment is not None and (lacking := source.environment.lacks()) is not None:
            return {"not_run": lacking}
        model = source.load()
    except InputError as error:
        return {"refused": str(error)}
    result: dict[str, Any] = {"seconds": time.perf_counter() - started, "operators": len(model.ops)}
    if (lacking := source.runtime_lacks()) is not None:
        return {"refused": lacking}
    run, names = _runtime(source)
    # Of several sizes, so that one which is written into a model shows.
    batches = [_drawn(model, path.name, seed, count) for seed, count in enumerate((2, 3))]
    result["deviation"] = max(_deviation(model, model.run(batch), run(batch)) for batch in batches)
    if names is not None:
        result["same_names"] = (model.feed_names, model.fetch_names) == names
    result["batch"] = "free"
    if fixed_batch(model) is not None:
        free = free_batch(model)
        result["batch"] = "freed" if free is not None and runs_together(free, model, *batches) else "one"
    result["again"] = written_again(model, batches[0])
    if data is not None and label_of(path) in PUBLISHED:
        result |= _qualities(path, model, run, data)
    return result


def label_of(path: Path) -> str:
    """Return what a model is called here: its file, or its folder where all files have the same name."""
    return path.parent.name if path.name in (_PADDLE_3, _SAVED_MODEL) else path.name


def _runtime(source: SourceModel) -> tuple[Run, tuple[list[str], list[str]] | None]:
    """Return what runs the file as it is, and the names of its inputs and outputs in order, where they can be read."""
    path = source.files[0]
    if source.environment is not None:
        return partial(_run_apart, source), None
    if path.name == _PADDLE_3:
        return partial(_run_apart, source), _names_of_pir(path)
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    ends = onnx.load(path, load_external_data=False).graph
    given = {each.name for each in ends.initializer}
    inputs = [each.name for each in ends.input if each.name not in given]
    return partial(session.run, None), (inputs, [each.name for each in ends.output])


def _names_of_pir(path: Path) -> tuple[list[str], list[str]]:
    operations = json.loads(path.read_text())["program"]["regions"][0]["blocks"][0]["ops"]
    found: dict[str, list[str]] = {"1.data": [], "1.fetch": []}
    for each in operations:
        if each["#"] in found:
            found[each["#"]].append(next(entry["AT"]["D"] for entry in each["A"] if entry["N"] == "name"))
    return found["1.data"], found["1.fetch"]


def _run_apart(source: SourceModel, batch: Mapping[str, Any]) -> list[Any]:
    from act.engines.process import EngineProcess
    from act.formats._apart import outputs
    from act.samples.dataset import Ragged, Samples

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "samples"
        samples = Samples({name: Ragged.of(list(values)) for name, values in batch.items()})
        samples.save(folder)
        if source.environment is not None:
            return [np.stack(list(each)) for each in outputs(source, folder, len(samples))]
        assert source.runtime is not None
        with EngineProcess(source.runtime, source.files[0], "fp32") as process:
            process.load()
            return [np.stack(list(each)) for each in process.outputs(folder, len(samples))]


def written_again(model: Any, batch: Mapping[str, Any]) -> float | str:
    """Write the normalised program as ONNX, as every job does, and return how far that is from the program."""
    import onnxruntime

    from act.errors import InputError
    from act.onnx_graph.conversion import to_onnx
    from act.program.passes.normalise import normalise

    normalised, _ = normalise(model)
    try:
        written = to_onnx(normalised)
    except InputError as error:
        return str(error)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(written.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return _deviation(model, session.run(None, dict(batch)), model.run(batch))


def _deviation(model: Any, found: Sequence[Any], wanted: Sequence[Any]) -> float:
    """Return how far outputs of a model are from those wanted, by sample as an import is judged."""
    from act.formats._comparison import LARGEST_DEVIATION as ALLOWED
    from act.formats._comparison import largest_deviation
    from act.program.outputs import deviation

    found, wanted = (list(map(np.asarray, outputs)) for outputs in (found, wanted))
    straight = deviation(found, wanted)
    counts = {len(each) if each.ndim else 0 for each in (*found, *wanted)}
    if straight <= ALLOWED or len(counts) > 1:
        return straight
    (count,) = counts

    def by_sample(outputs: Sequence[Any]) -> list[list[Any]]:
        return [[each[index : index + 1] for each in outputs] for index in range(count)]

    return largest_deviation(model, by_sample(found), by_sample(wanted), ALLOWED)


def _drawn(model: Any, name: str, seed: int, count: int = 2) -> dict[str, Any]:
    """Draw a batch of `count` samples; of one where that is fixed."""
    rng, feeds = np.random.default_rng(seed), {}
    for spec in model.feed_specs():
        lengths = next((each for beginning, each in _LENGTHS.items() if name.startswith(beginning)), {})
        free = {0: count, **lengths}
        shape = [each if each >= 0 else free.get(axis, 2) for axis, each in enumerate(spec.shape)]
        if np.issubdtype(np.dtype(spec.dtype), np.integer):
            feeds[spec.name] = _drawn_tokens(spec.name, shape, rng).astype(spec.dtype)
        else:
            feeds[spec.name] = rng.random(shape).astype(spec.dtype)
    return feeds


def _drawn_tokens(name: str, shape: list[int], rng: np.random.Generator) -> Any:
    """Draw what a language model is fed: masks that end in zeros, which of two sentences, or numbers of tokens."""
    if "mask" in name:
        lengths = rng.integers(shape[-1] // 2, shape[-1] + 1, [*shape[:-1], 1])
        return np.arange(shape[-1]) < lengths
    return rng.integers(0, 2 if "type" in name else 1000, shape)


def _qualities(path: Path, model: Any, run: Run, data: Path) -> dict[str, Any]:
    """Measure top-1 of both on the folder's pictures."""
    from act.samples.readers import read
    from act.settings.data import settings_of_reader

    raw = {"reader": "image_folder", **PICTURES[label_of(path)]}
    settings = settings_of_reader(raw).model_validate({**raw, "path": str(data / raw["path"])})
    with tempfile.TemporaryDirectory() as scratch:
        _, samples = read(settings, model.feed_specs(), model.fetch_specs()[0].shape[-1], Path(scratch))
        right = {"quality": 0, "runtime_quality": 0}
        assert samples.labels is not None
        for group in samples.groups(_AT_ONCE):
            batch, truth = samples.stack(group), [int(samples.labels[index]) for index in group]
            for key, outputs in (("quality", model.run(batch)), ("runtime_quality", run(batch))):
                right[key] += int((np.argmax(outputs[0], -1) == truth).sum())
    return {key: count / len(samples) for key, count in right.items()}


def chain(path: Path, folder: Path) -> dict[str, Any]:
    """Send a model through all stages, in a folder of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        data = PICTURES.get(label_of(path))
        labelled = label_of(path) in PUBLISHED
        if data is not None:
            entry = {"reader": "image_folder", **data, "path": str(folder / data["path"]), "calibration": 32}
            entry["evaluation"] = 200 if labelled else 16
        else:
            _write_arrays(path, place / "data")
            entry = {"reader": "arrays", "path": "data"}
        name = label_of(path).partition(".")[0].split("_")[0]
        return send_through(name, path, entry, "top1" if labelled else "similarity", place)


def send_through(
    name: str, path: Path, data: Mapping[str, Any], metric: str, place: Path, **further: Any
) -> dict[str, Any]:
    """Send a model through all stages, as a job with little to search; return the winner, or the stage that failed.

    Args:
        name: of the job.
        data: its settings of samples; a relative path is below `place`.
        place: where the stages run.
        further: settings of the job that are not those of all jobs here.
    """
    job = {
        "model": {"path": str(path)},
        "data": dict(data),
        "metric": metric,
        "target": {"engines": ["openvino", "onnxruntime"]},
        "budget": {"max_quality_drop": 0.01, "min_speedup": 1.0},
        "strategy": "auto",
        **{key: {} for key in ("calibration", "distillation", "prune", "qat")},
        **QUICK,
        **further,
    }
    (place / "params.yaml").write_text(yaml.safe_dump({"jobs": {name: job}}))
    started = time.monotonic()
    for stage in STAGES:
        done = subprocess.run(
            [sys.executable, "-m", f"tasks.{stage}", "--job", name],
            cwd=place,
            env=_variables(),
            capture_output=True,
            text=True,
            timeout=LONGEST_CHAIN_SECONDS,
        )
        if done.returncode:
            last = [line for line in done.stderr.splitlines() if line.strip()]
            return {"failed": stage, "why": last[-1] if last else "", "seconds": time.monotonic() - started}
    manifest = json.loads((place / "deploy" / name / "manifest.json").read_text())
    winner = manifest["winner"]
    return {
        "seconds": time.monotonic() - started,
        "winner": f"{winner['engine']}/{winner['name']}",
        "speedup": winner["speedup"] and winner["speedup"]["value"],
        "quality": winner["quality"],
        "variants": {
            f"{row['engine']}/{row['name']}": row["latency"]["median_ms"] if row["latency"] else row["failure"]["cause"]
            for row in manifest["variants"]
        },
    }


def _variables() -> dict[str, str]:
    """Return a stage's variables: with those that name environments shared by checkouts, and little else."""
    shared = {name: value for name, value in os.environ.items() if name.startswith("ACT_")}
    return {**shared, "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}


def _write_arrays(path: Path, folder: Path) -> None:
    from act.formats import SourceModel

    model = SourceModel.find(path).split().body
    folder.mkdir()
    for role, start in (("calibration", 0), ("evaluation", 100)):
        drawn = [_drawn(model, path.name, start + seed) for seed in range(8)]
        np.savez(folder / f"{role}.npz", **{name: np.concatenate([each[name] for each in drawn]) for name in drawn[0]})


def main() -> int:
    """Parse the command line, measure, and say what was not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.formats", description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, help="folder of models and `data/`; without it single operators only")
    parser.add_argument("--chain", action="store_true", help="send each model through all stages, too; takes an hour")
    parser.add_argument("--only", nargs="+", help="names of files, or of the folders of Paddle 3's")
    parser.add_argument("--without-nodes", action="store_true", help="leave out the tests of single operators")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(read_one(arguments.one, arguments.models)))
        return 0
    results: dict[str, Any] = {}
    misses: list[str] = []
    if not arguments.without_nodes:
        results["nodes"] = nodes = node_tests()
        _print_nodes(nodes)
        if nodes["share"] < LEAST_PASSED:
            misses.append(f"{nodes['share']:.1%} of ONNX's tests pass, where {LEAST_PASSED:.0%} should")
        if len(nodes["operators"]) < LEAST_OPERATORS:
            misses.append(f"{len(nodes['operators'])} operators, where {LEAST_OPERATORS} should be known")
    if arguments.models is None:
        misses.append("no models: name their folder with --models")
    else:
        folder = arguments.models.resolve()
        files = sorted(path for place in (folder, EXPORTS) for pattern in _MODELS for path in place.rglob(pattern))
        files = [path for path in files if not arguments.only or label_of(path) in arguments.only]
        results["models"] = {label_of(path): _read(path, folder, misses) for path in files}
        if not arguments.only:
            results["not_written"] = _not_written(misses)
        if arguments.chain:
            own = files if arguments.only else [path for path in files if path.is_relative_to(folder)]
            taken = [path for path in own if "seconds" in results["models"][label_of(path)]]
            results["chain"] = {label_of(path): _chained(path, folder, misses) for path in taken}
        for detector in (path for path in files if path.name == tails.DETECTOR):
            results["tails"] = _with_tail(detector, folder, arguments.chain, misses)
    return conclude(RESULT, results, misses)


def _print_nodes(nodes: Mapping[str, Any]) -> None:
    onnx_nodes.print_table({**nodes["tested"], "all": nodes["all"]})
    for each in nodes["failures"]:
        print(f"{each['outcome']:8} {each['test']}: {each['message']}")
    print(f"{len(nodes['operators'])} operators; {nodes['share']:.1%} of the tests pass\n")


def _not_written(misses: list[str]) -> dict[str, str]:
    """Return why PyTorch's exporters do not write a network in a form, which is no matter of the import."""
    if not (EXPORTS / _NOT_WRITTEN).exists():
        misses.append("what PyTorch's exporters write is not there: `make exports` writes it")
        return {}
    found: dict[str, str] = json.loads((EXPORTS / _NOT_WRITTEN).read_text(encoding="utf-8"))
    for name, cause in found.items():
        print(f"{name}: PyTorch does not write it: {cause}")
    return found


def _read(path: Path, folder: Path, misses: list[str]) -> dict[str, Any]:
    name = label_of(path)
    command = [sys.executable, "-m", "benchmarks.formats", "--one", str(path), "--models", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        misses.append(f"{name}: reading ended with code {done.returncode}: {done.stderr.strip()[-300:]}")
        return {"crashed": done.returncode}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: " + ", ".join(f"{key} {_short(value)}" for key, value in found.items()), flush=True)
    if "not_run" in found:
        misses.append(f"{name} was not run: {found['not_run']}")
        return found
    if name in REFUSED:
        if REFUSED[name] not in found.get("refused", ""):
            misses.append(f"{name} is not refused because it {REFUSED[name]}")
        return found
    if "refused" in found:
        misses.append(f"{name} is refused: {found['refused']}")
        return found
    if not found["deviation"] <= LARGEST_DEVIATION:
        misses.append(f"{name}: outputs differ by {found['deviation']:.2g}, where {LARGEST_DEVIATION:g} is allowed")
    if isinstance(found["again"], str) or not found["again"] <= LARGEST_DEVIATION:
        misses.append(f"{name}: cannot be written as ONNX again: {found['again']}")
    if not found.get("same_names", True):
        misses.append(f"{name}: inputs or outputs have other names, or another order")
    if found["seconds"] > SECONDS.get(name, float("inf")):
        misses.append(f"{name}: read in {found['seconds']:.1f} s, where {SECONDS[name]:g} s are allowed")
    if name in PUBLISHED:
        for wanted in (PUBLISHED[name], found["runtime_quality"]):
            if abs(found["quality"] - wanted) > LARGEST_QUALITY_GAP:
                misses.append(f"{name}: quality {found['quality']:.4f}, where {wanted:.4f} was measured")
    return found


def _chained(path: Path, folder: Path, misses: list[str]) -> dict[str, Any]:
    name, found = label_of(path), chain(path, folder)
    print(f"{name}: " + ", ".join(f"{key} {_short(value)}" for key, value in found.items()), flush=True)
    if "failed" in found:
        misses.append(f"{name}: the stage {found['failed']} failed: {found['why']}")
    return found


def _with_tail(detector: Path, folder: Path, chained: bool, misses: list[str]) -> dict[str, Any]:
    """Put the detector with boxes chosen behind it together again, and send that through all stages where asked to."""
    found = tails.compare(detector, PICTURES[detector.name], folder)
    print(f"{detector.name} with its boxes chosen: " + ", ".join(f"{key} {value}" for key, value in found.items()))
    for engine, count in found["lost"].items():
        if count or found["more"][engine]:
            misses.append(f"{detector.name}: {engine} loses {count} of the {found['boxes']} boxes that are chosen")
    if chained:
        with tempfile.TemporaryDirectory() as scratch:
            tails.write_with_nms(detector, Path(scratch) / detector.name)
            found["chain"] = _chained(Path(scratch) / detector.name, folder, misses)
    return found


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
