"""Rows of a made-up measurement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from act.results.benchmark import FailedVariant, Measurements, Noise, RanVariant, Variant
from act.results.export import Failure
from act.results.machine import Machine

MACHINE = Machine(
    cpu="a CPU",
    cores=2,
    capabilities=["avx512_vnni"],
    memory_bytes=10**9,
    system="Linux",
    python="3.10",
    packages={"openvino": "1"},
)


def entry(
    engine: str,
    name: str,
    milliseconds: float,
    quality: float,
    fp32: tuple[float, float] | None = (10.0, 0.8),
    size: int = 1000,
    **changes: Any,
) -> RanVariant:
    """Make a variant that ran; `fp32` has the latency and quality of fp32 on its engine, None when that failed."""
    known = {"fp32": "fp32", "given": "fp32", "bf16": "bf16", "pruned": "fp32", "pruned+bf16": "bf16"}
    precision = known.get(name, "int8+bf16" if name.endswith("+bf16") else "int8")
    speedup = drop = None
    if fp32 is not None:
        ratio, lost = fp32[0] / milliseconds, fp32[1] - quality
        speedup = {"value": ratio, "low": 0.97 * ratio, "high": 1.03 * ratio}
        drop = {"value": lost, "low": lost - 0.004, "high": lost + 0.004}
    latency = {
        "median_ms": milliseconds,
        "p10_ms": 0.9 * milliseconds,
        "p90_ms": 1.2 * milliseconds,
        "mad_ms": 0.02 * milliseconds,
        "iqr_ms": 0.04 * milliseconds,
        "runs": 120,
    }
    fields: dict[str, Any] = {
        "engine": engine,
        "name": name,
        "candidate": "fp32" if name in ("fp32", "bf16") else name.removesuffix("+bf16"),
        "is_reference": name == "fp32" and engine == "openvino",
        "precision": precision,
        "bytes": size,
        "path": "fp32/model.onnx",
        "version": "1.2.3",
        "description": {},
        "load_seconds": 0.1,
        "failure": None,
        "latency": latency,
        "warm_up": {"runs": 20, "seconds": 0.2, "first_ms": 3 * milliseconds, "steady": True},
        "throughput": {
            "streams": 2,
            "per_second": 1500 / milliseconds,
            "slowest": 1400 / milliseconds,
            "fastest": 1600 / milliseconds,
            "failure": None,
        },
        "operators": {
            "multiplying": {"int8": {"Conv": 30}, "fp32": {"MatMul": 2}}
            if "int8" in precision
            else {"fp32": {"Conv": 32}},
            "conversions": {"QuantizeLinear": 4} if "int8" in precision else {},
        },
        "kernels": [
            {
                "kind": "Convolution",
                "precision": "u8" if "int8" in precision else "f32",
                "count": 32,
                "ms": milliseconds / 2,
            },
            {"kind": "Reorder", "precision": "f32", "count": 3, "ms": milliseconds / 8},
        ],
        "shapes": [{"inputs": {"x": [1, 3, 48, 320]}, "latency": latency, "speedup": speedup, "failure": None}],
        "peak_rss_bytes": 10**8,
        "speedup": speedup,
        "quality": {"value": quality},
        "drop": drop,
    }
    return RanVariant(**{**fields, **changes})


def failed(engine: str, name: str, kind: str, cause: str) -> FailedVariant:
    """Make a variant that did not run."""
    row = entry(engine, name, 1.0, 0.0)
    kept = {field: getattr(row, field) for field in (*Variant.model_fields, "version", "description")}
    return FailedVariant(**kept, load_seconds=None, failure=Failure(kind=kind, cause=cause))


def noise(noisy: bool = False, cause: str | None = None) -> Noise:
    return Noise(noisy=noisy, cause=cause, limit=0.1, unsteadiness=0.0, by_engine={}, cores_used_by_others=0.0)


def measurements(variants: Sequence[RanVariant | FailedVariant], **changes: Any) -> Measurements:
    fields: dict[str, Any] = {"job": "demo", "metric": "top1", "target": {}, "benchmark": {}, "measured_at": "now"}
    fields |= {"evaluation_samples": 512, "machine": MACHINE, "noise": noise(), "variants": list(variants)}
    return Measurements(**{**fields, **changes})
