"""dvc.yaml names everything that a stage's result depends on."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).parents[1]
STAGES = yaml.safe_load((CHECKOUT / "dvc.yaml").read_text())["stages"]


def imported(file: Path) -> set[Path]:
    """The files of `act` and `tasks` that a file imports, wherever in it the import stands."""
    modules = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    candidates = [CHECKOUT / name.replace(".", "/") for name in modules if name.split(".")[0] in ("act", "tasks")]
    files = [candidate.with_suffix(".py") for candidate in candidates]
    return {path for path in (*files, *(candidate / "__init__.py" for candidate in candidates)) if path.is_file()}


def closure(start: Path) -> set[Path]:
    found, ahead = set(), [start]
    while ahead:
        file = ahead.pop()
        if file not in found:
            found.add(file)
            ahead += imported(file)
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_the_code_of_a_stage_is_among_its_deps(stage: str) -> None:
    described = STAGES[stage]["do"]
    place = CHECKOUT / described["cmd"].split()[2].replace(".", "/")
    start = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
    deps = [CHECKOUT / dep for dep in described["deps"] if "$" not in dep]
    assert all(dep.exists() for dep in deps)
    missing = {
        str(file.relative_to(CHECKOUT))
        for file in closure(start)
        if file.name != "__init__.py" and not any(file == dep or dep in file.parents for dep in deps)
    }
    assert not missing


def test_no_stage_imports_another_and_the_vocabulary_imports_no_stage() -> None:
    for file in (CHECKOUT / "tasks").rglob("*.py"):
        own = file.relative_to(CHECKOUT / "tasks").parts[0]
        others = {path.relative_to(CHECKOUT / "tasks").parts[0] for path in imported(file) if "tasks" in path.parts}
        assert others <= {own, "stage.py", "__init__.py"}, file
    for file in (CHECKOUT / "act").rglob("*.py"):
        assert not [path for path in imported(file) if CHECKOUT / "tasks" in path.parents], file
