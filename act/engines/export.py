"""The files of one candidate: the Paddle model, its ONNX twin, one for each engine, and the calibration table."""

from __future__ import annotations

import onnx

from act.engines.spec import all_specs
from act.engines.writer import Export, writer_of
from act.program.files import WEIGHTS_FILE
from act.quantization.onnx_model import quantize_onnx
from act.quantization.scheme import Scheme, left_in_float
from act.results.export import ExportedCandidate, FloatLayer

REFERENCE = "fp32"
CALIBRATION_TABLE = "calibration_table.txt"


def write(export: Export) -> ExportedCandidate:
    """Write a candidate into its folder, which must not be there yet; `RuntimeError` if a file does not compute it."""
    model, scheme, folder = export.model, export.scheme, export.folder
    folder.mkdir()
    if scheme is None:
        onnx.save(export.fp32_onnx, export.plain_onnx)
        check = {"onnx": export.checker.fp32(model, export.plain_onnx)}
    else:
        onnx.save(quantize_onnx(export.fp32_onnx, model, scheme), export.plain_onnx)
        check = export.checker.int8(model, export.simulated, scheme, export.plain_onnx)
        (folder / CALIBRATION_TABLE).write_text(calibration_table(scheme), encoding="utf-8")
    specs = [spec for spec in all_specs() if spec.default is not None or spec.name in export.engines]
    exported = {spec.name: writer_of(spec.name).export(export) for spec in specs}
    check |= {name: each.similarity for name, each in exported.items() if each.similarity is not None}
    written = {name: (each.path, each.bytes) for name, each in exported.items() if each.path is not None}
    return ExportedCandidate(
        name=export.name,
        precision="fp32" if scheme is None else "int8",
        files={name: path.relative_to(folder.parent).as_posix() for name, (path, _) in written.items()},
        bytes={name: size for name, (_, size) in written.items()},
        weight_bytes=(folder / WEIGHTS_FILE).stat().st_size,
        check={name: round(value, 6) for name, value in check.items()},
        refused={name: each.refused for name, each in exported.items() if each.refused is not None},
        elsewhere={name: each.elsewhere for name, each in exported.items() if each.elsewhere},
        left_in_float=[] if scheme is None else [FloatLayer(**row) for row in left_in_float(model, scheme)],
    )


def calibration_table(scheme: Scheme) -> str:
    """Return the text of `calibration_table.txt` as ACT wrote it: a line `tensor_name scale` an activation.

    It knows symmetric quantization only: an asymmetric range stands there with its largest absolute value.
    """
    return "".join(f"{name} {span.threshold!r}\n" for name, span in scheme.activations.items())
