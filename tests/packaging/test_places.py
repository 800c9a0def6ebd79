"""CONTRIBUTING says where changes belong: the places that it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "nucpro"


def rows() -> list[str]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text[text.index("## Where a change belongs") :]
    return [line for line in section.split("\n## ")[0].splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.split("|")[1].strip())
def test_a_change_is_sent_to_places_that_exist(row: str) -> None:
    named = re.findall(r"`([^`]+)`", row.split("|")[2])
    files = [name for name in named if name.endswith((".py", ".md", "/"))]
    assert 1 <= len(files) <= 5
    code = ""
    for name in files:
        path = ROOT / name if name.endswith(".md") else PACKAGE / name
        assert path.exists(), name
        code += "".join(
            found.read_text(encoding="utf-8") for found in ([path] if path.is_file() else path.glob("*.py"))
        )
    for name in set(named) - set(files):
        assert all(re.search(rf"\b{part}\b", code) for part in name.split(".")), f"{name} is not in {files}"
