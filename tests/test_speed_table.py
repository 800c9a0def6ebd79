"""The speed tables of the README and the documentation say what the committed results say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.speed_table import README, RESULTS, SPEED_PAGE, speed_section, with_table, with_tables


@pytest.mark.parametrize("page", [README, SPEED_PAGE], ids=lambda page: page.name)
def test_the_tables_of_a_page_are_what_the_results_make(page: Path) -> None:
    assert with_tables(page, RESULTS) == page.read_text(), "run python benchmarks/speed_table.py"


def test_another_result_makes_another_table(tmp_path: Path) -> None:
    for path in RESULTS.glob("*.json"):
        shutil.copy(path, tmp_path)
    path = tmp_path / "gpu_extract_h100.json"
    result = json.loads(path.read_text())
    result["speed"]["100"]["sequences_per_s"] = 98_765.4
    path.write_text(json.dumps(result))
    section = speed_section(tmp_path)
    assert "| GPU, proteins of 100 residues | 98,765 sequences/s |" in section
    assert section != speed_section(RESULTS)


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    text = "before\n<!-- speed -->\nold\n<!-- /speed -->\nafter\n"
    assert with_table(text, "speed", "table\n") == text.replace("old", "table")


@pytest.mark.parametrize("text", ["nothing", "<!-- speed --> alone", "<!-- /speed --> <!-- speed -->"])
def test_a_page_without_markers_is_refused(text: str) -> None:
    with pytest.raises(SystemExit, match="needs <!-- speed --> and after it <!-- /speed -->; put them where"):
        with_table(text, "speed", "table\n")
