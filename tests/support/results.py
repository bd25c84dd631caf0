"""Made-up results of stages: complete, with what a test does not care about filled in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from act.results.analyze import Analysis
from act.results.export import ExportedCandidate
from act.results.prepare import Normalisation, Preparation, SampleCounts
from act.results.ptq_search import Candidate, Trial, TrialSettings
from act.results.report import JudgedBudget, JudgedVariant, Manifest, RefusedVariant, Winner
from act.results.select import Strategy
from tests.support.measured import MACHINE, noise


def settings(**changes: Any) -> TrialSettings:
    common: dict[str, Any] = {"ptq_algo": "mse", "hist_percent": None, "batch_num": 4, "activation_symmetric": False}
    common |= {"weight_quantize_type": "channel_wise_abs_max", "bias_correct": True, "float_layers": 0}
    return TrialSettings(**{**common, "quantizable_op_type": ["conv2d"], **changes})


def candidate(name: str, **changes: Any) -> Candidate:
    common: dict[str, Any] = {"id": name, "scheme": f"schemes/{name}.json", "trial": 0, "settings": settings()}
    common |= {"quality": 0.9, "drop": 0.0, "cost": 0.5, "symmetric": False, "layers": 3}
    return Candidate(**{**common, **changes})


def strategy(*names: str, **changes: Any) -> Strategy:
    common: dict[str, Any] = {"strategy": [{"name": name, "why": "a reason"} for name in names], "prune": []}
    common |= {"quantize": False, "search": False, "train": False, "train_always": False, "why": "one sentence"}
    common |= {"engine": "openvino"}
    return Strategy(**{**common, **changes})


def trial(number: int, **changes: Any) -> Trial:
    common: dict[str, Any] = {"id": number, "settings": settings(), "quality": 0.79, "beside": {}, "drop": 0.01}
    common |= {"cost": 0.3, "samples": 4, "failure": None, "seconds": 2.0}
    return Trial(**{**common, **changes})


def exported(name: str, precision: str, **changes: Any) -> ExportedCandidate:
    common: dict[str, Any] = {"name": name, "precision": precision, "files": {}, "bytes": {}, "weight_bytes": 900}
    common |= {"check": {}, "refused": {}, "elsewhere": {}, "left_in_float": []}
    return ExportedCandidate(**{**common, **changes})


NORMALISED = Normalisation(
    folded_batch_norms=6,
    removed_identities=1,
    folded_reshapes=0,
    transposed_weights=0,
    folded_scalars=0,
    largest_relative_deviation=0.0,
)


def preparation(**changes: Any) -> Preparation:
    common: dict[str, Any] = {"format": "paddle", "given": "given/model.pdmodel", "given_format": "paddle"}
    common |= {"source": {}, "batch": "free", "normalised": NORMALISED}
    common |= {
        "source": {},
        "batch": "free",
        "import_deviation": None,
        "inputs": [],
        "outputs": [],
        "constant_outputs": [],
        "normalised": NORMALISED,
    }
    return Preparation(**{**common, "samples": SampleCounts(calibration=1, evaluation=1), **changes})


def analysis(name: str = "conv2d_0", **changes: Any) -> Analysis:
    """Make the analysis of a model of two layers, one of which is called `name`."""
    costs = {"operators": 2, "layer_count": 1, "parameters": 2_000, "macs": 3_000_000}
    operator = {"name": name, "type": "conv2d", "shape": [1], "weights": [[8, 3, 3, 3]], "parameters": 10}
    operator |= {"macs": 10, "quantizable": True, "latency_share": 0.5}
    types = [
        {"type": "conv2d", "count": 2, "own": 2, "own_kinds": {"Convolution": 2}, "into": {}, "beforehand": 0},
        {"type": "relu", "count": 3, "own": 0, "own_kinds": {}, "into": {"Convolution": 2}, "beforehand": 1},
    ]
    fusion = {"operators": 5, "kernels": 4, "helpers": {"Reorder": 2}, "types": types, "kinds": []}
    engine = {
        "version": "1.2.3",
        "precisions": ["fp32", "bf16"],
        "int8_layers": 2,
        "int8_parameters": 2_000,
        "int8_macs": 3_000_000,
        "fusion": fusion,
        "multiplying": {"fp32": {"fp32": 2}, "bf16": {"bf16": 1, "fp32": 1}},
    }
    layer = {"name": name, "type": "conv2d", "channels": 16, "quantized": 0.25, "pruned": {"0.5": 1234.4}, "why": ""}
    late = {"name": "late", "type": "conv2d", "channels": 8, "quantized": None, "pruned": {}, "why": "the time was up"}
    block = {"layers": ["convolution 3x3", "convolution 3x3", "residual join"], "count": 2, "residual": True}
    common: dict[str, Any] = {
        "inputs": [],
        "outputs": [],
        "parameters": 4_000,
        "macs": 6_000_000,
        "sample_shapes": {"x": [1, 3, 48, 320]},
        "dynamic_axes": {"x": [0, 3]},
        "operators": [operator] * 5,
        "latency_source": "measured",
        "census": [{"type": "conv2d", "count": 5, "parameters": 4_000, "macs": 0}],
        "memory": {"total_bytes": 98_100_000, "peak_bytes": 2_120_000, "peak_at": name, "alive_at_peak": []},
        "structure": {
            "kind": "mixed",
            "backbone": {**costs, "stages": [{"size": [24, 96], "layers": 2, "channels": 8, "macs": 10}]},
            "blocks": [{**costs, **block, "first": "a", "last": "b"}],
            "residual_joins": ["a", "b"],
            **{key: [] for key in ("pyramid_joins", "parallel_joins", "attentions")},
            "gates": ["c"],
            "concatenations": 0,
            "heads": [{**costs, "output": name, "gives": "a vector a sample", "types": ["matmul_v2", "softmax"]}],
        },
        "engines": {"openvino": engine, "paddle_inference": {**engine, "fusion": None}},
        "sensitivity": {
            "measure": "an error",
            "samples": 8,
            "seconds": 12.3,
            "why": "1 of 2 layers were not measured",
            "layers": [late, layer],
        },
        "foldable": [{"name": name, "type": "assign", "kind": "identity", "why": "gives what it is given"}],
        "prepared": NORMALISED,
        "kernels": [],
        "machine": MACHINE,
    }
    return Analysis(**{**common, **changes})


def manifest(variants: Sequence[JudgedVariant | RefusedVariant], winner: JudgedVariant, met: bool) -> Manifest:
    """Make the manifest of a job with these variants."""
    won = Winner(
        **{name: getattr(winner, name) for name in ("engine", "name", "candidate", "precision", "speedup", "drop")},
        engine_version=winner.version,
        files=[],
        latency_ms=5.0,
        p90_ms=6.0,
        samples_per_second=None,
        streams=None,
        peak_rss_bytes=10**8,
        load_seconds=0.1,
        reference="openvino/given",
        reference_latency_ms=10.0,
        quality=0.8,
        reference_quality=0.8,
        how_to_load="",
    )
    budget = JudgedBudget(max_quality_drop=0.01, min_speedup=3.0, max_latency_ms=None, time_limit_minutes=None, met=met)
    return Manifest(
        job="mine",
        measured_at="now",
        winner=won,
        why="a reason",
        compressed=True,
        budget=budget,
        deployed_candidate="int8",
        metric="top1",
        settings={},
        machine=MACHINE,
        noise=noise(),
        variants=list(variants),
        files={},
    )
