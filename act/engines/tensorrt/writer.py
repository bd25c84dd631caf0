"""The files for TensorRT: the ONNX model with QDQ operators, and the fp32 one with a calibration cache."""

from __future__ import annotations

import onnx

from act.engines.tensorrt.models import explicit, implicit
from act.engines.writer import Export, Exported, OnnxWriter
from act.program.model import InferenceModel
from act.quantization.scheme import Scheme

EXPLICIT, IMPLICIT, CACHE = "explicit.onnx", "implicit.onnx", "calibration.cache"


class TensorRtWriter(OnnxWriter):
    """Writes ONNX models for TensorRT."""

    def quantized(self, fp32: onnx.ModelProto, model: InferenceModel, scheme: Scheme) -> onnx.ModelProto:
        return explicit(fp32, model, scheme)

    def export(self, export: Export) -> Exported:
        scheme = export.scheme
        refused = self.refuse(scheme)
        if scheme is None or refused is not None:
            return refused or super().export(export)
        folder = export.folder / self.spec.name
        folder.mkdir()
        onnx.save(self.quantized(export.fp32_onnx, export.model, scheme), folder / EXPLICIT)
        similarity = export.checker.near(export.model, export.simulated, folder / EXPLICIT)
        plain, cache = implicit(export.fp32_onnx, export.model, scheme)
        onnx.save(plain, folder / IMPLICIT)
        (folder / CACHE).write_text(cache, encoding="utf-8")
        files = [export.device_file(f"GPU, {name}", folder / name) for name in (EXPLICIT, IMPLICIT, CACHE)]
        return Exported(folder / EXPLICIT, similarity, elsewhere=files)
