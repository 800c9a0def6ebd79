"""What a newcomer reads and types first: the README and the demo; tests/docs types the README's code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_readme_shows_the_two_commands_first() -> None:
    first_screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:20])
    assert first_screen.index("make demo") < first_screen.index("make test")


def test_the_readme_names_every_module() -> None:
    tree = (ROOT / "README.md").read_text()
    for path in (ROOT / "src" / "nucpro").iterdir():
        if path.name.startswith("__") or path.name == "py.typed":
            continue
        assert path.name in tree, f"{path.name} has no line in the README's tree"


def test_the_demo_goes_from_genomes_to_validated_files(tmp_path: Path) -> None:
    code = f"import sys, pathlib, run; run.TARGET = pathlib.Path({str(tmp_path)!r}) / 'demo'; sys.exit(run.main())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "demo")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Validation passed: 14 files, 280 sequences, all dimensions correct") == 2
    lines = done.stdout.splitlines()
    assert len(lines) < 50, "two screens"
    report, table, plot, *_ = (
        line.split()[1] for line in lines[lines.index("Results, and where to look first:") + 1 :]
    )
    assert Path(report).name == "report.html"
    assert Path(table).name == "sequences.tsv"
    assert Path(plot).suffix == ".png"
    assert all(Path(path).is_file() for path in (report, table, plot))
    assert "UNTRAINED" in lines[-1]
