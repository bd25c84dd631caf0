"""ONNX's own tests of single operators (`onnx.backend.test`), run on what the importer makes of them.

`python -m benchmarks.onnx_nodes [OPERATOR ...]` prints each test that does not pass, and a table by operator. Each runs
in a process that may crash; the next goes on in another.

An input that says axes, lengths or the like is fed at run time first, as the tests have it; where the importer refuses
that, it is made a constant, which it is in models that people have, and the outcome is `constant`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

OUTCOMES = ("passed", "constant", "refused", "failed", "crashed")
_FLOATS = frozenset(("float16", "float32", "float64", "bfloat16"))


@dataclass(frozen=True)
class Outcome:
    """How a test ended.

    Attributes:
        test: its name.
        operator: the type of its node.
        outcome: one of `OUTCOMES`.
        message: what was refused, or differs.
    """

    test: str
    operator: str
    outcome: str
    message: str = ""


@cache
def cases() -> dict[str, Any]:
    """Return all tests of nodes, by name."""
    return {case.name: case for case in load_model_tests(kind="node")}


def in_scope(case: Any) -> bool:
    """Tell whether a test is of one operator of ONNX's own, in inference, and on numbers that Paddle has."""
    model = _model(case)
    nodes = model.graph.node
    if "training" in case.name or len(nodes) != 1 or nodes[0].domain not in ("", "ai.onnx"):
        return False
    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    values = (*model.graph.input, *model.graph.output)
    return (
        7 <= opset <= 24
        and all(value.type.HasField("tensor_type") for value in values)
        and all(value.type.tensor_type.elem_type in _TYPES for value in values)
    )


_TYPES = frozenset(
    getattr(onnx.TensorProto, name)
    for name in ("FLOAT", "FLOAT16", "DOUBLE", "INT8", "INT16", "INT32", "INT64", "UINT8", "BOOL")
)


def known_operators() -> set[str]:
    """Return the types of ONNX's own operators that the importer takes, or computes away."""
    from act.formats.onnx.folding import ALWAYS, CONTROL
    from act.formats.onnx.operators.registry import operators as registered

    return {kind for domain, kind in registered() if not domain} | ALWAYS | set(CONTROL)


def operators() -> dict[str, list[str]]:
    """Return the tests in scope by their operator."""
    found: dict[str, list[str]] = {}
    for name, case in cases().items():
        if in_scope(case):
            found.setdefault(_model(case).graph.node[0].op_type, []).append(name)
    return dict(sorted(found.items()))


def export(name: str) -> Outcome:
    """Tell whether what the importer makes of a test can be written as ONNX again, which every job does."""
    from act.formats.onnx.importer import import_model
    from act.formats.onnx.reading import checked
    from act.onnx_graph.conversion import to_onnx

    case = cases()[name]
    proto = onnx.ModelProto()
    proto.CopyFrom(_model(case))
    feeds = dict(zip((value.name for value in proto.graph.input), _data(case)[0][0]))
    for each in _structural(proto.graph.node[0], feeds):
        proto.graph.initializer.append(numpy_helper.from_array(feeds[each], each))
    try:
        to_onnx(import_model(checked(proto, Path(f"{name}.onnx"))))
    except Exception as error:
        return Outcome(name, proto.graph.node[0].op_type, "failed", " ".join(str(error).split())[:300])
    return Outcome(name, proto.graph.node[0].op_type, "passed")


def run(name: str) -> Outcome:
    """Run a test in this process."""
    from act.errors import InputError

    case = cases()[name]
    kind = _model(case).graph.node[0].op_type
    refusal = ""
    for outcome in ("passed", "constant"):
        try:
            wrong = "".join(_differs(case, *each, bind=outcome == "constant") for each in _data(case))
            return Outcome(name, kind, "failed" if wrong else outcome, wrong)
        except InputError as error:
            refusal = refusal or str(error)
            if "at run time" not in refusal:
                break
        except Exception as error:
            return Outcome(name, kind, "failed", f"{type(error).__name__}: {str(error)[-300:]}")
    return Outcome(name, kind, "refused", refusal)


def run_apart(names: Sequence[str], way: str = "--run") -> Iterator[Outcome]:
    """Run tests in a process of their own, and go on in another after a crash."""
    waiting = list(names)
    while waiting:
        command = [sys.executable, "-m", "benchmarks.onnx_nodes", way, *waiting]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        outcomes = [Outcome(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")]
        yield from outcomes
        waiting = waiting[len(outcomes) :]
        if waiting:
            kind = _model(cases()[waiting[0]]).graph.node[0].op_type
            yield Outcome(waiting.pop(0), kind, "crashed", f"the process ended with code {done.returncode}")


def print_table(counts: Mapping[str, Mapping[str, int]]) -> None:
    """Print how many tests of each operator had each outcome."""
    print(f"{'operator':28}" + "".join(f"{outcome:>10}" for outcome in OUTCOMES))
    for kind, found in counts.items():
        print(f"{kind:28}" + "".join(f"{found.get(outcome) or '':>10}" for outcome in OUTCOMES))


def _model(case: Any) -> onnx.ModelProto:
    return case.model if case.model is not None else onnx.load(Path(case.model_dir) / "model.onnx")


def _data(case: Any) -> list[tuple[list[Any], list[Any]]]:
    if case.data_sets is not None:
        return [(list(inputs), list(outputs)) for inputs, outputs in case.data_sets]
    found = []
    model = _model(case)
    for folder in sorted(Path(case.model_dir).glob("test_data_set_*")):
        sides = []
        for side, values in (("input", model.graph.input), ("output", model.graph.output)):
            tensors = [
                onnx.TensorProto.FromString((folder / f"{side}_{number}.pb").read_bytes())
                for number in range(len(values))
            ]
            sides.append([numpy_helper.to_array(tensor) for tensor in tensors])
        found.append((sides[0], sides[1]))
    return found


def _differs(case: Any, inputs: Sequence[Any], outputs: Sequence[Any], bind: bool) -> str:
    """Return how the outputs of a test differ from those that it names; empty where they do not."""
    from act.formats.onnx.importer import import_model
    from act.formats.onnx.reading import checked

    proto = onnx.ModelProto()
    proto.CopyFrom(_model(case))
    feeds = dict(zip((value.name for value in proto.graph.input), inputs))
    if bind:
        for name in _structural(proto.graph.node[0], feeds):
            proto.graph.initializer.append(numpy_helper.from_array(feeds.pop(name), name))
    model = import_model(checked(proto, Path(f"{case.name}.onnx")))
    got = model.run(feeds)
    wanted = [np.asarray(each) for each in outputs]
    for name, have, want in zip(model.fetch_names, got, wanted):
        have = np.asarray(have)
        if have.shape != want.shape or have.dtype != want.dtype:
            return f"output {name} is {have.dtype} {have.shape}, not {want.dtype} {want.shape}"
        loose = 5e-3 if want.dtype.name == "float16" else case.rtol
        try:
            np.testing.assert_allclose(have, want, rtol=loose, atol=max(case.atol, 1e-5))
        except AssertionError as error:
            return " ".join(str(error).split())[:300]
    model.discard()
    return ""


def _structural(node: onnx.NodeProto, feeds: dict[str, Any]) -> list[str]:
    """Return the inputs of a node, but for the first, that are small lists of whole numbers, or scales of such."""
    return [
        name
        for name in node.input[1:]
        if name in feeds
        and feeds[name].size <= 16
        and (feeds[name].ndim <= 1)
        and (
            feeds[name].dtype.name in ("int32", "int64", "bool")
            or node.op_type in ("Resize", "Upsample", "Pad", "Clip", "Dropout", "OneHot", "NonMaxSuppression")
        )
    ]


def main() -> None:
    """Parse the command line, run the tests and print what came of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.onnx_nodes", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="operators (default: all in the importer's scope)")
    parser.add_argument("--run", action="store_true", help="the names are tests; run them here, one line of JSON each")
    parser.add_argument("--export", action="store_true", help="the same for what is written as ONNX again")
    parser.add_argument("--onward", action="store_true", help="tell what cannot be written as ONNX again instead")
    parser.add_argument("--all", action="store_true", help="operators that nobody imports, too")
    arguments = parser.parse_args()
    if arguments.run or arguments.export:
        for name in arguments.names:
            print(json.dumps(vars(run(name) if arguments.run else export(name))), flush=True)
        return
    scope = known_operators()
    tests = {
        kind: names
        for kind, names in operators().items()
        if (kind in arguments.names if arguments.names else arguments.all or kind in scope)
    }
    found: dict[str, Counter[str]] = {kind: Counter() for kind in tests}
    for each in run_apart(
        [name for names in tests.values() for name in names], "--export" if arguments.onward else "--run"
    ):
        found[each.operator][each.outcome] += 1
        if each.outcome not in ("passed", "constant"):
            print(f"{each.outcome:8} {each.test}: {each.message}")
    print()
    print_table({**found, "all": sum(found.values(), Counter())})


if __name__ == "__main__":
    main()
