"""Every key of ACT's configurations becomes a setting or is named in a warning, and a wrong value is an error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from act.errors import InputError
from act.paddleslim.sections import Sections
from act.paddleslim.translate import Translation, merged, read, translate
from act.settings import Job, StrategyName, validate

NO_STRATEGY: dict[str, Any] = {"model": {"path": "m"}, "data": {"reader": "arrays", "path": "d"}}


def of(text: str) -> Translation:
    return translate(yaml.safe_load(text), "act.yaml")


def at(job: Mapping[str, Any], path: str) -> Any:
    for part in path.split("."):
        job = job[part]
    return job


def job_of(translation: Translation) -> Job:
    """The job, validated: what is translated must be something that the pipeline takes."""
    entry = {**NO_STRATEGY, "metric": "similarity", "strategy": "auto"}
    entry |= {name: {} for name, field in Job.model_fields.items() if field.is_required() and name not in entry}
    return validate(Job, merged(entry, translation.job), "act.yaml")


SEARCH = "QuantPost: {}\nHyperParameterOptimization:"
# ACT's text -> the setting and its value here.
SETTINGS: list[tuple[str, str, Any]] = [
    ("Global: {model_dir: ./infer/}", "model.path", "./infer"),
    ("Global: {model_filename: model.pdmodel}", "model.model_filename", "model.pdmodel"),
    ("Global: {params_filename: model.pdiparams}", "model.params_filename", "model.pdiparams"),
    ("Global: {data_dir: ./ILSVRC2012/}", "data.reader", "image_folder"),
    ("Global: {data_dir: ./ILSVRC2012/}", "data.evaluation_list", "val_list.txt"),
    ("Global: {data_dir: ./ILSVRC2012/, img_size: 299, resize_size: 320}", "data.size", [299, 299]),
    ("Global: {data_dir: ./ILSVRC2012/, crop_size: 299, resize_size: 320}", "data.size", [299, 299]),
    ("Global: {data_dir: ./ILSVRC2012/, img_size: 299, resize_size: 320}", "data.resize", 320),
    ("Global: {data_dir: ./ILSVRC2012/}", "metric", "top1"),
    ("Global: {batch_size: 32}\nQuantPost:", "calibration.batch_size", 32),
    ("Global: {input_shapes: {x: [-1, 3, 64, 32]}}", "benchmark.shapes", [{"x": [3, 64, 32]}]),
    ("QuantPost:", "strategy", ["QuantPost"]),
    ("QuantPost: {batch_size: 16}", "calibration.batch_size", 16),
    ("QuantPost: {batch_nums: 5}", "calibration.batch_num", [5]),
    ("QuantPost: {algo: KL}", "ptq_search.ptq_algo", ["KL"]),
    ("QuantPost:", "ptq_search.max_quant_count", 1),
    ("QuantPost: {hist_percent: 0.9999}", "ptq_search.hist_percent", [0.9999]),
    ("QuantPost: {bias_correction: true}", "ptq_search.bias_correct", [True]),
    ("QuantPost: {weight_quantize_type: abs_max}", "ptq_search.weight_quantize_type", ["abs_max"]),
    ("QuantPost: {recon_level: layer-wise}", "refine.methods", ["layer_wise"]),
    ("QuantPost: {recon_level: region-wise}", "refine.methods", ["region_wise"]),
    ("QuantPost: {recon_level: None}", "refine.candidates", 0),
    ("QuantPost: {quantize_op_types: [conv2d, matmul]}", "ptq_search.quantizable_op_type", ["conv2d", "matmul_v2"]),
    (f"{SEARCH} {{}}", "strategy", ["QuantPost", "HyperParameterOptimization"]),
    ("HyperParameterOptimization:", "strategy", ["QuantPost", "HyperParameterOptimization"]),
    (f"{SEARCH} {{ptq_algo: [avg, mse]}}", "ptq_search.ptq_algo", ["avg", "mse"]),
    (f"{SEARCH} {{bias_correct: [true, false]}}", "ptq_search.bias_correct", [True, False]),
    (f"{SEARCH} {{weight_quantize_type: [abs_max]}}", "ptq_search.weight_quantize_type", ["abs_max"]),
    (f"{SEARCH} {{hist_percent: [0.98, 0.998]}}", "ptq_search.hist_percent", [0.98, 0.993675, 0.998]),
    (f"{SEARCH} {{hist_percent: [0.999]}}", "ptq_search.hist_percent", [0.999]),
    (f"{SEARCH} {{batch_num: [10, 30]}}", "calibration.batch_num", [10, 20, 30]),
    (f"{SEARCH} {{max_quant_count: 20}}", "ptq_search.max_quant_count", 20),
    (
        "Quantization: {quantize_op_types: [mul]}\nHyperParameterOptimization:",
        "ptq_search.quantizable_op_type",
        ["mul"],
    ),
    ("Quantization: {}\nHyperParameterOptimization:", "strategy", ["QuantPost", "HyperParameterOptimization"]),
    ("Quantization: {}\nDistillation:", "strategy", ["QuantAware", "Distillation"]),
    ("QuantAware: {weight_quantize_type: abs_max}", "ptq_search.weight_quantize_type", ["abs_max"]),
    ("QuantAware: {quantize_op_types: [conv2d]}", "ptq_search.quantizable_op_type", ["conv2d"]),
]
AWARE = "QuantAware: {}\nDistillation: {}\nTrainConfig:"
PRUNED = "ChannelPrune: {pruned_ratio: 0.25}\nQuantAware: {}\nDistillation: {}\nTrainConfig:"
COSINE = "{type: CosineAnnealingDecay, learning_rate: 0.015, T_max: 8000}"
PIECES = "{type: PiecewiseDecay, boundaries: [4500], values: [0.005, 0.0005]}"
GMP = {"stable_iterations": 0, "pruning_iterations": 4500, "tunning_iterations": 4500, "resume_iteration": -1}
GMP |= {"pruning_steps": 100, "initial_ratio": 0.15}  # type: ignore[dict-item]
# ACT's text -> the setting of training or pruning and its value here.
TRAINED: list[tuple[str, str, Any]] = [
    (f"Global: {{batch_size: 16}}\n{AWARE} {{}}", "qat.batch_size", 16),
    (f"{AWARE} {{epochs: 5}}", "qat.epochs", 5),
    (f"{AWARE} {{train_iter: 8000}}", "qat.train_iter", 8000),
    (f"{AWARE} {{train_iter: 8000}}", "qat.epochs", 100),
    (f"{AWARE} {{eval_iter: 50}}", "qat.eval_iter", 50),
    (f"{AWARE} {{target_metric: 0.365}}", "qat.target_metric", 0.365),
    (f"{AWARE} {{learning_rate: 0.001}}", "qat.learning_rate", 0.001),
    (f"{AWARE} {{learning_rate: 1e-5}}", "qat.learning_rate", 1e-5),
    (f"{AWARE} {{learning_rate: {COSINE}}}", "qat.learning_rate", 0.015),
    (
        f"{AWARE} {{learning_rate: {COSINE}}}",
        "qat.learning_rate_schedule",
        {"type": "CosineAnnealingDecay", "T_max": 8000},
    ),
    (
        f"{AWARE} {{learning_rate: {PIECES}}}",
        "qat.learning_rate_schedule",
        {"type": "PiecewiseDecay", "boundaries": [4500], "values": [0.005, 0.0005]},
    ),
    (f"{AWARE} {{optimizer_builder: {{optimizer: {{type: SGD}}, weight_decay: 4.0e-05}}}}", "qat.optimizer", "SGD"),
    (f"{AWARE} {{optimizer_builder: {{optimizer: {{type: Adam}}, weight_decay: 4.0e-05}}}}", "qat.weight_decay", 4e-5),
    (f"{PRUNED} {{epochs: 20}}", "prune.epochs", 20),
    (f"{PRUNED} {{epochs: 20}}", "qat.epochs", 2),
    (f"{PRUNED} {{epochs: 1, learning_rate: 0.01}}", "qat.epochs", 1),
    (f"{PRUNED} {{learning_rate: 0.01}}", "qat.learning_rate", 0.001),
    ("QuantAware: {use_pact: true}\nDistillation:", "qat.use_pact", True),
    ("QuantAware: {not_quant_pattern: [skip_quant]}\nDistillation:", "qat.not_quant_pattern", ["skip_quant"]),
    ("QuantAware:\nDistillation: {loss: soft_label}", "distillation.loss", "soft_label"),
    ("QuantAware:\nDistillation: {loss: [skd, l2], node: [[a], [b]]}", "distillation.loss", ["skd", "l2"]),
    ("QuantAware:\nDistillation: {node: [softmax_0.tmp_0]}", "distillation.node", ["softmax_0.tmp_0"]),
    ("QuantAware:\nDistillation: {alpha: 1.0}", "distillation.alpha", 1.0),
    (
        "QuantAware:\nDistillation: {teacher_model_dir: t, teacher_model_filename: a, teacher_params_filename: b}",
        "distillation.teachers",
        [{"path": "t", "model_filename": "a", "params_filename": "b"}],
    ),
    (
        "QuantAware:\nMultiTeacherDistillation: {loss: [l2, l2], alpha: [1, 2], node: [[a], [b]], "
        "teacher_model_dir: [t, u], teacher_model_filename: [a, b], teacher_params_filename: [c, d]}",
        "distillation.teachers",
        [
            {"path": "t", "model_filename": "a", "params_filename": "c"},
            {"path": "u", "model_filename": "b", "params_filename": "d"},
        ],
    ),
    ("ChannelPrune: {pruned_ratio: 0.25}\nDistillation:", "prune.channel.pruned_ratio", 0.25),
    ("ChannelPrune: {pruned_ratio: 0.25, criterion: bn_scale}\nDistillation:", "prune.channel.criterion", "bn_scale"),
    (
        "ChannelPrune: {pruned_ratio: 0.25, prune_params_name: [w]}\nDistillation:",
        "prune.channel.prune_params_name",
        ["w"],
    ),
    ("ASPPrune: {prune_params_name: [w]}\nDistillation:", "prune.asp.prune_params_name", ["w"]),
    ("TransformerPrune: {pruned_ratio: 0.25}\nDistillation:", "prune.transformer.pruned_ratio", 0.25),
    ("Prune: {prune_algo: transformer_pruner, pruned_ratio: 0.25}", "prune.transformer.pruned_ratio", 0.25),
    ("UnstructurePrune: {prune_strategy: gmp}\nDistillation:", "prune.unstructured.prune_strategy", "gmp"),
    ("UnstructurePrune: {prune_mode: threshold}\nDistillation:", "prune.unstructured.prune_mode", "threshold"),
    ("UnstructurePrune: {threshold: 0.001}\nDistillation:", "prune.unstructured.threshold", 0.001),
    ("UnstructurePrune: {ratio: 0.75}\nDistillation:", "prune.unstructured.ratio", 0.75),
    ("UnstructurePrune: {prune_params_type: conv1x1_only}", "prune.unstructured.prune_params_type", "conv1x1_only"),
    ("UnstructurePrune: {local_sparsity: true}\nDistillation:", "prune.unstructured.local_sparsity", True),
    (
        f"UnstructurePrune: {{gmp_config: {yaml.safe_dump(GMP, default_flow_style=True)}}}",
        "prune.unstructured.gmp_config",
        GMP,
    ),
]
# ACT's text -> the key that a warning names, and words of it.
WARNINGS: list[tuple[str, str, str]] = [
    *(
        (f"Global: {{{key}: x}}", f"Global.{key}", "reader: function")
        for key in ("reader_config", "dataset", "task_name")
    ),
    *(
        (f"Global: {{{key}: 1}}", f"Global.{key}", "`data`")
        for key in (
            *("algorithm", "coco_dataset_dir", "coco_train_anno_path", "coco_train_image_dir", "coco_val_anno_path"),
            *("coco_val_image_dir", "dev_data", "image_path", "include_nms", "max_seq_length", "max_text_length"),
            *("nms_num_top_k", "padding", "return_attention_mask", "train_data", "use_space_char", "input_list"),
        )
    ),
    ("Global: {input_name: inputs}", "Global.input_name", "read from the model"),
    ("Global: {input_names: [x0, x1]}", "Global.input_names", "read from the model"),
    ("Global: {Evaluation: true}", "Global.Evaluation", "`metric`"),
    ("Global: {arch: YOLOv5}", "Global.arch", "graph"),
    ("Global: {model_type: det}", "Global.model_type", "graph"),
    ("Global: {img_size: 224}", "Global.img_size", "data.size"),
    ("Global: {crop_size: 224}", "Global.crop_size", "data.size"),
    ("Global: {resize_size: 256}", "Global.resize_size", "data.resize"),
    ("Global: {character_dict_path: keys.txt}", "Global.character_dict_path", "data.alphabet"),
    ("Global: {deploy_hardware: SD710}", "Global.deploy_hardware", "paddle_lite"),
    ("Global: {deploy_hardware: gpu}", "Global.deploy_hardware", "target.engines"),
    ("Global: {input_shapes: [1, 3, 398, 224]}", "Global.input_shapes", "benchmark.shapes"),
    *((f"{name}: {{loader: 1}}", name, "`metric`") for name in ("Train", "Eval", "Metric", "PostProcess")),
    ("QuantPost: {epochs: 20}", "QuantPost.epochs", "refine.steps"),
    ("QuantPost: {lr: 0.1}", "QuantPost.lr", "refine.learning_rate"),
    ("QuantPost: {regions: [[a, b]]}", "QuantPost.regions", "refine.region_layers"),
    ("QuantPost: {region_weights_names: [[a]]}", "QuantPost.region_weights_names", "refine.region_layers"),
    ("QuantPost: {skip_tensor_list: [a]}", "QuantPost.skip_tensor_list", "max_float_layers"),
    ("QuantPost: {activation_quantize_type: range_abs_max}", "QuantPost.activation_quantize_type", "ptq_algo"),
    ("QuantPost: {simulate_activation_quant: false}", "QuantPost.simulate_activation_quant", "always"),
    ("QuantPost: {onnx_format: false}", "QuantPost.onnx_format", "always true"),
    ("QuantPost: {is_full_quantize: true}", "QuantPost.is_full_quantize", "quantizable_op_type"),
    ("QuantPost: {quantize_op_types: [conv2d, pool2d]}", "QuantPost.quantize_op_types", "`pool2d`"),
    ("QuantPost: {weight_quantize_type: range_abs_max}", "QuantPost.weight_quantize_type", "for activations"),
    ("QuantPost: {algo: KL}\nHyperParameterOptimization:", "QuantPost.algo", "HyperParameterOptimization"),
    ("QuantAware: {activation_quantize_type: abs_max}", "QuantAware.activation_quantize_type", "best post-training"),
    ("QuantAware: {window_size: 10000}", "QuantAware.window_size", "best post-training"),
    ("QuantAware: {moving_rate: 0.9}", "QuantAware.moving_rate", "best post-training"),
    ("QuantAware: {for_tensorrt: true}", "QuantAware.for_tensorrt", "target.engines"),
    ("QuantAware: {onnx_format: false}", "QuantAware.onnx_format", "always true"),
    ("QuantAware: {is_full_quantize: true}", "QuantAware.is_full_quantize", "quantizable_op_type"),
    ("TrainConfig: {logging_iter: 10}", "TrainConfig.logging_iter", "all the time"),
    ("TrainConfig: {origin_metric: 0.7}", "TrainConfig.origin_metric", "quality is measured"),
    ("TrainConfig: {use_fleet: true}", "TrainConfig.use_fleet", "launcher"),
    ("TrainConfig: {amp_config: {use_pure_fp16: true}}", "TrainConfig.amp_config", "fp32"),
    ("TrainConfig: {recompute_config: {a: 1}}", "TrainConfig.recompute_config", "batch_size"),
    ("TrainConfig: {sharding_config: {a: 1}}", "TrainConfig.sharding_config", "batch_size"),
    ("TrainConfig: {sparse_model: true}", "TrainConfig.sparse_model", "stay zero"),
    (
        "TrainConfig: {optimizer_builder: {optimizer: {type: Momentum, momentum: 0.9}}}",
        "TrainConfig.optimizer_builder.optimizer.momentum",
        "Paddle's own",
    ),
    (
        "TrainConfig: {optimizer_builder: {optimizer: {type: SGD}, grad_clip: {type: ClipGradByNorm}}}",
        "TrainConfig.optimizer_builder.grad_clip",
        "clipped, always",
    ),
    ("Quantization: {moving_rate: 0.9}", "Quantization.moving_rate", "best post-training"),
]
# Keys whose one value, or whose default, is what is always done here.
SILENT = {
    (
        "QuantAware",
        "dtype",
    ): "QuantAware: {dtype: int8, onnx_format: true, is_full_quantize: false, for_tensorrt: false}",
    ("QuantAware", "weight_bits"): "QuantAware: {weight_bits: 8, activation_bits: 8}",
    ("QuantAware", "activation_bits"): "QuantAware: {weight_bits: 8, activation_bits: 8}",
    ("QuantPost", "weight_bits"): "QuantPost: {weight_bits: 8, activation_bits: 8, onnx_format: true}",
    ("QuantPost", "activation_bits"): "QuantPost: {weight_bits: 8, activation_bits: 8, onnx_format: true}",
}


@pytest.mark.parametrize(("text", "path", "value"), SETTINGS)
def test_a_key_becomes_a_setting(text: str, path: str, value: Any) -> None:
    translation = of(text)
    assert at(translation.job, path) == value
    job_of(translation)


@pytest.mark.parametrize(("text", "path", "value"), TRAINED)
def test_a_key_of_training_becomes_a_setting(text: str, path: str, value: Any) -> None:
    translation = of(text)
    assert at(translation.job, path) == value
    if set(translation.job["strategy"]) <= set(get_args(StrategyName)):
        job_of(translation)


@pytest.mark.parametrize(("text", "key", "words"), WARNINGS)
def test_a_key_that_means_nothing_is_named_with_what_to_use(text: str, key: str, words: str) -> None:
    translation = of(text)
    found = [warning for warning in translation.warnings if warning.startswith(f"act.yaml: `{key}`: ")]
    assert found and words in found[0], translation.warnings
    job_of(translation)


def test_what_is_left_empty_is_as_if_it_were_not_there() -> None:
    empty = job_of(of("Global: {batch_size: null, img_size: None, crop_size: null}\nQuantPost: {batch_nums: None}"))
    assert empty == job_of(of("Global: {}\nQuantPost: {}"))
    gmp = "{initial_ratio: 1e-1, pruning_steps: null, stable_iterations: 3}"
    pruned = job_of(of(f"UnstructurePrune: {{prune_strategy: gmp, gmp_config: {gmp}}}\nDistillation:"))
    assert pruned.prune.unstructured.gmp_config.initial_ratio == 0.1


@pytest.mark.parametrize("text", SILENT.values())
def test_what_is_always_done_here_needs_no_word(text: str) -> None:
    assert of(text).warnings == []


def test_no_key_of_act_is_forgotten() -> None:
    """Every key of every section stands in one of the tables above: none is read and then silently dropped."""
    told = {(name, key) for name, key in SILENT}
    for text, *_ in (*SETTINGS, *TRAINED, *WARNINGS):
        for section, keys in yaml.safe_load(text).items():
            told |= {(section, key) for key in keys or {}}
    # PaddleSlim 2.3 calls it Quantization.
    told |= {("Quantization", key) for section, key in told if section == "QuantAware"}
    known = {
        (section, key)
        for section, field in Sections.model_fields.items()
        for key in next(kind for kind in field.annotation.__args__ if kind is not type(None)).model_fields  # type: ignore[union-attr]
    }
    assert known - told == set()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("QuantAware: {weight_bits: 4}", "`QuantAware.weight_bits` is 4: only 8 bits"),
        ("QuantAware: {use_pact: maybe}", "`QuantAware.use_pact` is 'maybe'"),
        (
            "QuantAware: {quantise_op_types: [conv2d]}",
            "`QuantAware.quantise_op_types` is not a known key; known here: ",
        ),
        ("QuantAware: {quantize_op_types: [relu]}", "`QuantAware.quantize_op_types` is ['relu'], of which nothing"),
        ("QuantAware: 3", "`QuantAware` is 3"),
        ("QuantAwre: {}", "`QuantAwre` is not a section of ACT; did you mean `QuantAware`?"),
        ("QuantPost: {algo: average}", "`QuantPost.algo` is 'average'"),
        ("QuantPost: {recon_level: net-wise}", "`QuantPost.recon_level` is 'net-wise'"),
        ("HyperParameterOptimization: {ptq_algo: []}", "`HyperParameterOptimization.ptq_algo` is []"),
        ("ChannelPrune: {}", "`ChannelPrune.pruned_ratio` is missing"),
        ("ChannelPrune: {pruned_ratio: 0.25, criterion: l3}", "`ChannelPrune.criterion` is 'l3'"),
        ("UnstructurePrune: {gmp_config: {steps: 3}}", "`UnstructurePrune.gmp_config.steps` is not a known key"),
        ("Distillation: {loss: l3}", "`Distillation.loss"),
        ("TrainConfig: {epochs: ten}", "`TrainConfig.epochs` is 'ten'"),
        ("TrainConfig: {learning_rate: fast}", "`TrainConfig.learning_rate"),
        ("Prune: {prune_algo: magic}", "`Prune` must name one of"),
        ("Global: {model_dir: 3}", "`Global.model_dir` is 3"),
        ("Global: {batch_size: 0}", "`Global.batch_size` is 0"),
        ("Global: {data_dir: d, img_size: big}", "`Global.img_size` is 'big'"),
        ("Global: {input_shapes: {x: [1, -1]}}", "`Global.input_shapes`: `x` is [1, -1]"),
        ("Global: [1]", "`Global` is [1]"),
        ("Pipeline: [1]", "`Pipeline` is [1]"),
    ],
)
def test_wrong_values_are_errors_that_name_file_field_and_cure(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        job_of(of(text))
    assert str(caught.value).startswith("act.yaml: ") and words in str(caught.value), caught.value


def test_the_section_pipeline_stands_above_what_is_translated() -> None:
    translation = of("QuantPost: {algo: KL}\nPipeline: {ptq_search: {ptq_algo: [hist], seed: 5}, target: {threads: 2}}")
    assert translation.job["ptq_search"]["ptq_algo"] == ["hist"] and translation.job["ptq_search"]["seed"] == 5
    assert job_of(translation).target.threads == 2


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    for text in ("QuantPost: {algo: !!python/object/apply:os.system [exit]}", "Global: !!python/name:os.system"):
        (tmp_path / "act.yaml").write_text(text)
        with pytest.raises(InputError, match="not valid YAML"):
            read(tmp_path / "act.yaml")
    with pytest.raises(InputError, match="`HyperParameterOptimization.max_quant_count` is '__import__"):
        of("HyperParameterOptimization: {max_quant_count: '__import__(\"os\").getpid()'}")


def test_a_missing_file_and_one_that_is_no_mapping_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"act\.yaml: no such file; name an ACT configuration"):
        read(tmp_path / "act.yaml")
    (tmp_path / "act.yaml").write_text("[1, 2]")
    with pytest.raises(InputError, match=r"act\.yaml: must hold a mapping"):
        read(tmp_path / "act.yaml")
