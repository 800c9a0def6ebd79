"""Folders and commands for faults, and how many of their points a run of the tests takes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from scenarios import WHOLE, Baseline, Scenario, baseline

from folders import Frame, add_source, arguments

GENOMES = Path(__file__).resolve().parents[2] / "demo" / "genomes"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Spread ``@pytest.mark.points(fast, whole)`` over the parameters ``part`` and ``parts``."""
    marker = metafunc.definition.get_closest_marker("points")
    if marker is not None:
        fast, whole = marker.args
        parts = whole if metafunc.config.getoption("--faults") == "all" else fast
        none = pytest.param(0, whole, marks=pytest.mark.skip(reason=WHOLE), id="none")
        points = [(part, parts) for part in range(parts)] or [none]
        metafunc.parametrize(("part", "parts"), points)


@pytest.fixture(scope="session")
def whole(request: pytest.FixtureRequest) -> bool:
    """Whether all cases are asked for, not only the fast selection."""
    return request.config.getoption("--faults") == "all"


@pytest.fixture(scope="session")
def extract(pristine: Path, model: Path) -> Scenario:
    return Scenario(pristine, lambda data: ["extract", *arguments(data, model)])


@pytest.fixture(scope="session")
def embed_dna(
    tmp_path_factory: pytest.TempPathFactory, frames: dict[str, list[Frame]], dna_model: Path
) -> Scenario:
    """No vectors yet, and one source that is not split."""
    start = tmp_path_factory.mktemp("bare") / "data"
    start.mkdir()
    add_source(start, "viral.1.1", frames["viral.1.1"][:8], split=False)
    add_source(start, "bacteria.1.1", frames["bacteria.1.1"][:8])
    more = ["--dna-model", str(dna_model), "--device", "cpu", "--sequences-per-file", "4"]
    return Scenario(start, lambda data: ["embed-dna", str(data), *more])


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    start = tmp_path_factory.mktemp("genomes") / "data"
    start.mkdir()
    for pattern in ("bacteria*", "protozoa*", "vertebrate_mammalian*"):
        for path in GENOMES.glob(pattern):
            shutil.copy(path, start)
    return Scenario(start, lambda data: ["dataset", str(data), "--length", "300", "--processes", "1"])


@pytest.fixture(scope="session")
def split(tmp_path_factory: pytest.TempPathFactory, frames: dict[str, list[Frame]]) -> Scenario:
    start = tmp_path_factory.mktemp("unsplit") / "data"
    start.mkdir()
    for name in ("viral.1.1", "bacteria.1.1"):
        add_source(start, name, frames[name][:9], split=False)
    return Scenario(start, lambda data: ["split", str(data), "--sequences-per-file", "4"])


@pytest.fixture(scope="session")
def extracting(extract: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    return baseline(extract, tmp_path_factory.mktemp("extracting"))


@pytest.fixture(scope="session")
def embedding(embed_dna: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    return baseline(embed_dna, tmp_path_factory.mktemp("embedding"))


@pytest.fixture(scope="session")
def building(dataset: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    return baseline(dataset, tmp_path_factory.mktemp("building"))


@pytest.fixture(scope="session")
def splitting(split: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    return baseline(split, tmp_path_factory.mktemp("splitting"))
