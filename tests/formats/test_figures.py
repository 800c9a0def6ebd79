"""Figures: drawn by Agg whatever the surroundings ask for, and never worth what they show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nucpro.formats.figures import can_draw, draw

DRAW = """
import logging, os, sys
from pathlib import Path
logging.basicConfig(format="%(message)s")
from nucpro.formats.figures import draw
def fill(figure):
    figure.subplots().plot([0, 1], [1, 0], label="$x")
print(draw(Path(sys.argv[1]), (2, 2), fill, 50), os.environ.get("MPLBACKEND"))
"""


def drawn(folder: Path, **variables: str) -> tuple[str, bytes]:
    path = folder / "figure.png"
    done = subprocess.run(
        [sys.executable, "-c", DRAW, path],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **variables},
    )
    return done.stdout + done.stderr, path.read_bytes() if path.exists() else b""


@pytest.mark.parametrize(
    "backend",
    [
        "module://matplotlib_inline.backend_inline",
        "module://nowhere",
        "TkAgg",
        "nbAgg",
        "",
        "pdf",
        "Qt5Agg",
        "junk",
    ],
)
def test_the_backend_of_a_notebook_changes_nothing(tmp_path: Path, backend: str) -> None:
    said, picture = drawn(tmp_path, MPLBACKEND=backend)
    assert said == f"True {backend}\n"
    assert picture == drawn(tmp_path)[1]


@pytest.mark.parametrize(
    "setting", ["text.usetex: True", "backend: TkAgg", "figure.figsize: 30, 30", "savefig.format: pdf"]
)
def test_settings_of_the_user_change_nothing(tmp_path: Path, setting: str) -> None:
    (tmp_path / "matplotlibrc").write_text(setting)
    assert drawn(tmp_path, MATPLOTLIBRC=str(tmp_path / "matplotlibrc"))[1] == drawn(tmp_path)[1]


def test_a_folder_of_settings_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said, picture = drawn(tmp_path, MPLCONFIGDIR=str(tmp_path / "file" / "below"))
    assert said.startswith("True None\n")
    assert picture


def test_a_picture_that_fails_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert can_draw()
    path = tmp_path / "figure.png"
    path.write_bytes(b"older")

    def fill(figure: object) -> None:
        raise OSError("no font")

    assert not draw(path, (2, 2), fill)
    assert f"{path}: cannot be drawn (OSError: no font); all else is written" in caplog.text
    assert not path.exists()
