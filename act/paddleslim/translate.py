"""ACT's YAML configurations in terms of a job of `params.yaml`.

The `Global` keys are those of PaddleSlim's example scripts. Each key becomes a setting here, or is named in a warning
with what to use instead. What a file leaves out gets the default of this project, not ACT's.
"""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, get_args

from act.errors import InputError
from act.paddleslim import sections
from act.paddleslim.training import after_pruning, train_settings
from act.registry import THRESHOLDS
from act.settings import Job, QuantizableOperator, Settings, WeightQuantization, read_mapping, validate

OWN_SECTION = "Pipeline"
POST_TRAINING = frozenset({"QuantPost", "HyperParameterOptimization"})

_SECTIONS = list(sections.Sections.model_fields)
_KNOWN = (*_SECTIONS, OWN_SECTION, "Prune")
_PRUNES = {
    name: mark.section
    for name, known in sections.Sections.model_fields.items()
    for mark in known.metadata
    if isinstance(mark, sections.Becomes)
}
_ACT_ALGO = "hist"  # where a file names none
_GLOBAL_OTHERWISE = "a key of one of ACT's example scripts; a job's `data` says how samples are read"
_READER = "a job's `data` says how samples are read: `reader: function` takes a loader from your own Python code"
_GLOBAL = {
    **dict.fromkeys(("reader_config", "dataset", "task_name", "input_list"), _READER),
    **dict.fromkeys(("input_names", "input_name"), "inputs are read from the model"),
    **dict.fromkeys(("img_size", "crop_size"), "`data.size` of the reader `image_folder`"),
    "resize_size": "`data.resize` of the reader `image_folder`",
    "character_dict_path": "`data.alphabet` of the reader `text_lines`",
    "Evaluation": "evaluation is always done, by the job's `metric`",
    **dict.fromkeys(("model_type", "arch"), "the kind of model is read from its graph"),
}


@dataclass
class Translation:
    """What a configuration says, in our terms.

    Attributes:
        job: sections of a job as they stand in `params.yaml`, with nothing but what the configuration says.
        warnings: a line for each key that means nothing here, or something else than in ACT.
        origin_metric: what the configuration promises of the given model, where it does.
    """

    job: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    origin_metric: float | None = None


def read(path: Path) -> Translation:
    """Translate a file.

    Raises:
        InputError: the file is missing, no YAML, or a key or value is wrong.
    """
    return translate(read_mapping(path, "name an ACT configuration"), str(path))


def refuse_lagging(name: str, job: Job) -> None:
    """Refuse a job whose entry lacks what its ACT configuration says: DVC follows the entry, not the configuration.

    Raises:
        InputError: there is such a difference, or the configuration is wrong.
    """
    if job.act_config is None:
        return
    missing = _differences(read(Path(job.act_config)).job, job.model_dump())
    if missing:
        raise InputError(
            f"params.yaml: job `{name}` lags behind {job.act_config}: {'; '.join(missing[:3])}"
            f"{f'; and {len(missing) - 3} more' if len(missing) > 3 else ''}; run "
            f"`python -m flows.act_config {job.act_config} --job {name}`"
        )


def translate(raw: Mapping[str, Any], origin: str, scripts: bool = True) -> Translation:
    """Translate an ACT configuration into settings of a job.

    Args:
        raw: its sections.
        origin: where it comes from, for messages.
        scripts: whether `Global`, which ACT leaves to its example scripts, counts.

    Raises:
        InputError: a key or value is wrong; every wrong key of the sections is named.
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
    translator = _Translator(validate(sections.Sections, given, origin), origin, scripts)
    translator.fill()
    for key in raw:
        if key not in _KNOWN:
            translator.warn(
                str(key), "not a section of ACT; a job's `data` and `metric` say how samples are read and judged"
            )
    own = raw.get(OWN_SECTION)
    if own is not None and not isinstance(own, dict):
        raise InputError(f"{origin}: `{OWN_SECTION}` is {own!r:.80}; it must hold sections of a job of params.yaml")
    translator.result.job = merged(translator.result.job, own or {})
    return translator.result


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return both; where they differ, what is above. Neither is changed."""
    result = copy.deepcopy(dict(below))
    for key, value in above.items():
        old = result.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        result[key] = merged(old, value) if both else copy.deepcopy(value)  # type: ignore[arg-type]
    return result


def hardware_advice(name: str) -> str:
    """Return what to do about a `deploy_hardware` that nothing is measured on here."""
    if name == "gpu":
        return "measured on this machine's CPU; `target.engines` says by what"
    return (
        f"nothing is measured on {name}; `paddle_lite` among `target.engines` writes .nb files for ARM, and the "
        "figures are of this machine's CPU"
    )


def timed_shapes(shapes: Mapping[str, Any], what: str) -> dict[str, list[int]]:
    """Return ACT's `input_shapes` without the batch axis.

    Args:
        what: its name, for the message.

    Raises:
        InputError: a shape is no list of lengths.
    """
    found = {}
    for name, shape in shapes.items():
        lengths = list(shape)[1:] if isinstance(shape, (list, tuple)) else []
        if not lengths or not all(isinstance(length, int) and length > 0 for length in lengths):
            raise InputError(f"{what}: `{name}` is {shape!r:.80}; give the length of each axis, the batch first")
        found[str(name)] = lengths
    return found


class _Translator:
    """Fills a translation, section by section."""

    def __init__(self, given: sections.Sections, origin: str, scripts: bool) -> None:
        self._given = given
        self._origin = origin
        self._scripts = scripts
        self.result = Translation()

    def warn(self, key: str, why: str) -> None:
        self.result.warnings.append(f"{self._origin}: `{key}`: {why}")

    def _set(self, section: str, **values: Any) -> None:
        place = self.result.job
        for part in section.split("."):
            place = place.setdefault(part, {})
        place.update(values)

    def fill(self) -> None:
        """Translate every section, and set `strategy`."""
        given, search = self._given, self._given.HyperParameterOptimization
        post = given.QuantPost or (sections.QuantPostSection() if search else None)
        # PaddleSlim 2.3: `Quantization` is `QuantAware`, or beside a search what that quantizes.
        aware_name = "QuantAware" if given.QuantAware or search else "Quantization"
        aware: sections.QuantAwareSection | None = getattr(given, aware_name)
        if given.Global:
            self._global(given.Global)
        if given.Quantization and search:
            self._quantized_types("Quantization", given.Quantization)
        for name in _SECTIONS:
            section = getattr(given, name)
            if section and (name != "Quantization" or section is aware):
                self._declared(name, section)
        strategies = {
            **{name: getattr(given, name) for name in _PRUNES},
            "QuantPost": post,
            "HyperParameterOptimization": search,
            "QuantAware": aware,
            "Distillation": given.Distillation or given.MultiTeacherDistillation,
        }
        names = [name for name, section in strategies.items() if section]
        if post:
            self._post(post, search)
        if search:
            self._search(search)
        if aware:
            self._quantized_types(aware_name, aware)
            if aware.weight_quantize_type is not None:
                self._weight_scales(aware_name, [aware.weight_quantize_type])
        self._distillation()
        if names:
            self.result.job["strategy"] = names
        self._training(names, pruned=not _PRUNES.keys().isdisjoint(names))

    def _declared(self, name: str, section: Settings) -> None:
        """Translate the keys of a section that say what they become, and name those that mean nothing here."""
        values = section.model_dump(exclude_unset=True, exclude_none=True)
        if name in _PRUNES and values:
            self._set(_PRUNES[name], **values)
        for key, known in type(section).model_fields.items():
            for mark in known.metadata:
                if isinstance(mark, sections.Becomes) and key in values and values[key] != []:
                    self._set(mark.section, **{key: values[key]})
                if isinstance(mark, sections.Ignored) and values.get(key, known.default) != known.default:
                    self.warn(f"{name}.{key}", mark.why)

    def _global(self, given: sections.GlobalSection) -> None:
        others = {key: sections.null_if_none(value) for key, value in (given.model_extra or {}).items()}
        if given.model_dir is not None:
            self._set("model", path=given.model_dir.rstrip("/") or "/")
        if given.data_dir is not None:
            self._image_folder(given.data_dir, others)
        if given.batch_size is not None and (self._given.QuantPost or self._given.HyperParameterOptimization):
            self._set("calibration", batch_size=given.batch_size)
        shapes = sections.null_if_none(given.input_shapes)
        if isinstance(shapes, dict):
            self._set("benchmark", shapes=[timed_shapes(shapes, f"{self._origin}: `Global.input_shapes`")])
        elif shapes is not None:
            self.warn(
                "Global.input_shapes",
                "shapes are those of the samples; further ones to time: `benchmark.shapes`, by input",
            )
        if given.deploy_hardware not in (None, "cpu"):
            self.warn("Global.deploy_hardware", hardware_advice(str(given.deploy_hardware)))
        for key, value in others.items():
            if value is not None:
                self.warn(f"Global.{key}", _GLOBAL.get(key, _GLOBAL_OTHERWISE))

    def _image_folder(self, path: str, others: dict[str, Any]) -> None:
        """Set what ACT's example for image classification reads: its lists, sizes, ImageNet's mean and deviation."""
        size, resize = others.pop("img_size", None), others.pop("resize_size", None)
        size = others.pop("crop_size", None) if size is None else size
        for key, value in (("img_size", size), ("resize_size", resize)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise InputError(f"{self._origin}: `Global.{key}` is {value!r:.80}; it must be a number of pixels")
        self.result.job["data"] = {
            "reader": "image_folder",
            "path": path.rstrip("/") or "/",
            "calibration_list": "train_list.txt",
            "evaluation_list": "val_list.txt",
            "size": [size or 224] * 2,
            "resize": resize or 256,
            "interpolation": "lanczos",
        }
        self.result.job["metric"] = "top1"

    def _distillation(self) -> None:
        one, several = self._given.Distillation, self._given.MultiTeacherDistillation
        if one is not None and several is not None:
            raise InputError(
                f"{self._origin}: `Distillation` and `MultiTeacherDistillation` cannot both be: keep one of them"
            )
        if "node" in self.result.job.get("distillation", {}):
            self.result.job["distillation"].setdefault("loss", "l2")  # ACT's default
        if (given := one or several) and (teachers := _teachers(given)):
            self._set("distillation", teachers=teachers)

    def _training(self, names: Sequence[str], pruned: bool) -> None:
        """Translate `TrainConfig`, for every stage that trains."""
        train = self._given.TrainConfig
        values = {} if train is None else train_settings(train, self.warn)
        if train is not None and train.origin_metric is not None:
            self.result.origin_metric = train.origin_metric
            if self._scripts:
                self.warn("TrainConfig.origin_metric", "quality is measured: the report has the given model's")
        size = self._given.Global.batch_size if self._given.Global else None
        if size is not None and (not names or {*names} - POST_TRAINING):
            values["batch_size"] = size
        if values and pruned:
            self._set("prune", **values)
        if values:
            self._set("qat", **(after_pruning(values) if pruned else values))

    def _post(self, post: sections.QuantPostSection, search: sections.HyperParameterOptimizationSection | None) -> None:
        self._quantized_types("QuantPost", post)
        if search is None:
            # One quantization, with these settings and no others.
            algo = post.algo or _ACT_ALGO
            self._set("ptq_search", ptq_algo=[algo], max_float_layers=0, max_quant_count=1)
            self._set("ptq_search", bias_correct=[bool(post.bias_correction)], activation_symmetric=[True])
            if post.hist_percent is not None or THRESHOLDS.load(algo).RULE.takes_share:
                self._set("ptq_search", hist_percent=[0.999 if post.hist_percent is None else post.hist_percent])
            if post.batch_nums is not None:
                self._set("calibration", batch_num=[post.batch_nums])
            self._weight_scales("QuantPost", [post.weight_quantize_type or "channel_wise_abs_max"])
        else:
            searched = {"algo", "hist_percent", "bias_correction", "batch_nums", "weight_quantize_type"}
            for key in sorted(searched & post.model_fields_set):
                self.warn(f"QuantPost.{key}", "`HyperParameterOptimization` searches it; its section says among what")
        if post.recon_level is not None:
            self._set("refine", methods=[post.recon_level.replace("-", "_")])
        else:
            self._set("refine", candidates=0)  # ACT reconstructs nothing that it is not told to

    def _search(self, search: sections.HyperParameterOptimizationSection) -> None:
        """Translate the ranges that ACT draws from, of which our search chooses values."""
        if search.weight_quantize_type is not None:
            self._weight_scales("HyperParameterOptimization", search.weight_quantize_type)
        if search.hist_percent is not None:
            self._set("ptq_search", hist_percent=_between_shares(search.hist_percent))
        if search.batch_num is not None:
            low, high = min(search.batch_num), max(search.batch_num)
            self._set("calibration", batch_num=sorted({low, (low + high) // 2, high}))

    def _quantized_types(self, name: str, settings: sections.QuantSection) -> None:
        if settings.quantize_op_types is None:
            return
        ours = get_args(QuantizableOperator)
        # `matmul` is what `matmul_v2` was called before.
        wanted = ["matmul_v2" if kind == "matmul" else kind for kind in settings.quantize_op_types]
        why = f"is not chosen by hand: {', '.join(ours)} are, and what lies between them runs in int8 where it can"
        kept = self._ours(f"{name}.quantize_op_types", wanted, ours, why)
        if not kept:
            raise InputError(
                f"{self._origin}: `{name}.quantize_op_types` is {settings.quantize_op_types}, of which nothing is "
                f"quantized here; name some of {', '.join(ours)}"
            )
        self._set("ptq_search", quantizable_op_type=kept)

    def _weight_scales(self, name: str, wanted: list[sections.WeightScale]) -> None:
        ours = get_args(WeightQuantization)
        why = f"is for activations; weights have {', '.join(ours)}"
        kept = self._ours(f"{name}.weight_quantize_type", wanted, ours, why)
        if kept:
            self._set("ptq_search", weight_quantize_type=kept)

    def _ours(self, key: str, wanted: Iterable[str], ours: Sequence[str], why: str) -> list[str]:
        """Return what there is here of some values of a key, each once, and warn of the others."""
        for value in wanted:
            if value not in ours:
                self.warn(key, f"`{value}` {why}")
        return list(dict.fromkeys(value for value in wanted if value in ours))


def _old_prune(value: Any, origin: str) -> dict[str, Any]:
    """Return the section `Prune` of PaddleSlim 2.2, which names the method by a key, as later ones have it."""
    methods = {"prune": "ChannelPrune", "transformer_pruner": "TransformerPrune", "asp": "ASPPrune"}
    if not isinstance(value, dict) or value.get("prune_algo") not in methods:
        raise InputError(
            f"{origin}: `Prune` must name one of {', '.join(methods)} as `prune_algo`; or use the section "
            "`ChannelPrune`, `TransformerPrune`, `ASPPrune` or `UnstructurePrune`"
        )
    return {methods[value["prune_algo"]]: {key: inner for key, inner in value.items() if key != "prune_algo"}}


def _differences(wanted: Mapping[str, Any], found: Any, prefix: str = "") -> list[str]:
    """Return what a job's entry says otherwise or not at all; a few words each."""
    told = []
    for key, value in wanted.items():
        known = isinstance(found, Mapping) and key in found
        if isinstance(value, Mapping) and value:
            told += _differences(value, found[key] if known else None, f"{prefix}{key}.")
        elif not known or found[key] != value:
            told.append(f"`{prefix}{key}` should be {value!r}" + (f" and is {found[key]!r}" if known else ""))
    return told


def _teachers(given: sections.DistillationSection | sections.MultiTeacherDistillationSection) -> list[dict[str, Any]]:
    """Return each teacher as a model of ours; none when it is the given model itself."""
    values = (given.teacher_model_dir, given.teacher_model_filename, given.teacher_params_filename)
    teachers = zip_longest(*(value if isinstance(value, list) else [value] for value in values))
    keys = ("path", "model_filename", "params_filename")
    return [
        {key: value for key, value in zip(keys, teacher) if value is not None}
        for teacher in teachers
        if teacher[0] is not None
    ]


def _between_shares(bounds: list[float]) -> list[float]:
    """Return the bounds and one between, by what is cut off."""
    low, high = min(bounds), max(bounds)
    if low == high or not 0 < low < high <= 1:
        return list(dict.fromkeys(bounds))
    middle = 1 - math.sqrt((1 - low) * (1 - high)) if high < 1 else (low + high) / 2
    return sorted({low, round(middle, 6), high})
