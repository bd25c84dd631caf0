"""Writing a candidate the way an engine wants it, and measuring its quality there.

The search, the training and the export all need both, and quality on the engine that will run the model is what
counts: two engines may round the same int8 model differently.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx

from act.engines import onnx_writer as writers
from act.engines.base import RuntimePrecision
from act.engines.int8_operators import INT8_OPERATORS
from act.engines.paddle_inference import writer as paddle_cpu
from act.engines.paddle_lite.program import for_lite
from act.engines.process import EngineProcess
from act.metrics import Quality, needs_reference
from act.onnx_graph.conversion import to_onnx
from act.program.model import InferenceModel
from act.quantization.onnx_model import quantize_onnx
from act.quantization.quantized_program import quantize
from act.quantization.scheme import Scheme, without_others
from act.settings import EngineName, Job, Metric

ONNX_FILE = "model.onnx"
READS_ONNX: tuple[EngineName, ...] = ("openvino", "onnxruntime")


def write_for_engine(
    engine: EngineName,
    model: InferenceModel,
    scheme: Scheme | None,
    folder: Path,
    fp32_onnx: onnx.ModelProto | None = None,
) -> Path:
    """Write an fp32 model (`scheme` is None) or its int8 form into an empty folder.

    Args:
        scheme: layers that the engine cannot run in int8 stay in float.
        fp32_onnx: `to_onnx(model)`, when the caller has it already.

    Returns:
        The file or folder that the engine loads.
    """
    if engine == "paddle_inference":
        (model if scheme is None else paddle_cpu.write(model, scheme)).save(folder)
        return folder
    if scheme is not None:
        scheme = without_others(model, scheme, INT8_OPERATORS[engine])
    if engine == "paddle_lite":
        for_lite(model if scheme is None else quantize(model, scheme)).save(folder)
        return folder
    converted = fp32_onnx or to_onnx(model)
    if scheme is not None:
        converted = write_int8_onnx(engine, converted, model, scheme)
    onnx.save(converted, folder / ONNX_FILE)
    return folder / ONNX_FILE


def write_int8_onnx(
    engine: EngineName, fp32: onnx.ModelProto, model: InferenceModel, scheme: Scheme
) -> onnx.ModelProto:
    """The int8 ONNX model as the engine wants it; as the quantized program is, where the scheme knows its layers only.

    Args:
        fp32: what `to_onnx` made of `model`.
    """
    if engine in writers.RULES and scheme.further:
        return writers.write(engine, fp32, model, scheme)
    return quantize_onnx(fp32, model, scheme)


@dataclass(frozen=True)
class Evaluation:
    """How quality is measured in one job.

    Attributes:
        engine: where the model runs.
        metric: what is measured.
        samples: folder of the evaluation samples.
        reference: folder of the fp32 outputs, for a metric that needs them.
        batch: samples at a time.
        threads: threads of the engine.
        time_limit_seconds: after which the engine counts as hung.
    """

    engine: EngineName
    metric: Metric
    samples: Path
    reference: Path | None
    batch: int = 1
    threads: int = 1
    time_limit_seconds: float = 600

    @classmethod
    def of(cls, job: Job, prepared: Path) -> Evaluation:
        """How a job is measured: on the first engine of its target, which is the one that decides.

        Args:
            job: its settings.
            prepared: the folder that `prepare` left.
        """
        reference = prepared / "reference" if needs_reference(job.metric) else None
        return cls(job.target.engines[0], job.metric, prepared / "evaluation", reference, threads=job.target.threads)

    def quality(
        self, model: InferenceModel, scheme: Scheme | None, fp32_onnx: onnx.ModelProto | None = None
    ) -> Quality:
        """The quality of the fp32 model (`scheme` is None) or of its int8 form.

        Raises:
            EngineFailure: the engine crashed, hung, or cannot run the model.
        """
        with tempfile.TemporaryDirectory() as name:
            path = write_for_engine(self.engine, model, scheme, Path(name), fp32_onnx)
            return self.quality_of(path, "fp32" if scheme is None else "int8")

    def quality_of(self, path: Path, precision: RuntimePrecision, count: int | None = None) -> Quality:
        """The quality of a model that was written before, on the first `count` samples or on all.

        Raises:
            EngineFailure: as `quality`.
        """
        with EngineProcess(self.engine, path, precision, self.threads, self.time_limit_seconds) as process:
            process.load()
            return process.quality(self.samples, self.metric, self.reference, count, self.batch)
