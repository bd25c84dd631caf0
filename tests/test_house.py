"""dvc.yaml names everything that a stage's result depends on, and nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from act import registry

CHECKOUT = Path(__file__).parents[1]
STAGES: dict[str, Any] = {
    name: stage["do"] for name, stage in yaml.safe_load((CHECKOUT / "dvc.yaml").read_text())["stages"].items()
}
# Where a word that an entry is called by means something else.
SAME_WORDS = {
    "act/engines/check.py": {"paddle", "onnx", "similarity"},  # what an engine reads; a figure of the check
    "act/engines/spec.py": {"paddle", "onnx"},
    "act/engines/writer.py": {"onnx"},
    "act/engines/paddle_inference/writer.py": {"avg"},  # pooling, as in the two below
    "act/formats/onnx/operators/pooling.py": {"avg"},
    "act/formats/onnx/operators/sampling.py": {"avg"},
    "act/timing/infer/measure.py": {"onnx"},
    "act/timing/infer/models.py": {"paddle", "onnx"},
    "flows/auto_compression.py": {"function"},  # a setting of a metric
    "act/program/blocks.py": {"tokens"},  # that a transformer works on, as below
    "act/strategy/profile/networks.py": {"tokens"},
    "act/quantization/weights.py": {"abs_max"},  # scales of weights, as in the three below
    "act/search/space.py": {"abs_max"},
    "act/settings/quantization.py": {"abs_max"},
    "act/paddleslim/sections.py": {"abs_max"},
}
# First words that are no verbs.
NO_VERB = re.compile(
    r"(?i)(an?|the|all|an?other|any|both|each|every|everything|no|one|our|their|these|this|that|two|three|its?|they|"
    r"what|whatever|when|where|whether|which|who|why|how|as|at|by|for|from|if|in|of|on|only|so|there|with|without)$"
)
KINDS = [kind for kind in vars(registry).values() if isinstance(kind, registry.Registry)]


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


@cache
def modules_named(file: Path) -> set[str]:
    """Return the modules that a file imports from, wherever in it that stands."""
    named = set()
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            named.add(node.module)
    return named


def packages(file: Path) -> set[str]:
    """Return the packages that a file imports from."""
    return {module.partition(".")[0] for module in modules_named(file)}


@cache
def imported(file: Path) -> set[Path]:
    """Return the files of `act` and `tasks` that a file imports, wherever in it that stands, with their packages.

    Where the room of a registry loads entries, all of them are imported; others look at them, and run none.
    """
    modules = loaded(file)
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    parts = [name.split(".") for name in modules if name.split(".")[0] in ("act", "tasks")]
    names = {"/".join(each[:length]) for each in parts for length in range(1, len(each) + 1)}
    files = [CHECKOUT / f"{name}.py" for name in names] + [CHECKOUT / name / "__init__.py" for name in names]
    return {path for path in files if path.is_file() and not _is_empty(path)}


def loaded(file: Path) -> set[str]:
    """Return the entries of every registry of its room that a file loads entries of."""
    found = set()
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Attribute) and node.attr in ("load", "load_all"):
            name = getattr(node.value, "id", getattr(node.value, "attr", ""))
            kind = getattr(registry, name, None)
            if isinstance(kind, registry.Registry) and is_in(file, CHECKOUT / "act" / kind.package.split(".")[1]):
                found |= {f"{kind.package}.{entry}" for entry in kind.names()}
    return found


def _is_empty(file: Path) -> bool:
    """Tell whether nothing but a docstring is in a file."""
    body = tree_of(file).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


def closure(start: Path) -> set[Path]:
    found, ahead = set(), [start]
    while ahead:
        file = ahead.pop()
        if file not in found:
            found.add(file)
            ahead += imported(file)
    return found


def code(stage: str) -> list[Path]:
    """Return the code among a stage's deps."""
    return [CHECKOUT / dep for dep in STAGES[stage]["deps"] if dep.startswith(("act/", "tasks/"))]


@cache
def uses(stage: str) -> set[Path]:
    """Return what a stage's entry imports, itself included."""
    return closure(CHECKOUT / STAGES[stage]["cmd"].split()[2].replace(".", "/") / "__main__.py")


@cache
def used_places(stage: str) -> set[Path]:
    """Return what a stage's entry imports, with the folders that hold it."""
    return {place for file in uses(stage) for place in (file, *file.parents)}


def is_in(file: Path, place: Path) -> bool:
    return file == place or place in file.parents


@pytest.mark.parametrize("stage", STAGES)
def test_the_deps_of_a_stage_are_the_rooms_that_make_its_result(stage: str) -> None:
    used = uses(stage)
    missing = [file for file in used if not any(is_in(file, dep) for dep in code(stage))]
    assert not missing, f"dvc.yaml: give the stage {stage} a dep for {names(missing)}"
    needless = [dep for dep in code(stage) if not any(is_in(file, dep) for file in used)]
    assert not needless, f"dvc.yaml: the stage {stage} imports nothing of its deps {names(needless)}; remove them"


def test_a_stage_that_loads_entries_of_a_registry_follows_the_versions_of_plug_ins() -> None:
    for stage in STAGES:
        follows = "artifacts/${key}/plugins.json" in STAGES[stage]["deps"]
        assert follows == any(loaded(file) for file in uses(stage)), stage


def test_the_stages_stand_in_an_order_in_which_they_can_run() -> None:
    made: set[str] = set()
    for stage, told in STAGES.items():
        missing = {dep for dep in told["deps"] if dep.startswith("artifacts/")} - made
        assert not missing, (stage, missing)
        made.update(told["outs"])
        # DVC lets nobody write what another stage reads: two jobs that run side by side must have nothing in common.
        assert all("${key}" in out for out in told["outs"]), stage


@pytest.mark.parametrize("room", sorted({path.relative_to(CHECKOUT).parts[1] for path in CHECKOUT.glob("act/**/*.py")}))
def test_a_changed_module_redoes_only_what_its_room_makes(room: str) -> None:
    """For each module: the stages that depend on it are those that import its room, or the part that they name."""
    place = CHECKOUT / "act" / room
    for module in [place] if place.is_file() else place.rglob("*.py"):
        for stage in STAGES:
            deps = [dep for dep in code(stage) if is_in(module, dep)]
            assert len(deps) <= 1, f"{stage} names {names(deps)}, one inside the other"
            part = deps[0] if deps else module
            assert bool(deps) == (part in used_places(stage)), (stage, module)


def names(paths: Iterable[Path]) -> str:
    return ", ".join(sorted(str(path.relative_to(CHECKOUT)) for path in paths))


def test_no_stage_imports_another_and_the_vocabulary_imports_no_stage() -> None:
    for file in (CHECKOUT / "tasks").rglob("*.py"):
        own = file.relative_to(CHECKOUT / "tasks").parts[0]
        others = {path.relative_to(CHECKOUT / "tasks").parts[0] for path in imported(file) if "tasks" in path.parts}
        assert others <= {own, "stage.py", "__init__.py"}, file
    for file in (CHECKOUT / "act").rglob("*.py"):
        assert not [path for path in imported(file) if CHECKOUT / "tasks" in path.parents], file


@cache
def spelt_out(file: Path) -> set[str]:
    """Return the strings that a file compares with, looks up, or has as keys or as choices (`Literal`)."""
    places: list[ast.AST] = []
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Compare):
            places += [node.left, *node.comparators]
        elif isinstance(node, ast.Dict):
            places += [key for key in node.keys if key is not None]
        elif isinstance(node, ast.Subscript):
            places.append(node.slice)
        elif isinstance(node, ast.MatchValue):
            places.append(node.value)
    parts = [each for place in places for each in getattr(place, "elts", [place])]
    return {part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.package)
def test_nobody_outside_its_room_asks_for_an_entry_by_name(kind: registry.Registry) -> None:
    room = CHECKOUT.joinpath(*kind.package.split("."))
    for file in (file for top in ("act", "tasks", "flows") for file in (CHECKOUT / top).rglob("*.py")):
        foreign = {name for name in kind.names() if not is_in(file, room / name if kind.folders_only else room)}
        foreign -= SAME_WORDS.get(str(file.relative_to(CHECKOUT)), set())
        assert not (found := spelt_out(file) & foreign), (file, found)


def test_the_library_knows_neither_prefect_nor_dvc() -> None:
    for file in (CHECKOUT / "act").rglob("*.py"):
        assert not {name.partition("_")[0] for name in packages(file)} & {"prefect", "dvc"}, file


def test_paddle_is_imported_where_it_is_dealt_with() -> None:
    rooms = ("act/program/", "act/training/", "act/formats/", "act/engines/paddle_")
    # What a user of the class gives are Paddle's own objects.
    others = {"flows/auto_compression.py"}
    for file in (path for folder in ("act", "tasks", "flows") for path in (CHECKOUT / folder).rglob("*.py")):
        name = str(file.relative_to(CHECKOUT))
        found = packages(file) | ({"act.program.paddle_setup"} & modules_named(file))
        if not name.startswith(rooms) and name not in others:
            assert not found & {"paddle", "paddleslim", "act.program.paddle_setup"}, name


@pytest.mark.parametrize("folder", ["act", "benchmarks", "flows", "tasks", "tests/support"])
def test_docstrings_of_functions_begin_with_a_verb(folder: str) -> None:
    """A property may say what it is."""
    for file in (CHECKOUT / folder).rglob("*.py"):
        for node in ast.walk(tree_of(file)):
            if isinstance(node, ast.FunctionDef) and (text := ast.get_docstring(node)) and not is_property(node):
                word = text.split(maxsplit=1)[0].rstrip(",;:.")
                third_person = word.endswith("s") and not word.endswith("ss")
                assert word[0].isupper() and not NO_VERB.match(word) and not third_person, (file, node.name, text)


def is_property(function: ast.FunctionDef) -> bool:
    return any(ast.unparse(each).endswith("property") for each in function.decorator_list)
