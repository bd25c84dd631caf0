"""The choice of strategy, as a function of made-up analyses."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from act.results.analyze import Analysis
from act.results.select import Strategy, StrategyPart
from act.settings import PRUNING, Job, StrategyName
from act.strategy.choice import obey, precisions, quantization
from tests.support import results
from tests.support.measured import MACHINE
from tests.support.place import JOB


@pytest.fixture
def job() -> Job:
    return Job.model_validate({**JOB, "target": {"engines": ["openvino", "onnxruntime"]}})


def analysis(int8_share: float = 0.9, flags: tuple[str, ...] = ("avx512_vnni",), **engines: Any) -> Analysis:
    engine: dict[str, Any] = {
        "version": "1",
        "precisions": ["fp32", "bf16", "int8"],
        "multiplying": {},
        "fusion": None,
        "int8_layers": 7,
        "int8_parameters": round(1000 * int8_share),
        "int8_macs": round(5000 * int8_share),
    }
    return results.analysis(
        parameters=1000,
        macs=5000,
        machine=MACHINE.model_copy(update={"capabilities": list(flags)}),
        engines={name: {**engine, **engines.get(name, {})} for name in ("openvino", "onnxruntime")},
    )


def reasons(strategy: Strategy) -> dict[str, str]:
    return {part.name: part.why for part in strategy.strategy}


def names(found: dict[str, list[StrategyPart]]) -> dict[str, list[str]]:
    return {engine: [part.name for part in parts] for engine, parts in found.items()}


def test_layers_that_can_run_in_int8_are_quantized(job: Job) -> None:
    strategy = quantization(job, analysis())
    found = reasons(strategy)
    assert set(found) == {"HyperParameterOptimization", "QuantPost", "QuantAware", "Distillation"}
    assert set(found) == set(get_args(StrategyName)) - set(PRUNING)
    assert len(set(found.values())) == 4 and all(len(why) > 20 for why in found.values())
    assert "7 layers with 90%" in found["QuantPost"] and "AVX512-VNNI" in found["QuantPost"]


def test_without_int8_instructions_the_reason_warns(job: Job) -> None:
    assert "may be slower" in quantization(job, analysis(flags=())).why


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
        (analysis().model_copy(update={"macs": 0, "parameters": 0}), "only 0% of the MACs"),
    ],
)
def test_what_cannot_gain_is_not_quantized(job: Job, made: Analysis, reason: str) -> None:
    strategy = quantization(job, made)
    assert not strategy.strategy and reason in strategy.why
    assert not (strategy.quantize or strategy.search or strategy.train)
    assert all("int8" not in found for found in names(precisions(job, made, False)).values())


def test_a_tenth_in_int8_is_enough(job: Job) -> None:
    assert quantization(job, analysis(int8_share=0.1)).strategy


def test_the_engines_that_can_run_int8_are_named(job: Job) -> None:
    made = analysis(openvino={"precisions": ["fp32"], "int8_layers": 9}, onnxruntime={"int8_macs": 3000})
    strategy = quantization(job, made)
    assert "7 layers with 60% of the MACs can run in int8 on onnxruntime;" in reasons(strategy)["QuantPost"]
    found = names(precisions(job, made, strategy.quantize))
    assert found["openvino"] == ["fp32"] and "int8" in found["onnxruntime"]


def test_many_parameters_are_worth_it_though_they_multiply_little(job: Job) -> None:
    small = {"int8_macs": 50, "int8_parameters": 900}
    assert quantization(job, analysis(openvino=small, onnxruntime=small)).strategy


def test_a_target_without_int8_is_not_quantized(job: Job) -> None:
    target = job.target.model_copy(update={"precisions": ["fp32", "bf16"]})
    strategy = quantization(job.model_copy(update={"target": target}), analysis())
    assert not strategy.strategy and "int8 is not among the target's precisions" in strategy.why


def test_bf16_is_left_out_where_the_target_does_not_want_it(job: Job) -> None:
    target = job.target.model_copy(update={"precisions": ["fp32", "int8"]})
    assert names(precisions(job.model_copy(update={"target": target}), analysis(), True)) == {
        "openvino": ["fp32", "int8"],
        "onnxruntime": ["fp32", "int8"],
    }


def test_a_fixed_strategy_is_obeyed(job: Job) -> None:
    asked = obey(job.model_copy(update={"strategy": ["QuantPost"]}), analysis())
    assert reasons(asked) == {"QuantPost": "asked for in params.yaml"}
    assert asked.quantize and not asked.search and not asked.train
    trained = obey(job.model_copy(update={"strategy": ["QuantAware", "Distillation"]}), analysis())
    assert list(reasons(trained)) == ["QuantAware", "Distillation"]
    assert trained.quantize and trained.train and trained.train_always and not trained.search
    searched = obey(job.model_copy(update={"strategy": ["HyperParameterOptimization"]}), analysis())
    assert searched.quantize and searched.search and not searched.train
    nothing = obey(job.model_copy(update={"strategy": []}), analysis())
    assert not nothing.quantize and "no compression" in nothing.why


def test_each_engine_gets_the_precisions_it_has(job: Job) -> None:
    made = analysis(onnxruntime={"precisions": ["fp32", "int8"]})
    assert names(precisions(job, made, True)) == {
        "openvino": ["fp32", "bf16", "int8"],
        "onnxruntime": ["fp32", "int8"],
    }
    assert names(precisions(job, made, False))["onnxruntime"] == ["fp32"]
