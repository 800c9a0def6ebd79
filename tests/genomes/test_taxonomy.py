"""What records are of: read from GenBank, kept beside a data set, and ranked by NCBI's taxonomy."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import random
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from Bio import SeqIO

from nucpro.errors import DataError, PreflightError, UsageError
from nucpro.folder.paths import DataFolder
from nucpro.genomes.dataset import build
from nucpro.genomes.download import download_taxonomy
from nucpro.genomes.flatfile import Organism
from nucpro.genomes.genbank import read_annotations
from nucpro.genomes.options import DatasetOptions, DownloadOptions
from nucpro.genomes.paths import manifest_path, organisms_path
from nucpro.genomes.reports import read_manifest, write_manifest
from nucpro.genomes.taxonomy import Taxonomy, organisms_table, read_organisms
from release_server import BREAK, ERROR, ReleaseServer

GENOMES = Path(__file__).resolve().parents[2] / "demo" / "genomes"
NODES = """\
1	|	1	|	no rank	|		|
10239	|	1	|	acellular root	|		|
28883	|	10239	|	class	|		|
10699	|	28883	|	family	|		|
186765	|	10699	|	genus	|		|
2681611	|	186765	|	species	|		|
77	|	10239	|	species	|		|
"""
NAMES = """\
186765	|	Lambdavirus	|		|	scientific name	|
186765	|	lambda-like viruses	|		|	synonym	|
10699	|	Siphoviridae	|		|	scientific name	|
"""


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    return packed(
        tmp_path / "taxdump.tar.gz",
        {"nodes.dmp": NODES, "names.dmp": NAMES, "merged.dmp": "10710\t|\t2681611\t|\n"},
    )


def tar_of(nodes: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("nodes.dmp")
        entry.size = len(nodes)
        archive.addfile(entry, io.BytesIO(nodes))
    return buffer.getvalue()


def packed(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content.encode()))
    return path


@pytest.mark.parametrize("path", sorted(GENOMES.glob("*.gbff.gz")), ids=lambda path: path.name)
def test_organisms_of_real_records_are_those_that_biopython_reads(path: Path) -> None:
    found = {annotation.record: annotation.organism for annotation in read_annotations(path)}
    with gzip.open(path, "rt") as text:
        for record in SeqIO.parse(text, "genbank"):
            source = next(feature for feature in record.features if feature.type == "source")
            (taxon,) = (
                ref.removeprefix("taxon:") for ref in source.qualifiers["db_xref"] if ref.startswith("taxon:")
            )
            assert found[record.id] == Organism(
                source.qualifiers["organism"][0], int(taxon), tuple(record.annotations["taxonomy"])
            )


RECORD = """LOCUS       NC_1                60 bp    DNA     linear   BCT 01-JAN-1970
VERSION     NC_1.3
SOURCE      x
{organism}FEATURES             Location/Qualifiers
     source          1..60
{source}ORIGIN
        1 acgtacgtac acgtacgtac acgtacgtac acgtacgtac acgtacgtac acgtacgtac
//
"""


BELOW = " " * 12
FEATURE = " " * 21


@pytest.mark.parametrize(
    ("organism", "source", "expected"),
    [
        ("", f'{FEATURE}/mol_type="DNA"\n', Organism()),
        (
            f"  ORGANISM  Some virus\n{BELOW}Viruses; A;\n{BELOW}B.\n",
            "",
            Organism("Some virus", None, ("Viruses", "A", "B")),
        ),
        (
            f"  ORGANISM  A very long name\n{BELOW}that goes on\n{BELOW}Viruses; A.\n",
            "",
            Organism("A very long name that goes on", None, ("Viruses", "A")),
        ),
        (
            f"  ORGANISM  x\n{BELOW}Viruses.\n",
            f'{FEATURE}/organism="Two\n{FEATURE}lines"\n{FEATURE}/db_xref="BOLD:1"\n{FEATURE}/db_xref="taxon:77"\n',
            Organism("Two lines", 77, ("Viruses",)),
        ),
    ],
    ids=["nothing", "no taxon", "wrapped name", "source feature"],
)
def test_organisms_in_other_layouts(organism: str, source: str, expected: Organism, tmp_path: Path) -> None:
    path = tmp_path / "x.gbff"
    path.write_text(RECORD.format(organism=organism, source=source))
    (annotation,) = read_annotations(path)
    assert annotation.organism == expected


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    organisms = {"NC_1.1": Organism("Some virus", 5, ("Viruses", "A")), "NC_2.1": Organism()}
    path = tmp_path / "organisms.tsv"
    path.write_bytes(organisms_table(organisms))
    assert path.read_text().splitlines()[0] == "record\ttaxon_id\torganism\tlineage"
    assert read_organisms(path) == organisms
    for content in ("", "record\n", "record\ttaxon_id\torganism\tlineage\nNC_1.1\tx\ty\tz\n"):
        path.write_text(content)
        with pytest.raises(DataError, match=r"organisms.tsv: is no table of organisms .*; remove it"):
            read_organisms(path)


def test_a_data_set_records_its_organisms(tmp_path: Path) -> None:
    for path in GENOMES.glob("viral*"):
        shutil.copy(path, tmp_path)
    options = DatasetOptions(300, workers=1)
    build(tmp_path, options)
    (source,) = DataFolder(tmp_path).walk_sources()
    path = organisms_path(source)
    before = path.read_bytes()
    assert read_organisms(path)["NC_001416.1"].taxon == 2681611
    # A data set that was made by a version that wrote none gets its table, and keeps all else.
    manifest = read_manifest(manifest_path(source))
    assert manifest is not None
    fasta = source.nucleotide_fasta.stat().st_mtime_ns
    path.unlink()
    kept = {kind: digest for kind, digest in manifest.outputs.items() if kind != "organisms"}
    write_manifest(manifest_path(source), replace(manifest, outputs=kept))
    assert not build(tmp_path, options).sources[0].made
    assert path.read_bytes() == before
    assert read_manifest(manifest_path(source)) == manifest
    assert source.nucleotide_fasta.stat().st_mtime_ns == fasta
    path.write_bytes(before + b"x")
    assert not build(tmp_path, options).sources[0].made
    assert path.read_bytes() == before


def test_a_table_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    for file in GENOMES.glob("viral*"):
        shutil.copy(file, tmp_path)
    path = tmp_path / "viral.1.1.organisms.tsv"
    path.write_text("mine")
    with pytest.raises(PreflightError, match=r"organisms.tsv: there is no record that nucpro wrote it"):
        build(tmp_path, DatasetOptions(300, workers=1))
    assert path.read_text() == "mine"
    build(tmp_path, DatasetOptions(300, workers=1, replace=True))
    assert read_organisms(path)


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_ranks_of_taxa(form: str, dump: Path, tmp_path: Path) -> None:
    if form == "folder":
        with tarfile.open(dump) as archive:
            # Pythons before 3.11.4 have no filters.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(tmp_path / "dump")
        dump = tmp_path / "dump"
    taxonomy = Taxonomy(dump)
    assert taxonomy.ancestor(2681611, "genus") == 186765
    assert taxonomy.ancestor(2681611, "species") == 2681611
    assert taxonomy.ancestor(10710, "family") == 10699  # merged into another
    assert taxonomy.ancestor(2681611, "order") is None
    assert taxonomy.ancestor(77, "genus") is None
    assert taxonomy.names([186765, 77]) == {186765: "Lambdavirus", 77: "taxon 77"}
    with pytest.raises(DataError, match="has no taxon 5; take a newer one"):
        taxonomy.ancestor(5, "genus")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"names.dmp": NAMES}, "holds no nodes.dmp"),
        ({"nodes.dmp": "1\t|\t1\t|\n"}, "nodes.dmp, line 1: .*, expected 3 fields"),
        ({"nodes.dmp": "x\t|\t1\t|\tno rank\t|\n"}, "holds 'x', expected a taxon"),
        ({"nodes.dmp": ""}, "holds no taxa"),
        ({"nodes.dmp": "2\t|\t3\t|\tclade\t|\t\t|\n3\t|\t2\t|\tclade\t|\t\t|\n"}, "form a circle"),
    ],
)
def test_a_dump_that_is_none(files: dict[str, str], message: str, tmp_path: Path) -> None:
    path = packed(tmp_path / "taxdump.tar.gz", files)
    with pytest.raises(DataError, match=message):
        Taxonomy(path).ancestor(2, "genus")


def test_a_dump_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"no such file; fetch NCBI's taxonomy with nucpro download DATA --taxonomy"
    ):
        Taxonomy(tmp_path / "taxdump.tar.gz")
    (tmp_path / "taxdump.tar.gz").write_bytes(b"<html>")
    with pytest.raises(DataError, match="cannot be read"):
        Taxonomy(tmp_path / "taxdump.tar.gz")


def test_the_taxonomy_is_fetched_and_verified(dump: Path, tmp_path: Path) -> None:
    content = dump.read_bytes()
    with ReleaseServer(tmp_path, []) as server:
        address = "/pub/taxonomy/taxdump.tar.gz"
        server.files[address] = content
        server.files[f"{address}.md5"] = f"{hashlib.md5(content).hexdigest()}  taxdump.tar.gz\n".encode()
        folder = server.address.replace("/refseq/release", "/pub/taxonomy")
        options = DownloadOptions(taxonomy_server=folder, attempts=2, wait_s=0.0)
        server.fault("taxdump.tar.gz", BREAK)
        assert download_taxonomy(tmp_path / "data", options)
        assert (tmp_path / "data" / "taxdump.tar.gz").read_bytes() == content
        assert not download_taxonomy(tmp_path / "data", options)
        server.files[f"{address}.md5"] = b"<html>"
        with pytest.raises(DataError, match="not an MD5 sum; check the address"):
            download_taxonomy(tmp_path / "data", options)


def test_a_taxonomy_of_somebody_else_is_not_replaced(dump: Path, tmp_path: Path) -> None:
    path, content = tmp_path / "data" / "taxdump.tar.gz", dump.read_bytes()
    path.parent.mkdir()
    with ReleaseServer(tmp_path, []) as server:
        address = "/pub/taxonomy/taxdump.tar.gz"
        folder = server.address.replace("/refseq/release", "/pub/taxonomy")
        options = DownloadOptions(taxonomy_server=folder, attempts=2, wait_s=0.0)

        def publish(content: bytes) -> None:
            server.files[address] = content
            server.files[f"{address}.md5"] = f"{hashlib.md5(content).hexdigest()}  x\n".encode()

        publish(content)
        path.write_bytes(b"mine")
        for dry_run in (True, False):
            with pytest.raises(
                PreflightError, match=r"taxdump.tar.gz: exists, and there is no record .* --replace"
            ):
                download_taxonomy(path.parent, options, dry_run=dry_run)
        assert path.read_bytes() == b"mine"
        assert list(path.parent.iterdir()) == [path]
        assert download_taxonomy(path.parent, replace(options, replace=True))
        assert path.read_bytes() == content
        # A newer one takes the place of the one that was fetched, also where a kill came between.
        publish(content + b"newer")
        server.fault("taxdump.tar.gz", ERROR, ERROR)
        with pytest.raises(DataError, match="not downloaded after 2 attempts"):
            download_taxonomy(path.parent, options)
        assert download_taxonomy(path.parent, options)
        assert path.read_bytes() == content + b"newer"


HOSTILE = {
    "xz that asks for 4 GiB": b"\x5d\xff\xff\xff\xff" + b"\xff" * 8 + bytes(100),
    "bzip2": bz2.compress(bytes(1024)),
    "gzip, damaged within": gzip.compress(random.Random(0).randbytes(5000))[:40] + b"\xff" * 60,
    "gzip, cut off": gzip.compress(bytes(10_000))[:-20],
    "gzip, damaged at its end": gzip.compress(b"x" * 10_000)[:-8] + bytes(8),
    "a taxon beyond all": tar_of(b"50000001\t|\t1\t|\tspecies\t|\n"),
    "an endless line": tar_of(b"1\t|\t1" + bytes(3 << 20)),
    "a number in other digits": tar_of("\u0663\t|\t99999999999\t|\tspecies\t|\n".encode()),
    "a tar that ends within": tar_of(b"1\t|\t1\t|\tspecies\t|\n" * 100)[:900],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_dump_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "taxdump.tar.gz"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(DataError) as caught:
        Taxonomy(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 400
