"""Folders and commands for faults, and how many of their points a run of the tests takes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from scenarios import WHOLE, Baseline, Scenario, baseline, copied

from classifier.merged_folders import make_folder
from folders import Frame, add_source, arguments
from hub_server import MAIN, MODEL, Hub
from nucpro.genomes.catalogue import GROUPS
from release_server import ReleaseServer
from serving import served

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
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Baseline]:
    """What undisturbed runs make, by command."""
    return cache(lambda command: baseline(request.getfixturevalue(command), tmp_path_factory.mktemp(command)))


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


@pytest.fixture(scope="session")
def merged(extract: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder as extraction leaves it, for the commands that read merged files."""
    data = copied(extract.start, tmp_path_factory.mktemp("merged") / "data")
    assert extract.repeat(data) == 0
    return data


def training(*more: str) -> Callable[[Path], list[str]]:
    few = ["--epochs", "2", "--bootstrap", "20", "--device", "cpu", "--split-by", "row"]
    return lambda data: ["train", str(data), "-o", str(data / "model"), *few, *more]


@pytest.fixture(scope="session")
def train(merged: Path) -> Scenario:
    return Scenario(merged, training())


@pytest.fixture(scope="session")
def compare(frames: dict[str, list[Frame]], tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """Rows of several genomes of each class, without which models are not compared."""
    start = tmp_path_factory.mktemp("compared") / "data"
    make_folder(start, {name: found[:: len(found) // 24 + 1] for name, found in frames.items()}, 8)
    return Scenario(start, training("--compare", "--test", "0.4"))


@pytest.fixture(scope="session")
def predict(
    train: Scenario,
    frames: dict[str, list[Frame]],
    model: Path,
    dna_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Scenario:
    trained = copied(train.start, tmp_path_factory.mktemp("trained") / "data")
    assert train.repeat(trained) == 0
    start = tmp_path_factory.mktemp("contigs") / "data"
    start.mkdir()
    contigs = [
        ("".join(frame.bases for frame in frames[name][:4]), name) for name in ("viral.1.1", "bacteria.1.1")
    ]
    (start / "contigs.fasta").write_text("".join(f">{name}\n{bases}\n" for bases, name in contigs))
    with_models = ["--protein-model", str(model), "--dna-model", str(dna_model), "--device", "cpu"]
    how = ["--model", str(trained / "model"), "--length", "300", "--chunks-per-unit", "2"]
    return Scenario(
        start,
        lambda data: [
            "predict",
            str(data / "contigs.fasta"),
            "-o",
            str(data / "predicted"),
            *how,
            *with_models,
        ],
    )


@pytest.fixture(scope="session")
def evaluate(
    train: Scenario, model: Path, dna_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Scenario:
    """A trained model in a data folder that holds the genomes too."""
    start = copied(train.start, tmp_path_factory.mktemp("evaluated") / "data")
    assert train.repeat(start) == 0
    for name in ("viral", "bacteria"):
        for path in GENOMES.glob(f"{name}.*"):
            shutil.copy(path, start)
    with_models = ["--protein-model", str(model), "--dna-model", str(dna_model), "--device", "cpu"]
    how = ["--lengths", "150", "--frames-per-genome", "2", *with_models]
    return Scenario(start, lambda data: ["evaluate", str(data / "model"), *how])


@pytest.fixture(scope="session")
def export(merged: Path) -> Scenario:
    size = ["--to", "npz", "--sequences-per-file", "4"]
    return Scenario(merged, lambda data: ["export", str(data), "-o", str(data / "exported"), *size])


@pytest.fixture(scope="session")
def report(merged: Path) -> Scenario:
    return Scenario(merged, lambda data: ["report", str(data), "--sequences-per-file", "4"])


@pytest.fixture(scope="session")
def proteins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a FASTA file of three parts on a CPU."""
    start = tmp_path_factory.mktemp("proteins") / "data"
    start.mkdir()
    records = (f">p{row}\nMKV{'LAGKE'[row % 5 :]}\n" for row in range(600))
    (start / "proteins.fa").write_text("".join(records))
    return start


def _embed(start: Path, model: Path, output: str, *more: str) -> Scenario:
    return Scenario(
        start,
        lambda data: [
            *("embed", str(data / "proteins.fa"), "-o", str(data / output), *more),
            *("--protein-model", str(model), "--device", "cpu"),
        ],
    )


@pytest.fixture(scope="session")
def embed(proteins: Path, model: Path) -> Scenario:
    return _embed(proteins, model, "vectors.pt")


@pytest.fixture(scope="session")
def residues(proteins: Path, model: Path) -> Scenario:
    return _embed(proteins, model, "residues", "--per-residue")


@pytest.fixture(scope="session")
def hdf5(proteins: Path, model: Path) -> Scenario:
    pytest.importorskip("h5py", reason="the extra hdf5 is not installed")
    return _embed(proteins, model, "residues.h5", "--per-residue")


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("empty") / "data"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def download(empty: Path) -> Iterator[Scenario]:
    names = [path.name for path in GENOMES.glob("*.gz") if path.name.startswith(("viral", "plant"))]
    none = [f"--count={group}=0" for group in GROUPS if group != "plant"]
    with ReleaseServer(GENOMES, names) as server:
        how = ["--server", server.address, "--connections", "1", *none]
        yield Scenario(empty, lambda data: ["download", str(data), *how])


@pytest.fixture(scope="session")
def fetch_models(empty: Path, model: Path) -> Iterator[Scenario]:
    hub = Hub()
    hub.files = {MAIN: {path.name: path.read_bytes() for path in model.iterdir()}}
    how = ["--model", MODEL, "--endpoint", hub.address]
    with served(hub):
        yield Scenario(empty, lambda data: ["fetch-models", str(data / "model"), *how])
