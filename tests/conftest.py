"""Options and folders that all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--real-data",
        default=None,
        metavar="FOLDER",
        help="folder with real weights and genomes (esm2_8m, dnabert_s, refseq_mini); without it their tests are skipped",
    )


@pytest.fixture(scope="session")
def real_data(request: pytest.FixtureRequest) -> Path:
    folder = request.config.getoption("--real-data")
    if folder is None:
        pytest.skip("needs --real-data, a folder with real weights and genomes")
    return Path(folder)
