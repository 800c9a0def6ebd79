"""Makes the finished work that a release adds to ``tests/upgrade/finished``: python tests/upgrade/finish.py VERSION.

Everything is made by the commands of this version from the unfinished work in ``begun``, with untrained models: small
files of each format that later versions must read (``test_finished.py``).
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))

from hub_server import MAIN, MODEL, Hub
from nucpro.cli import main
from release_server import ReleaseServer
from serving import served

HERE = Path(__file__).parent
BEGUN = HERE / "begun"
RECORDS = (".extraction_checkpoint.json", ".extraction_selection.json")
FORMS = (".pt", ".npz", ".parquet", ".safetensors")
EXPORTS = ("npz", "parquet", "safetensors")
GENOMES = {
    f"{group}.{name}": f"{origin}.{name}"
    for group, origin in (("viral", "protozoa"), ("vertebrate_other", "vertebrate_other"))
    for name in ("1.1.genomic.fna.gz", "1.genomic.gbff.gz")
}
"""Files of a release, and those in ``begun/dataset`` that stand for them."""
TAXONOMY = b"a taxonomy"
FASTA = "data/viral.1.1.identified_protein/output_1.fa"


def run(*words: object) -> None:
    code = main([str(word) for word in words])
    if code:
        raise SystemExit(f"nucpro {' '.join(map(str, words))}: exit code {code}")


def released(work: Path) -> ReleaseServer:
    """A release of two small pairs on the loopback interface."""
    folder = work / "release"
    folder.mkdir()
    for name, origin in GENOMES.items():
        shutil.copy(work / "dataset" / origin, folder / name)
    return ReleaseServer(folder, list(GENOMES))


@contextmanager
def hub_of(work: Path) -> Iterator[Hub]:
    """A hub on the loopback interface with the model of ``begun``."""
    hub = Hub()
    hub.files = {MAIN: {path.name: path.read_bytes() for path in (work / "model").iterdir()}}
    with served(hub):
        yield hub


@contextmanager
def published(work: Path, content: bytes) -> Iterator[str]:
    """Address of a taxonomy on the loopback interface."""
    with ReleaseServer(work, []) as server:
        server.files["/pub/taxonomy/taxdump.tar.gz"] = content
        digest = hashlib.md5(content).hexdigest()
        server.files["/pub/taxonomy/taxdump.tar.gz.md5"] = f"{digest}  taxdump.tar.gz\n".encode()
        yield server.address.replace("/refseq/release", "/pub/taxonomy")


def write_proteins(folder: Path) -> Path:
    """A FASTA file of three parts on a CPU."""
    folder.mkdir()
    path = folder / "proteins.fa"
    path.write_text("".join(f">p{row}\nMKV{'LAGKE'[row % 5 :]}\n" for row in range(600)))
    return path


def stop_embedding(work: Path, target: Path, protein: Sequence[object]) -> None:
    """Kill a run of ``embed`` after its first part."""
    path, journal = write_proteins(target), target / "vectors.pt.unfinished" / "parts.jsonl"
    command = ["embed", path, "-o", target / "vectors.pt", *protein]
    process = subprocess.Popen([sys.executable, "-m", "nucpro", *map(str, command)])
    while process.poll() is None and not (journal.exists() and len(journal.read_bytes().splitlines()) > 1):
        pass
    process.kill()
    process.wait()
    path.unlink()


def finish(work: Path, target: Path) -> None:
    """Finish a copy of ``begun``, and keep what is small."""
    data, device = work / "data", ("--device", "cpu")
    protein = ("--protein-model", work / "model", *device)
    run("extract", data, *protein, "--sequences-per-file", 4, "--host-selection", "all", "--no-report")
    (target / "data").mkdir(parents=True)
    for name in RECORDS:
        shutil.copy(data / name, target / "data")
    (target / "embedded").mkdir()
    for form in FORMS:
        run("embed", work / FASTA, "-o", target / "embedded" / f"vectors{form}", *protein)
    run("embed", work / FASTA, "--per-residue", "-o", target / "residues", *protein)
    for form in EXPORTS:
        run("export", data, "--to", form, "-o", target / "exported" / form, "--sequences-per-file", 4)
    run(
        "train",
        data,
        "-o",
        target / "trained",
        *device,
        "--columns",
        "protein",
        "--epochs",
        2,
        "--split-by",
        "row",
        "--no-curves",
    )
    run(
        "train",
        data,
        "-o",
        target / "folds",
        *device,
        "--folds",
        3,
        "--epochs",
        1,
        "--split-by",
        "row",
        "--no-curves",
    )
    (target / "compared").mkdir()
    (target / "folds" / "comparison.json").rename(target / "compared" / "comparison.json")
    shutil.rmtree(target / "folds")
    stop_embedding(work, target / "unfinished", protein)
    with released(work) as server:
        run("download", target / "downloaded", "--server", server.address)
    for genome in (target / "downloaded").glob("*.gz"):
        genome.unlink()
    with published(work, TAXONOMY) as address:
        run("download", target / "taxonomy", "--taxonomy", "--taxonomy-server", address)
    with hub_of(work) as hub:
        run("fetch-models", target / "fetched", "--model", MODEL, "--endpoint", hub.address)
    for name in ("config.json", "model.safetensors"):
        (target / "fetched" / name).unlink()
    for lock in target.rglob("*.lock"):
        lock.unlink()


if __name__ == "__main__":
    # Some records name the folder.
    genomes = Path(tempfile.gettempdir(), "genomes")
    shutil.copytree(BEGUN, genomes)
    finish(genomes, genomes / "finished")
    shutil.move(genomes / "finished", HERE / "finished" / sys.argv[1])
    shutil.rmtree(genomes)
