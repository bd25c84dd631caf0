"""Damaged and hostile files of Paddle 3 end with one line."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from act.errors import InputError
from act.formats import SourceModel
from tests.formats.paddle3.support import Net, imported, tensor, values


def small() -> Net:
    net = Net()
    weight = net.parameter("w", values((6, 3)))
    net.parameter("a", np.arange(4, dtype=np.int64))
    x = net.data("x", [-1, 6])
    result = net.op("matmul", [x, weight], [tensor([-1, 3])], transpose_x=False, transpose_y=False)
    net.fetch(result, tensor([-1, 3]))
    return net


def test_a_folder_or_a_file_is_told_by_its_content(tmp_path: Path) -> None:
    file = small().save(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("{}")
    for path in (tmp_path / "model", file):
        source = SourceModel.find(path)
        assert (source.format, [each.name for each in source.files]) == (
            "paddle3",
            ["inference.json", "inference.pdiparams"],
        )
    model = SourceModel.find(file).load()
    np.testing.assert_allclose(model.weight("w"), values((6, 3)))
    # One that nothing reads is not kept.
    assert model.weight_names() == ["w"]
    with pytest.raises(InputError, match="no model of a known format"):
        SourceModel.find(tmp_path / "model" / "config.json")


def test_several_programs_are_to_be_named(tmp_path: Path) -> None:
    file = small().save(tmp_path)
    (tmp_path / "other.json").write_bytes(file.read_bytes())
    with pytest.raises(InputError, match=r"several models in this folder \(inference\.json, other\.json\)"):
        SourceModel.find(tmp_path)
    assert SourceModel.find(tmp_path, "inference.json", "inference.pdiparams").files[0] == file
    with pytest.raises(InputError, match=r"nothing\.pdiparams: no such file"):
        SourceModel.find(tmp_path, "inference.json", "nothing.pdiparams")


def ops(document: Any) -> Any:
    return document["program"]["regions"][0]["blocks"][0]["ops"]


def set_at(*path: Any) -> Callable[[Any], None]:
    """Return what replaces the value at a path by the last of the arguments."""

    def change(document: Any) -> None:
        place = document
        for key in path[:-2]:
            place = place[key]
        place[path[-2]] = path[-1]

    return change


def set_op(*path: Any) -> Callable[[Any], None]:
    """Return the same, below the operations."""
    return lambda document: set_at(*path)(ops(document))


DAMAGED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no version": (lambda document: document.update(base_code={"magic": "pir"}), "not a Paddle 3 program"),
    "a newer version": (set_at("base_code", "version", 99), "is of version 99"),
    "no program": (lambda document: document.pop("program"), "not a Paddle 3 program"),
    "no operations": (lambda document: ops(document).clear(), "no inference program of one block"),
    "a number as an operation": (set_op(3, 7), r"operation 3 \(without a name\) is damaged"),
    "no operands": (lambda document: ops(document)[3].pop("I"), r"operation 3 \(pd_op\.matmul\) is damaged"),
    "a text as a number": (set_op(3, "I", 0, "%", "one"), r"operation 3 \(pd_op\.matmul\) is damaged"),
    "a value nobody gives": (set_op(3, "I", 0, "%", 77), "reads value 77, which nothing before it gives"),
    "itself": (set_op(3, "I", 0, "%", 4), "reads value 4, which nothing before it gives"),
    "a value twice": (set_op(3, "O", 0, "%", 3), "gives a value that another gives"),
    "a gigantic shape": (set_op(3, "O", 0, "TT", "D", 1, [2**40, 2**40]), "which no memory holds"),
    "a gigantic parameter": (set_op(0, "O", "TT", "D", 1, [2**20, 2**20]), "which no memory holds"),
    "a parameter of any length": (set_op(0, "O", "TT", "D", 1, [-1, 3]), r"operation 0 \(p\) is damaged"),
    "a parameter without a name": (set_op(0, "A", []), r"operation 0 \(p\) is damaged"),
    "another dtype": (set_op(3, "O", 0, "TT", "D", 0, {"#": "0.t_c64"}), "gives a tensor of c64"),
    "a sparse tensor": (set_op(3, "O", 0, "TT", {"#": "1.t_sparse_coo", "D": []}), "and not a tensor"),
    "an unknown attribute": (set_op(3, "A", 0, "AT", "#", "0.a_new"), "an attribute of type 0.a_new"),
    "a text as a truth": (set_op(3, "A", 0, "AT", "D", "no"), r"operation 3 \(pd_op\.matmul\) is damaged"),
    "a feed like a weight": (set_op(2, "A", 0, "AT", "D", "w"), "have the same name"),
    "a kept name": (set_op(2, "A", 0, "AT", "D", "feed"), "keep for themselves"),
    "no outputs": (lambda document: ops(document).pop(), "it has no outputs"),
    "two weights of one name": (set_op(1, "A", 3, "w"), "two of its parameters have the same name"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_program_ends_with_one_line(case: str, tmp_path: Path) -> None:
    change, message = DAMAGED[case]
    document = json.loads(small().save(tmp_path).read_text())
    change(document)
    (tmp_path / "inference.json").write_text(json.dumps(document))
    refused(tmp_path, message)


def test_a_text_that_is_no_program_ends_with_one_line(tmp_path: Path) -> None:
    file = small().save(tmp_path)
    text = file.read_text()
    deep = text.replace('"args": []', f'"args": {"[" * 200_000}{"]" * 200_000}')
    for damaged, message in ((text[:-9], "damaged"), (deep, "nested deeper"), (text + "}", "damaged")):
        file.write_text(damaged)
        refused(tmp_path, message)
    file.write_bytes(text.encode().replace(b'"DA"', b'"\xff"'))
    refused(tmp_path, "damaged")


def test_weights_that_do_not_fit_end_with_one_line(tmp_path: Path) -> None:
    file = small().save(tmp_path).with_suffix(".pdiparams")
    whole = file.read_bytes()
    gigantic = whole[:16] + struct.pack("<i", 2**31 - 1) + whole[20:]
    for damaged, message in (
        (whole[:-1], "weight `w` is cut off"),
        (whole[:10], "weight `a` is cut off"),
        (whole + b"more", "longer than inference.json asks for"),
        (gigantic, "weight `a` is cut off or damaged"),
        (b"", "weight `a` is cut off"),
    ):
        file.write_bytes(damaged)
        refused(tmp_path, message)
    other = small()
    other.weights["w"] = values((3, 6))
    other.save(tmp_path)
    refused(tmp_path, "weight `w` does not fit inference.json")
    file.unlink()
    refused(tmp_path, "no file with their values lies beside it")


def test_a_program_that_crashes_paddle_ends_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = small().save(tmp_path)
    crashing = tmp_path / "python"
    crashing.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crashing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(crashing))
    with pytest.raises(InputError, match=r"inference\.json: Paddle 2\.6 ends with code -11"):
        SourceModel.find(file).load()


def test_what_is_refused_in_the_other_process_is_one_line(tmp_path: Path) -> None:
    file = small().save(tmp_path)
    file.with_suffix(".pdiparams").write_bytes(b"")
    with pytest.raises(InputError, match="^.*inference.pdiparams: weight `a` is cut off or damaged"):
        SourceModel.find(file).load()


def refused(folder: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        imported(folder)
    assert "\n" not in str(error.value)
