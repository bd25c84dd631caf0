"""A folder with a job on the user's own model and arrays, in which stages run."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from act.program.model import InferenceModel
from tests.support.commands import run_module
from tests.support.models import CLASSIFIER, first_layers, noise

CHECKOUT = Path(__file__).parents[2]
JOB: dict[str, Any] = {
    "model": {"path": "model"},
    "data": {"reader": "arrays", "path": "data"},
    "metric": "top1",
    "target": {},
    "budget": {},
    "strategy": "auto",
    "calibration": {},
    "ptq_search": {},
    "refine": {},
    "distillation": {},
    "prune": {},
    "qat": {},
    "benchmark": {},
}


class Place:
    """The classifier with two samples for calibration and three, labelled, for evaluation; `job` may be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.job: dict[str, Any] = {**JOB}
        (folder / "model").mkdir()
        for file in CLASSIFIER.glob("inference.pd*"):
            if file.suffix in (".pdmodel", ".pdiparams"):
                shutil.copy(file, folder / "model")
        (folder / "data").mkdir()
        np.savez(folder / "data" / "calibration.npz", x=noise(2))
        np.savez(folder / "data" / "evaluation.npz", x=noise(3, seed=1), label=np.array([0, 1, 0]))
        shutil.copytree(CHECKOUT / "examples", folder / "examples")

    def shorten(self, layers: int) -> None:
        """Take the classifier's first layers only, for stages whose time goes with the square of their number."""
        shutil.rmtree(self.folder / "model")
        (self.folder / "model").mkdir()
        first_layers(InferenceModel.load(CLASSIFIER), layers).save(self.folder / "model")

    def write(self) -> None:
        """Write the settings."""
        (self.folder / "params.yaml").write_text(yaml.safe_dump({"jobs": {"mine": self.job}}))

    def run(self, stage: str = "prepare") -> subprocess.CompletedProcess[str]:
        """Run a stage in this process."""
        self.write()
        return run_module(f"tasks.{stage}.__main__", ["--job", "mine"], self.folder)

    def files(self) -> dict[str, str]:
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.name != "params.yaml"
        }
