"""ACT's YAML configurations in terms of a job of `params.yaml`.

Each key becomes a setting here, or is named in a warning with what to use instead. What a file leaves out gets the
default of this project, not ACT's.
"""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, get_args

from act.errors import InputError
from act.paddleslim import sections
from act.registry import THRESHOLDS
from act.settings import Job, QuantizableOperator, Settings, WeightQuantization, read_mapping, validate

OWN_SECTION = "Pipeline"
POST_TRAINING = frozenset({"QuantPost", "HyperParameterOptimization"})
# ACT trains a quantized model that was pruned before with a tenth of `TrainConfig` (compressor.py).
SHARE_AFTER_PRUNING = 0.1
# How many times ACT goes through the samples when nothing but `train_iter` ends it (compressor.py).
EPOCHS_WITHOUT_END = 100

_SECTIONS = sections.Sections.model_fields
_KNOWN = (*_SECTIONS, OWN_SECTION, "Prune")
_PRUNES = {
    name: mark.section
    for name, known in _SECTIONS.items()
    for mark in known.metadata
    if isinstance(mark, sections.Becomes)
}


def read(path: Path) -> Translation:
    """Translate a file; `InputError` where it is missing, no YAML, or has a wrong key or value."""
    return translate(read_mapping(path, "name an ACT configuration"), str(path))


def refuse_lagging(name: str, job: Job) -> None:
    """Refuse a job whose entry lacks what its ACT configuration says: DVC follows the entry, not the configuration."""
    if job.act_config is None:
        return
    found = dict(_flat(job.model_dump(exclude_none=True)))
    wanted = [(key, value) for key, value in _flat(read(Path(job.act_config)).job) if found.get(key) != value]
    missing = [f"`{key}` should be {value!r} and is {found.get(key)!r}" for key, value in wanted]
    if missing:
        told = "; ".join(missing[:3]) + (f"; and {len(missing) - 3} more" if len(missing) > 3 else "")
        cure = f"run `python -m flows.act_config {job.act_config} --job {name}`"
        raise InputError(f"params.yaml: job `{name}` lags behind {job.act_config}: {told}; {cure}")


def translate(raw: Mapping[str, Any], origin: str, scripts: bool = True) -> Translation:
    """Translate the sections of an ACT configuration; `InputError`, which begins with `origin`, names every wrong key.

    Args:
        scripts: whether `Global`, which ACT leaves to its example scripts, counts.
    """
    for key in raw:
        near = difflib.get_close_matches(str(key), _KNOWN, 1, 0.8)
        if key not in _KNOWN and near:
            raise InputError(f"{origin}: `{key}` is not a section of ACT; did you mean `{near[0]}`?")
    given = {key: {} if raw[key] is None else raw[key] for key in _SECTIONS if key in raw}
    if not scripts:
        given.pop("Global", None)
    if "Prune" in raw:
        given |= _old_prune(raw["Prune"], origin)
    own = raw.get(OWN_SECTION) or {}
    if not isinstance(own, dict):
        raise InputError(f"{origin}: `{OWN_SECTION}` is {own!r:.80}; it must hold sections of a job of params.yaml")
    translation = Translation(validate(sections.Sections, given, origin), origin, scripts)
    translation.fill()
    for key in raw:
        if key not in _KNOWN:
            told = "not a section of ACT; a job's `data` and `metric` say how samples are read and judged"
            translation.warn(key, told)
    translation.job = merged(translation.job, own)
    return translation


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return both; where they differ, what is above. Neither is changed."""
    result = copy.deepcopy({**below, **above})
    for key in below.keys() & above.keys():
        if isinstance(below[key], Mapping) and isinstance(above[key], Mapping):
            result[key] = merged(below[key], above[key])
    return result


def hardware_advice(name: str) -> str:
    """Return what to do about a `deploy_hardware` that nothing is measured on here."""
    if name == "gpu":
        return "measured on this machine's CPU; `target.engines` says by what"
    arm = "`paddle_lite` among `target.engines` writes .nb files for ARM"
    return f"nothing is measured on {name}; {arm}, and the figures are of this machine's CPU"


def timed_shapes(shapes: Mapping[str, Any], what: str) -> dict[str, list[int]]:
    """Return ACT's `input_shapes` without the batch axis; `InputError`, which says of what, where one is no shape."""
    found = {}
    for name, shape in shapes.items():
        lengths = list(shape)[1:] if isinstance(shape, (list, tuple)) else []
        if not lengths or not all(isinstance(length, int) and length > 0 for length in lengths):
            raise InputError(f"{what}: `{name}` is {shape!r:.80}; give the length of each axis, the batch first")
        found[str(name)] = lengths
    return found


class Translation:
    """What a configuration says, in our terms."""

    def __init__(self, given: sections.Sections, origin: str, scripts: bool) -> None:
        self.job: dict[str, Any] = {}  # its sections as they stand in `params.yaml`
        self.warnings: list[str] = []  # of keys that mean nothing here, or something else than in ACT
        self.origin_metric: float | None = None  # what it promises of the given model
        self._given, self._origin, self._scripts = given, origin, scripts

    def warn(self, key: str, why: str) -> None:
        self.warnings.append(f"{self._origin}: `{key}`: {why}")

    def _set(self, section: str, **values: Any) -> None:
        place = self.job
        for part in section.split("."):
            place = place.setdefault(part, {})
        place.update(values)

    def fill(self) -> None:
        """Translate every section, and set `strategy`."""
        given, search = self._given, self._given.HyperParameterOptimization
        post = given.QuantPost or (sections.QuantPostSection() if search else None)
        # PaddleSlim 2.3: `Quantization` is `QuantAware`, or beside a search what that quantizes.
        aware = given.QuantAware or (None if search else given.Quantization)
        strategies = {
            **{name: getattr(given, name) for name in _PRUNES},
            "QuantPost": post,
            "HyperParameterOptimization": search,
            "QuantAware": aware,
            "Distillation": given.Distillation or given.MultiTeacherDistillation,
        }
        names = [name for name, section in strategies.items() if section]
        if given.Global:
            self._global(given.Global)
        if given.Quantization and search:
            self._quantized("Quantization", given.Quantization)
        for name, section in given:
            if section and (name != "Quantization" or section is aware):
                self._declared(name, section)
        if post:
            self._post(post, search)
        if search:
            self._search(search)
        if aware:
            name = "QuantAware" if aware is given.QuantAware else "Quantization"
            self._quantized(name, aware, aware.weight_quantize_type)
        self._distillation()
        if names:
            self.job["strategy"] = names
        self._training(names, pruned=not _PRUNES.keys().isdisjoint(names))

    def _declared(self, name: str, section: Settings) -> None:
        """Translate the keys of a section that say what they become, and name those that mean nothing here."""
        values = section.model_dump(exclude_unset=True, exclude_none=True)
        if name in _PRUNES and values:
            self._set(_PRUNES[name], **values)
        for key, known in type(section).model_fields.items():
            for mark in known.metadata:
                if isinstance(mark, sections.Becomes) and key in values and values[key] != []:
                    self._set(mark.section, **{mark.name or key: values[key]})
                if isinstance(mark, sections.Ignored) and values.get(key, known.default) != known.default:
                    self.warn(f"{name}.{key}", mark.why)

    def _global(self, given: sections.GlobalSection) -> None:
        unused = [key for key in ("img_size", "crop_size", "resize_size") if getattr(given, key) is not None]
        if given.data_dir is not None:
            # What ACT's example for image classification reads: its lists, sizes, ImageNet's mean and deviation.
            self.job["data"] = {
                "reader": "image_folder",
                "path": given.data_dir,
                "calibration_list": "train_list.txt",
                "evaluation_list": "val_list.txt",
                "size": [given.img_size or given.crop_size or 224] * 2,
                "resize": given.resize_size or 256,
                "interpolation": "lanczos",
            }
            self.job["metric"] = "top1"
            unused = ["crop_size"] if given.img_size and given.crop_size else []
        for key in unused:
            setting = "resize" if key == "resize_size" else "size"
            self.warn(f"Global.{key}", f"`data.{setting}` of the reader `image_folder`")
        if given.batch_size is not None and (self._given.QuantPost or self._given.HyperParameterOptimization):
            self._set("calibration", batch_size=given.batch_size)
        if isinstance(given.input_shapes, dict):
            shapes = timed_shapes(given.input_shapes, f"{self._origin}: `Global.input_shapes`")
            self._set("benchmark", shapes=[shapes])
        elif given.input_shapes is not None:
            told = "shapes are those of the samples; further ones to time: `benchmark.shapes`, by input"
            self.warn("Global.input_shapes", told)
        if given.deploy_hardware not in (None, "cpu"):
            self.warn("Global.deploy_hardware", hardware_advice(str(given.deploy_hardware)))
        for key, value in (given.model_extra or {}).items():
            if value not in (None, "None"):
                told = "a job's `data` says how samples are read: `reader: function` takes a loader from your own code"
                self.warn(f"Global.{key}", told)

    def _distillation(self) -> None:
        one, several = self._given.Distillation, self._given.MultiTeacherDistillation
        if one is not None and several is not None:
            both = "`Distillation` and `MultiTeacherDistillation`"
            raise InputError(f"{self._origin}: {both} cannot both be: keep one of them")
        if "node" in self.job.get("distillation", {}):
            self.job["distillation"].setdefault("loss", "l2")  # ACT's default
        if (given := one or several) and (teachers := _teachers(given)):
            self._set("distillation", teachers=teachers)

    def _training(self, names: Sequence[str], pruned: bool) -> None:
        """Translate `TrainConfig`, for every stage that trains."""
        train = self._given.TrainConfig
        values = self._train_settings(train) if train else {}
        if train and train.origin_metric is not None:
            self.origin_metric = train.origin_metric
            if self._scripts:
                self.warn("TrainConfig.origin_metric", "quality is measured: the report has the given model's")
        size = self._given.Global.batch_size if self._given.Global else None
        if size is not None and (not names or {*names} - POST_TRAINING):
            values["batch_size"] = size
        if values and pruned:
            self._set("prune", **values)
        if values:
            self._set("qat", **(_after_pruning(values) if pruned else values))

    def _train_settings(self, train: sections.TrainConfigSection) -> dict[str, Any]:
        """Return what every training is told, by our names."""
        values = train.model_dump(include={"epochs", "train_iter", "eval_iter", "target_metric"}, exclude_none=True)
        if "train_iter" in values:
            values.setdefault("epochs", EPOCHS_WITHOUT_END)
        rate = train.learning_rate
        if isinstance(rate, sections.LearningRate):
            values["learning_rate_schedule"] = {"type": rate.type, **(rate.model_extra or {})}
            rate = rate.learning_rate
        if rate is not None:
            values["learning_rate"] = rate
        builder = train.optimizer_builder
        if builder is None:
            return values
        key = "TrainConfig.optimizer_builder"
        self._declared(key, builder)
        for other in builder.optimizer.model_extra or ():
            self.warn(f"{key}.optimizer.{other}", "the optimisers run with Paddle's own values")
        decay, regularizer = builder.weight_decay, builder.regularizer
        if regularizer and decay is None and regularizer.type == "L2Decay":
            decay = regularizer.regularization_coeff if regularizer.coeff is None else regularizer.coeff
        elif regularizer:
            self.warn(f"{key}.regularizer", "`weight_decay` decays the weights")
        return {**values, "optimizer": builder.optimizer.type, **({} if decay is None else {"weight_decay": decay})}

    def _post(self, post: sections.QuantPostSection, search: sections.HyperParameterOptimizationSection | None) -> None:
        if search is None:
            # One quantization, with these settings and no others.
            algo = post.algo or "hist"  # ACT's default
            self._set("ptq_search", ptq_algo=[algo], max_float_layers=0, max_quant_count=1)
            self._set("ptq_search", bias_correct=[bool(post.bias_correction)], activation_symmetric=[True])
            if post.hist_percent is not None or THRESHOLDS.load(algo).RULE.takes_share:
                self._set("ptq_search", hist_percent=[0.999 if post.hist_percent is None else post.hist_percent])
            if post.batch_nums is not None:
                self._set("calibration", batch_num=[post.batch_nums])
            self._quantized("QuantPost", post, post.weight_quantize_type or "channel_wise_abs_max")
        else:
            self._quantized("QuantPost", post)
            searched = {"algo", "hist_percent", "bias_correction", "batch_nums", "weight_quantize_type"}
            for key in sorted(searched & post.model_fields_set):
                self.warn(f"QuantPost.{key}", "`HyperParameterOptimization` searches it; its section says among what")
        if post.recon_level is not None:
            self._set("refine", methods=[post.recon_level.replace("-", "_")])
        else:
            self._set("refine", candidates=0)  # ACT reconstructs nothing that it is not told to

    def _search(self, search: sections.HyperParameterOptimizationSection) -> None:
        """Translate the ranges that ACT draws from, of which our search chooses values."""
        self._weight_scales("HyperParameterOptimization", *(search.weight_quantize_type or ()))
        if search.hist_percent is not None:
            self._set("ptq_search", hist_percent=_between_shares(search.hist_percent))
        if search.batch_num is not None:
            low, high = min(search.batch_num), max(search.batch_num)
            self._set("calibration", batch_num=sorted({low, (low + high) // 2, high}))

    def _quantized(self, name: str, section: sections.QuantSection, *scales: str | None) -> None:
        """Translate what a section quantizes, and how its weights are scaled where that is told."""
        if section.quantize_op_types is not None:
            ours = get_args(QuantizableOperator)
            # `matmul` is what `matmul_v2` was called before.
            wanted = ["matmul_v2" if kind == "matmul" else kind for kind in section.quantize_op_types]
            if {*wanted}.isdisjoint(ours):
                found = f"`{name}.quantize_op_types` is {section.quantize_op_types}, of which nothing is quantized here"
                raise InputError(f"{self._origin}: {found}; name some of {', '.join(ours)}")
            why = f"is not chosen by hand: {', '.join(ours)} are, and what lies between them runs in int8 where it can"
            self._choose("quantizable_op_type", ours, f"{name}.quantize_op_types", wanted, why)
        self._weight_scales(name, *scales)

    def _weight_scales(self, name: str, *wanted: str | None) -> None:
        ours = get_args(WeightQuantization)
        why = f"is for activations; weights have {', '.join(ours)}"
        self._choose("weight_quantize_type", ours, f"{name}.weight_quantize_type", filter(None, wanted), why)

    def _choose(self, setting: str, ours: Sequence[str], key: str, wanted: Iterable[str], why: str) -> None:
        """Set a list of `ptq_search` to what there is here of some values of a key, and warn of the others."""
        values = dict.fromkeys(wanted)
        for value in values:
            if value not in ours:
                self.warn(key, f"`{value}` {why}")
        if kept := [value for value in values if value in ours]:
            self._set("ptq_search", **{setting: kept})


def _after_pruning(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ACT makes of the settings for a model that was pruned with them: a tenth of its steps and rate."""
    result = dict(settings)
    for key in {"epochs", "train_iter"} & result.keys():
        result[key] = max(int(result[key] * SHARE_AFTER_PRUNING), 1)
    if "learning_rate" in result:
        result["learning_rate"] *= SHARE_AFTER_PRUNING
    schedule = result.get("learning_rate_schedule", {})
    if "values" in schedule:
        values = [value * SHARE_AFTER_PRUNING for value in schedule["values"]]
        result["learning_rate_schedule"] = {**schedule, "values": values}
    return result


def _old_prune(value: Any, origin: str) -> dict[str, Any]:
    """Return the section `Prune` of PaddleSlim 2.2, which names the method by a key, as later ones have it."""
    methods = {"prune": "ChannelPrune", "transformer_pruner": "TransformerPrune", "asp": "ASPPrune"}
    if not isinstance(value, dict) or value.get("prune_algo") not in methods:
        cure = f"or use the section {', '.join(f'`{name}`' for name in _PRUNES)}"
        raise InputError(f"{origin}: `Prune` must name one of {', '.join(methods)} as `prune_algo`; {cure}")
    return {methods[value["prune_algo"]]: {key: inner for key, inner in value.items() if key != "prune_algo"}}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each setting by its path."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _teachers(given: sections.DistillationSection) -> list[dict[str, Any]]:
    """Return each teacher as a model of ours; none when it is the given model itself."""
    values = (given.teacher_model_dir, given.teacher_model_filename, given.teacher_params_filename)
    teachers = zip_longest(*(value if isinstance(value, list) else [value] for value in values))
    named = [dict(zip(("path", "model_filename", "params_filename"), teacher)) for teacher in teachers]
    return [{key: value for key, value in each.items() if value is not None} for each in named if each["path"]]


def _between_shares(bounds: list[float]) -> list[float]:
    """Return the bounds and one between, by what is cut off."""
    low, high = min(bounds), max(bounds)
    if low == high or not 0 < low < high <= 1:
        return list(dict.fromkeys(bounds))
    middle = 1 - math.sqrt((1 - low) * (1 - high)) if high < 1 else (low + high) / 2
    return sorted({low, round(middle, 6), high})
