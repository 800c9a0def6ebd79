"""The page that holds nucpro to its plan: every row names tests, and the tests are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from doc_blocks import ROOT

ROWS = [
    line
    for line in (ROOT / "docs" / "plan.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| the plan |"))
]


def functions_of(path: Path) -> set[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, functions)}


def test_every_row_names_tests_that_exist() -> None:
    assert len(ROWS) > 30
    for row in ROWS:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row.split("|")[3])
        assert named, row
        assert row.split("|")[3].count("`") == 2 * len(named), row
        for path, name in named:
            assert name in functions_of(ROOT / path), f"{path}::{name}"
