"""A workspace of its own for the real pipeline: a copy of the checkout with one small job."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml
from dvc.repo import Repo

CHECKOUT = Path(__file__).parents[2]
JOB = "classifier"


class Workspace:
    """A copy of the checkout, with its own git and DVC, in which stages and flows are run as a user runs them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder),
            "DVC_NO_ANALYTICS": "1",
        }

    @classmethod
    def of_checkout(cls, folder: Path) -> Workspace:
        """Copy what git has or would add, without results."""
        for name in cls._git_files():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, target)
        for command in (
            ["init", "-q"],
            ["add", "-A"],
            ["-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "-qm", "copy"],
        ):
            subprocess.run(["git", *command], cwd=folder, check=True)
        return cls(folder)

    def copy(self, folder: Path) -> Workspace:
        """Copy all that is here into another one, DVC's cache too."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Workspace(folder)

    def forget(self, stages: Collection[str]) -> None:
        """Remove the results of some stages of the job, and what DVC knows of them."""
        lock = yaml.safe_load((self.folder / "dvc.lock").read_text())
        for stage in stages:
            for out in lock["stages"].pop(f"{stage}@{JOB}")["outs"]:
                path = self.folder / out["path"]
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        (self.folder / "dvc.lock").write_text(yaml.safe_dump(lock))
        shutil.rmtree(self.folder / ".dvc" / "cache" / "runs")

    @staticmethod
    def _git_files() -> list[str]:
        command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
        names = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout
        return [name for name in names.split("\0") if name and name != "dvc.lock" and (CHECKOUT / name).is_file()]

    def run(self, *arguments: str, timeout: float = 540) -> subprocess.CompletedProcess[str]:
        """Run `python ARGUMENTS` here."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def stale(self) -> set[str]:
        """Return the stages that DVC would run, asked in this process: to start one takes longer."""
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            with Repo() as repo:
                return set(repo.status())
        finally:
            os.chdir(before)

    def change(self, path: str, value: Any) -> None:
        """Set one key of params.yaml, named like `jobs.classifier.budget.max_quality_drop`."""
        file = self.folder / "params.yaml"
        params = yaml.safe_load(file.read_text())
        section = params
        *parents, last = path.split(".")
        for parent in parents:
            section = section[parent]
        section[last] = value
        file.write_text(yaml.safe_dump(params))

    def read(self, name: str) -> Any:
        """Read a JSON file of the workspace."""
        return json.loads((self.folder / name).read_text())


def small_workspace(folder: Path) -> Workspace:
    """Make a workspace whose only job is the classifier with few samples and few trials."""
    workspace = Workspace.of_checkout(folder)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    job = params["jobs"][JOB]
    job["data"].update(calibration=16, evaluation=32)
    job["target"].update(engines=["openvino", "onnxruntime"], precisions=["fp32", "int8"])
    job["analyze"] = {"time_limit_seconds": 1}
    job["calibration"] = {"batch_num": [2]}
    job["ptq_search"] = {"ptq_algo": ["abs_max", "hist", "mse"], "hist_percent": [0.9999], "max_quant_count": 6}
    job["refine"] = {"steps": 2, "methods": ["layer_wise"], "candidates": 1}
    job["benchmark"] = {"rounds": 3, "runs_per_round": 4, "seconds": 0}
    (folder / "params.yaml").write_text(yaml.safe_dump({"jobs": {JOB: job}}))
    return workspace
