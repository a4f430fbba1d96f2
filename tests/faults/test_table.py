"""The table of faults: every row is in it, and what it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import attrs
import pytest

HERE = Path(__file__).parent
LAST = {"A": 17, "B": 23, "C": 21, "H": 15, "L": 9}


@attrs.frozen
class Row:
    """A line of the table."""

    name: str
    fault: str
    severity: int
    test: str

    @property
    def tests(self) -> list[str]:
        return re.findall(r"[\w/]+\.py::\w+", self.test)


def rows() -> list[Row]:
    lines = re.findall(
        r"^\| ([A-Z][0-9]+) \| (.+?) \| ([1-4]) \| (.+) \|$", (HERE / "README.md").read_text(), re.M
    )
    return [Row(name, fault, int(severity), test) for name, fault, severity, test in lines]


@cache
def names_in(path: Path) -> frozenset[str]:
    """Name the tests of a file."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    functions = (n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(name for name in functions if name.startswith("test_"))


def path_of(file: str) -> Path:
    return HERE.parents[1] / file if "/" in file else HERE / file


def test_every_row_is_in_the_table_once() -> None:
    """
    No fault is forgotten, and none is there twice.
    """
    expected = [f"{group}{number}" for group in LAST for number in range(1, LAST[group] + 1)]

    assert expected == [row.name for row in rows()]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
def test_every_row_has_its_tests_or_a_reason(row: Row) -> None:
    """
    The tests that a row names exist; where there is none, a sentence says why.
    """
    for test in row.tests:
        file, _, name = test.partition("::")
        assert name in names_in(path_of(file)), test
    assert row.tests or re.fullmatch(r"None: .{40,}\.", row.test)


@pytest.mark.parametrize("path", sorted(HERE.glob("test_?_*.py")), ids=lambda path: path.stem)
def test_every_test_bears_the_name_of_a_row(path: Path) -> None:
    """
    Tests begin with a row of their file's group, or the group, and the table names some of them.
    """
    group = path.name.split("_")[1]
    shown = {row.name.lower() for row in rows() if row.tests}
    beginnings = {re.sub(r"test_([a-z][0-9]*)_.*", r"\1", name) for name in names_in(path)}

    assert beginnings <= {group, *(name for name in shown if name.startswith(group))}
    assert [row for row in rows() if f"{path.name}::" in row.test]
