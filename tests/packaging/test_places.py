"""CONTRIBUTING says where changes belong: the places that it names exist, and are few."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "nucpro"
REQUESTS = 9


def answers() -> list[str]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text[text.index("## Where a change belongs") :].split("\n## ")[0]
    return section.split("\n- **")[1:]


def defined_in(path: Path) -> Iterator[str]:
    """Names of functions, classes and variables of a module; those of a class as ``Class.name`` too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for parent in ast.walk(tree):
        for node in ast.iter_child_nodes(parent):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.append(node.name)
            yield from names
            if isinstance(parent, ast.ClassDef):
                yield from (f"{parent.name}.{name}" for name in names)


def test_every_request_has_an_answer() -> None:
    assert len(answers()) == REQUESTS
    assert all(len(answer.strip().splitlines()) == 2 for answer in answers())


@pytest.mark.parametrize("answer", answers(), ids=lambda answer: answer.split(".**")[0])
def test_a_change_is_sent_to_places_that_exist(answer: str) -> None:
    named = set(re.findall(r"`([^`]+)`", answer.split("**")[1]))
    files = {name for name in named if name.endswith((".py", ".md", "/"))}
    assert 1 <= len(files) <= 5
    defined: set[str] = set()
    for name in files:
        path = ROOT / name if name.endswith(".md") else PACKAGE / name
        assert path.exists(), name
        if path.suffix == ".py":
            defined |= set(defined_in(path))
    code = {name for name in named - files if not name.startswith("--")}
    assert code <= defined, f"{code - defined} is not in {files}"
