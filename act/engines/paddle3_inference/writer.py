"""Paddle 3 reads the programs that are written for Paddle Inference, which each candidate has."""

from act.engines.paddle_inference.writer import PaddleInferenceWriter
from act.engines.writer import Export, Exported


class Paddle3InferenceWriter(PaddleInferenceWriter):
    """Names the Paddle program that stands for the candidate without any engine."""

    def export(self, export: Export) -> Exported:
        return Exported(export.folder)
