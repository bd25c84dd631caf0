"""The rows of `measurements.json`, typed, for whoever selects and reports. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Plain numbers."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Failure:
    """Why a variant has no figures: a kind of `act.engines.FailureKind` and one line."""

    kind: str
    cause: str


@dataclass(frozen=True)
class Throughput:
    """Samples a second of several streams, or why there is no such figure."""

    streams: int
    per_second: float | None
    failure: Failure | None


@dataclass(frozen=True)
class ShapeFigures:
    """Latency on inputs of one shape, or why there is none.

    Attributes:
        inputs: shape of each input, batch axis first.
    """

    inputs: Mapping[str, Sequence[int]]
    median_ms: float | None
    p90_ms: float | None
    speedup: Interval | None
    failure: Failure | None


@dataclass(frozen=True)
class Figures:
    """What was measured of a variant that ran.

    Attributes:
        median_ms: latency; with `p10_ms`, `p90_ms` and `mad_ms` for its spread.
        quality: on this engine; `beside` has further figures.
        speedup: against fp32 on the same engine, or None where that failed.
        drop: quality lost against fp32 on the same engine, or None where that failed.
        load_seconds: from files to ready.
        first_ms: the very first inference.
        steady: whether the latency became steady before it was measured.
        peak_rss_bytes: largest resident memory.
        throughput: of several streams, None where none was asked for.
        shapes: every input shape that was measured, the one that `median_ms` is of first.
        operators: what the engine executes, as `act.engines.Engine.operators` gives it.
        kernels: where the time of an inference goes: `kind`, `precision`, `count` and `ms` of each group of kernels.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    mad_ms: float
    quality: float
    beside: Mapping[str, float]
    speedup: Interval | None
    drop: Interval | None
    load_seconds: float
    first_ms: float
    steady: bool
    peak_rss_bytes: int
    throughput: Throughput | None
    shapes: tuple[ShapeFigures, ...]
    operators: Mapping[str, Any]
    kernels: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class MeasuredVariant:
    """One row: a variant with either its figures or its failure.

    Attributes:
        engine: where it ran.
        name: unique within the engine, such as `int8-ptq+bf16`.
        candidate: the model that the export stage wrote.
        precision: how it ran.
        version: of the engine, when it is known.
        description: what the engine told about the loaded model.
        bytes: size of the model's files.
        path: the file or folder that was loaded.
    """

    engine: str
    name: str
    candidate: str
    precision: str
    version: str | None
    description: Mapping[str, Any]
    bytes: int | None
    path: str | None
    figures: Figures | None
    failure: Failure | None

    @property
    def is_reference(self) -> bool:
        """Whether it is the fp32 model, which all others are compared with; a pruned model may run in fp32, too."""
        return self.name == "fp32"

    @property
    def key(self) -> str:
        """`engine/name`, unique within a job."""
        return f"{self.engine}/{self.name}"


def read_rows(payload: Mapping[str, Any]) -> list[MeasuredVariant]:
    """The rows of `measurements.json`."""
    return [_row(entry) for entry in payload["variants"]]


def _row(entry: Mapping[str, Any]) -> MeasuredVariant:
    common = {
        name: entry[name]
        for name in ("engine", "name", "candidate", "precision", "version", "description", "bytes", "path")
    }
    if entry["failure"] is not None:
        return MeasuredVariant(**common, figures=None, failure=Failure(**entry["failure"]))
    latency, quality = entry["latency"], dict(entry["quality"])
    return MeasuredVariant(
        **common,
        figures=Figures(
            median_ms=latency["median_ms"],
            p10_ms=latency["p10_ms"],
            p90_ms=latency["p90_ms"],
            mad_ms=latency["mad_ms"],
            quality=quality.pop("value"),
            beside=quality,
            speedup=_interval(entry["speedup"]),
            drop=_interval(entry["drop"]),
            load_seconds=entry["load_seconds"],
            first_ms=entry["warm_up"]["first_ms"],
            steady=entry["warm_up"]["steady"],
            peak_rss_bytes=entry["peak_rss_bytes"],
            throughput=_throughput(entry["throughput"]),
            shapes=tuple(_shape(shape) for shape in entry["shapes"]),
            operators=entry["operators"],
            kernels=entry["kernels"],
        ),
        failure=None,
    )


def _throughput(entry: Mapping[str, Any] | None) -> Throughput | None:
    if entry is None:
        return None
    return Throughput(entry["streams"], entry["per_second"], _failure(entry["failure"]))


def _shape(entry: Mapping[str, Any]) -> ShapeFigures:
    latency = entry["latency"] or {}
    return ShapeFigures(
        entry["inputs"],
        latency.get("median_ms"),
        latency.get("p90_ms"),
        _interval(entry["speedup"]),
        _failure(entry["failure"]),
    )


def _failure(entry: Mapping[str, str] | None) -> Failure | None:
    return Failure(**entry) if entry is not None else None


def _interval(entry: Mapping[str, float] | None) -> Interval | None:
    return Interval(**entry) if entry is not None else None
