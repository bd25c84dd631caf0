"""The quality of a candidate on the engine that will run it, for two may round the same model differently."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from act.engines.agreement import check_as_given
from act.engines.base import RuntimePrecision
from act.engines.process import EngineFailure, EngineProcess
from act.engines.spec import spec_of
from act.metrics import Quality, needs_reference
from act.settings import EngineName, Job, Metric
from act.tail.files import SavedTail

log = logging.getLogger(__name__)

if TYPE_CHECKING:  # workers that measure trials import this, and need no Paddle
    import onnx

    from act.program.model import InferenceModel
    from act.quantization.scheme import Scheme


@dataclass(frozen=True)
class Evaluation:
    """How quality is measured in one job."""

    engine: EngineName
    metric: Metric
    samples: Path  # folder of the evaluation samples
    reference: Path | None  # folder of the fp32 outputs, for a metric that needs them
    tail: Path | None = None  # folder of the tail, for a metric that judges the outputs behind it
    whole: tuple[int, ...] = ()  # numbers of these outputs that have no batch axis
    threads: int = 1
    time_limit_seconds: float = 600  # after which the engine counts as hung

    @classmethod
    def of(cls, job: Job, prepared: Path, engine: EngineName) -> Evaluation:
        """Return how a job is measured on the engine that decides, on what `prepare` left."""
        reference = prepared / "reference" if needs_reference(job.metric) else None
        found = cls(engine, job.metric, prepared / "evaluation", reference, threads=job.target.threads)
        # A comparison with fp32 is made ahead of the tail, where what is lost does not hang on what is chosen.
        if reference is None and (prepared / "tail").exists():
            tail = SavedTail.read(prepared / "tail")
            return replace(found, tail=tail.folder, whole=tuple(tail.description.whole))
        return found

    def quality(
        self, model: InferenceModel, scheme: Scheme | None, fp32_onnx: onnx.ModelProto | None = None
    ) -> Quality:
        """Measure the quality of the fp32 model (`scheme` is None) or of its int8 form; may raise `EngineFailure`."""
        with tempfile.TemporaryDirectory() as name:
            path = self.write(model, scheme, Path(name), fp32_onnx)
            with self.process(path, "fp32" if scheme is None else "int8") as process:
                process.load()
                return self.quality_on(process)

    def quality_as_given(self, prepared: Path, given: str, form: str, expected: Path) -> Quality | None:
        """Measure the quality of the user's own quantized model.

        None where the engine does not open it, fails, or computes something else than the model's own runtime.

        Args:
            prepared: what `prepare` left.
            given: the model's place below that.
            form: its format.
            expected: folder of its own runtime's outputs on the first samples.
        """
        spec = spec_of(self.engine)
        if form not in spec.opens:
            return None
        whole = body = prepared / given
        if (prepared / "tail").exists():
            body = prepared / "tail" / SavedTail.read(prepared / "tail").description.given
        loaded = [path if spec.reads_onnx else path.parent for path in (body, body if self.tail is None else whole)]
        try:
            with self.process(loaded[0], "int8") as process:
                process.load()
                check_as_given(process, self.samples, expected)
                process.load(loaded[1])
                return self.quality_on(process)
        except EngineFailure as failure:
            log.info(f"{spec.title} does not stand for the given model: {failure.cause}")
            return None

    def write(
        self, model: InferenceModel, scheme: Scheme | None, folder: Path, fp32_onnx: onnx.ModelProto | None = None
    ) -> Path:
        """Write what is judged into an empty folder, with the tail where the metric asks for it; return what loads."""
        from act.engines.writer import writer_of

        path = writer_of(self.engine).write(model, scheme, folder, fp32_onnx)
        if self.tail is not None:
            SavedTail.read(self.tail).put_back(path, path)
        return path

    def process(self, path: Path, precision: RuntimePrecision) -> EngineProcess:
        """Return the engine for a model that was written before."""
        return EngineProcess(self.engine, path, precision, self.threads, self.time_limit_seconds)

    def quality_on(self, process: EngineProcess, count: int | None = None) -> Quality:
        """Measure the quality of what an engine has loaded, on the first so many samples or on all."""
        return process.quality(self.samples, self.metric, self.reference, count, whole=self.whole)
