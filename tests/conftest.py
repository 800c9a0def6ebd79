"""Options, surroundings and folders that all tests share, and what the end of a run says of skipped tests."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
KEPT = re.compile(r"PATH|LD_LIBRARY_PATH|TMPDIR|LANG|LC_\w+|(CUDA|NVIDIA|PYTEST|COV)\w*")
"""Variables that tests keep: what programs, devices and the tests' own tools need."""

# Tests, and what they start, find nothing of a user's: no settings, caches, models, clusters. Tests that tests start
# keep what these give them.
HOME = ROOT / "build" / "home"
if os.environ.get("HOME") != str(HOME):
    for name in [name for name in os.environ if not KEPT.fullmatch(name)]:
        del os.environ[name]
    os.environ["HOME"] = str(HOME)
    # Where the folders of tests lie, and one that torch makes when it is imported.
    os.environ["PYTEST_DEBUG_TEMPROOT"] = str(ROOT / "build")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(HOME / "torch")
HOME.mkdir(parents=True, exist_ok=True)
# Before torch: runs in this process and started ones then give equal bytes.
os.environ["OMP_NUM_THREADS"] = "1"

# A shell has what it starts in the background ignore interrupts, and nohup the end of a terminal, which would pass to
# all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

import dna_stand_ins
import stand_ins
from folders import Frame, add_dna, add_source, arguments, copied, read_frames
from nucpro.cli import main
from nucpro.folder.paths import DataFolder
from nucpro.genomes.dataset import build
from nucpro.genomes.options import DatasetOptions

GENOMES = ROOT / "demo" / "genomes"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--real-data",
        default=None,
        metavar="FOLDER",
        help="folder with real weights and genomes (esm2_8m, dnabert_s, refseq_mini); "
        "without it their tests are skipped",
    )
    parser.addoption(
        "--faults",
        default="some",
        choices=("some", "all"),
        help="how many of the faults in tests/faults are tried: a fast selection, or all of them",
    )
    parser.addoption(
        "--packaging",
        default="some",
        choices=("some", "all"),
        help="all: install the wheel with each extra alone, from the package index into empty environments",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "points(fast, whole): number of points of a run that a fault strikes at (tests/faults)"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in a line for each reason how many tests were skipped; reasons say what brings the tests."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports)
    if reasons:
        terminalreporter.section("skipped tests", sep="=")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:4}: {reason}")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name compressed content by its argument: its bytes hold the time, and workers must find equal names."""
    return argname if isinstance(val, bytes) and not val.isascii() else None


@pytest.fixture(scope="session")
def real_data(request: pytest.FixtureRequest) -> Path:
    folder = request.config.getoption("--real-data")
    if folder is None:
        pytest.skip(
            "needs real weights and genomes (make test REAL_DATA=FOLDER, or pytest --real-data=FOLDER)"
        )
    return Path(folder)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub of models, here and in started programs."""
    # Imported before the variable is set: it would remember it for all later tests.
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def frames(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Frame]]:
    """Reading frames of the demo's genomes, by source."""
    data = tmp_path_factory.mktemp("genomes")
    for pattern in ("viral*", "bacteria*", "vertebrate_mammalian*", "invertebrate*"):
        for path in GENOMES.glob(pattern):
            shutil.copy(path, data)
    build(data, DatasetOptions(length=300, workers=1))
    return {source.name: read_frames(source) for source in DataFolder(data).walk_sources()}


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained protein model of a small width."""
    return stand_ins.make_checkpoint(tmp_path_factory.mktemp("models") / "tiny", width=16, layers=1, heads=2)


@pytest.fixture(scope="session")
def dna_model(tmp_path_factory: pytest.TempPathFactory, frames: dict[str, list[Frame]]) -> Path:
    """An untrained DNA model of the real width, with a tokenizer trained on real frames."""
    folder = tmp_path_factory.mktemp("models") / "tiny_dna"
    dna_stand_ins.make_dna_checkpoint(folder, layers=1, feed_forward_width=64)
    dna_stand_ins.train_tokenizer(folder, (frame.bases for frame in frames["viral.1.1"]))
    return folder


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory, frames: dict[str, list[Frame]]) -> Path:
    """A data folder with everything a run needs: 3 viral and 3 host files of 4 sequences, some outdated."""
    data = tmp_path_factory.mktemp("pristine") / "data"
    data.mkdir()
    viral = add_source(data, "viral.1.1", frames["viral.1.1"][:13])
    bacteria = add_source(data, "bacteria.1.1", frames["bacteria.1.1"][:9])
    invertebrate = add_source(data, "invertebrate.1.1", frames["invertebrate.1.1"][:6])
    for source, numbers in ((viral, (1, 2, 3)), (bacteria, (1, 2)), (invertebrate, (1,))):
        add_dna(source, numbers)
    old = viral.pair(2)
    ids = [frame.name for frame in frames["viral.1.1"][4:8]]
    stand_ins.write_old_protein(old.protein_vectors, ids)
    stand_ins.write_old_merged(old.merged, ids, 1)
    return data


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, pristine: Path, model: Path) -> Path:
    """The pristine folder after an undisturbed run of the command; tests that change it take a copy."""
    data = copied(pristine, tmp_path_factory.mktemp("finished") / "data")
    assert main(["extract", *arguments(data, model)]) == 0
    return data


@pytest.fixture
def data(tmp_path: Path, pristine: Path) -> Path:
    """A copy of the pristine folder that a test may change."""
    return copied(pristine, tmp_path / "data")
