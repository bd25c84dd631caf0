"""Tables of measurements: written, gone on with, packed, damaged, from elsewhere."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from act.errors import InputError
from act.strategy.latency.model import Measured
from act.strategy.latency.table import Header, Row, Table, file_name, find_table
from tests.support.latency import networks

HEADER = Header("openvino", "1.2", "A CPU", ("amx_int8",))


@pytest.fixture
def table(tmp_path: Path) -> Table:
    table = Table.open(tmp_path / "tables" / file_name(HEADER), HEADER)
    for measured in networks(3):
        precision = measured.kernels[0][0].computes_in
        table.add(Row(precision, 1, measured))
    table.add(Row("bf16", 1, Measured("network 0", 0.0, []), "unsupported: no bf16 here"))
    table.note(1, [0.01, -0.02])
    return table


def test_a_table_reads_as_it_was_written(table: Table) -> None:
    found = Table.read(table.path)
    assert found.header == HEADER and found.noted == {1: [0.01, -0.02]} and found.threads == [1]
    assert [row.key for row in found.rows] == [row.key for row in table.rows]
    for one, other in zip(found.measured(1), table.measured(1)):
        assert one.seconds == pytest.approx(other.seconds, abs=1e-8)
        assert [kernel for kernel, _ in one.kernels] == [kernel for kernel, _ in other.kernels]
    assert len(found.measured(1)) == 6


def test_a_packed_table_is_found_for_its_machine(table: Table) -> None:
    folder = table.path.parent
    packed = folder / f"{table.path.name}.gz"
    packed.write_bytes(gzip.compress(table.path.read_bytes()))
    table.path.unlink()
    found = find_table(HEADER, folder)
    assert found is not None and len(found.rows) == 7
    assert find_table(replace(HEADER, cpu="Another"), folder) is None
    with pytest.raises(InputError, match="nothing is added to a packed table; unpack it"):
        Table.open(packed, HEADER)


def test_what_a_kill_cut_off_is_written_anew(table: Table) -> None:
    whole = table.path.read_text()
    table.path.write_text(whole[:-30])
    assert len(Table.read(table.path).rows) == 7
    again = Table.open(table.path, HEADER)
    again.note(1, [0.5])
    assert Table.read(table.path).noted == {1: [0.5]}


@pytest.mark.parametrize("name", ["engine", "version", "cpu", "capabilities"])
def test_a_table_of_elsewhere_is_refused(table: Table, name: str) -> None:
    changes: dict[str, Any] = {name: ("x",) if name == "capabilities" else "x"}
    other = replace(HEADER, **changes)
    with pytest.raises(InputError, match=f"measured with {name}"):
        Table.open(table.path, other)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda lines: [], "empty"),
        (lambda lines: ["{}", *lines[1:]], "line 1"),
        (lambda lines: [lines[0].replace('"schema_version": 2', '"schema_version": 9')], "line 1 tells format 9"),
        (lambda lines: ['{"schema_version": 9, "another": "field"}', *lines[1:]], "line 1 tells format 9"),
        (lambda lines: [lines[0], "nonsense", *lines[1:]], "line 2 is damaged"),
        (lambda lines: [lines[0], json.dumps({**json.loads(lines[1]), "microseconds": -1}), ""], "line 2 is damaged"),
        (lambda lines: [lines[0], json.dumps({**json.loads(lines[1]), "kernels": [{}]}), ""], "line 2 is damaged"),
    ],
)
def test_damage_is_told_by_line(table: Table, damage: object, reason: str) -> None:
    assert callable(damage)
    table.path.write_text("\n".join(damage(table.path.read_text().split("\n"))))
    with pytest.raises(InputError, match=reason):
        Table.read(table.path)


def test_what_was_not_measured_is_not_there(table: Table) -> None:
    assert table.measured(4) == []
    with pytest.raises(InputError, match="no such table"):
        Table.read(table.path.with_name("other.jsonl"))
