"""The choice of strategy, as a function of made-up analyses."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from act.settings import PRUNING, Job, StrategyName
from tasks.select.__main__ import _obey, _precisions, choose
from tests.support.place import JOB


@pytest.fixture
def job() -> Job:
    return Job.model_validate({**JOB, "target": {"engines": ["openvino", "onnxruntime"]}})


def analysis(int8_share: float = 0.9, flags: tuple[str, ...] = ("avx512_vnni",), **engines: Any) -> dict[str, Any]:
    engine = {
        "precisions": ["fp32", "bf16", "int8"],
        "int8_layers": 7,
        "int8_parameters": 1000 * int8_share,
        "int8_macs": 5000 * int8_share,
    }
    return {
        "parameters": 1000,
        "macs": 5000,
        "machine": {"capabilities": list(flags)},
        "engines": {name: {**engine, **engines.get(name, {})} for name in ("openvino", "onnxruntime")},
    }


def test_layers_that_can_run_in_int8_are_quantized(job: Job) -> None:
    strategy = choose(job, analysis())
    assert strategy.names == {"HyperParameterOptimization", "QuantPost", "QuantAware", "Distillation"}
    assert strategy.names == set(get_args(StrategyName)) - set(PRUNING)
    reasons = dict(strategy.parts)
    assert len(set(reasons.values())) == 4 and all(len(why) > 20 for why in reasons.values())
    assert "7 layers with 90%" in reasons["QuantPost"] and "AVX512-VNNI" in reasons["QuantPost"]


def test_without_int8_instructions_the_reason_warns(job: Job) -> None:
    assert "may be slower" in choose(job, analysis(flags=())).why


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (
            analysis(openvino={"precisions": ["fp32"]}, onnxruntime={"precisions": ["fp32"]}),
            "none of the target's engines",
        ),
        (analysis(int8_share=0.05), "only 5% of the MACs"),
        (analysis(int8_share=0.09), "only 9% of the MACs and 9% of the parameters"),
        (
            analysis(openvino={"precisions": ["fp32"]}, onnxruntime={"int8_macs": 100, "int8_parameters": 30}),
            "only 2% of the MACs and 3% of the parameters",
        ),
        (analysis() | {"macs": 0, "parameters": 0}, "only 0% of the MACs"),
    ],
)
def test_what_cannot_gain_is_not_quantized(job: Job, made: dict[str, Any], reason: str) -> None:
    strategy = choose(job, made)
    assert not strategy.parts and reason in strategy.why
    written = strategy.to_json()
    assert not (written["quantize"] or written["search"] or written["train"])
    assert all("int8" not in {row["name"] for row in rows} for rows in _precisions(job, made, strategy).values())


def test_a_tenth_in_int8_is_enough(job: Job) -> None:
    assert choose(job, analysis(int8_share=0.1)).parts


def test_the_engines_that_can_run_int8_are_named(job: Job) -> None:
    made = analysis(openvino={"precisions": ["fp32"], "int8_layers": 9}, onnxruntime={"int8_macs": 3000})
    strategy = choose(job, made)
    assert "7 layers with 60% of the MACs can run in int8 on onnxruntime;" in dict(strategy.parts)["QuantPost"]
    rows = _precisions(job, made, strategy)
    assert [row["name"] for row in rows["openvino"]] == ["fp32"]
    assert "int8" in [row["name"] for row in rows["onnxruntime"]]


def test_many_parameters_are_worth_it_though_they_multiply_little(job: Job) -> None:
    small = {"int8_macs": 50, "int8_parameters": 900}
    assert choose(job, analysis(openvino=small, onnxruntime=small)).parts


def test_a_target_without_int8_is_not_quantized(job: Job) -> None:
    target = job.target.model_copy(update={"precisions": ["fp32", "bf16"]})
    strategy = choose(job.model_copy(update={"target": target}), analysis())
    assert not strategy.parts and "int8 is not among the target's precisions" in strategy.why


def test_bf16_is_left_out_where_the_target_does_not_want_it(job: Job) -> None:
    target = job.target.model_copy(update={"precisions": ["fp32", "int8"]})
    rows = _precisions(job.model_copy(update={"target": target}), analysis(), choose(job, analysis()))
    assert {name: [row["name"] for row in found] for name, found in rows.items()} == {
        "openvino": ["fp32", "int8"],
        "onnxruntime": ["fp32", "int8"],
    }


def test_a_fixed_strategy_is_obeyed(job: Job) -> None:
    asked = _obey(job.model_copy(update={"strategy": ["QuantPost"]}))
    assert asked.names == {"QuantPost"}
    assert asked.to_json()["quantize"] and not asked.to_json()["search"] and not asked.to_json()["train"]
    assert asked.parts == [("QuantPost", "asked for in params.yaml")]
    trained = _obey(job.model_copy(update={"strategy": ["QuantAware", "Distillation"]})).to_json()
    assert [part["name"] for part in trained["strategy"]] == ["QuantAware", "Distillation"]
    assert trained["train"] and trained["train_always"]
    assert trained["quantize"] and trained["train"] and not trained["search"]
    searched = _obey(job.model_copy(update={"strategy": ["HyperParameterOptimization"]})).to_json()
    assert searched["quantize"] and searched["search"] and not searched["train"]
    nothing = _obey(job.model_copy(update={"strategy": []}))
    assert not nothing.to_json()["quantize"] and "no compression" in nothing.why


def test_each_engine_gets_the_precisions_it_has(job: Job) -> None:
    made = analysis(onnxruntime={"precisions": ["fp32", "int8"]})
    found = _precisions(job, made, choose(job, made))
    assert {engine: [row["name"] for row in rows] for engine, rows in found.items()} == {
        "openvino": ["fp32", "bf16", "int8"],
        "onnxruntime": ["fp32", "int8"],
    }
    without = _precisions(job, made, _obey(job.model_copy(update={"strategy": []})))
    assert [row["name"] for row in without["openvino"]] == ["fp32", "bf16"]
