"""What is read from GenBank records, and what is said about files that cannot be read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import gb_io
import pytest
from annotated_genomes import DEMO, Gene, Genome, gene, write_genbank
from hypothesis import given, settings
from hypothesis import strategies as st

from nucpro.errors import DataError
from nucpro.genomes.genbank import Annotation, read_annotations
from nucpro.genomes.proteins import Absence, ProteinStore

RECORD = b"""LOCUS       NC_1                60 bp    DNA     circular BCT 01-JAN-1970
DEFINITION  made for a test.
ACCESSION   NC_1 NC_2
VERSION     NC_1.3  GI:1234
FEATURES             Location/Qualifiers
     CDS             join(50..60,1..20)
                     /note="a ""quoted"" word"
                     /translation="MAAAAK
                     LLLV"
ORIGIN
        1 acgtacgtac acgtacgtac acgtacgtac acgtacgtac acgtacgtac acgtacgtac
//
"""


def read(folder: Path, content: bytes) -> list[Annotation]:
    path = folder / "a.genomic.gbff.gz"
    path.write_bytes(gzip.compress(content))
    return list(read_annotations(path))


def annotate(folder: Path, genome: Genome) -> Annotation:
    path = folder / "a.genomic.gbff.gz"
    write_genbank(path, [genome])
    (annotation,) = read_annotations(path)
    return annotation


def test_wrapped_translations_and_old_version_lines(tmp_path: Path) -> None:
    (annotation,) = read(tmp_path, RECORD)
    assert annotation == Annotation("NC_1.3", {1: ["MAAAAKLLLV"]}, cds=1, across_origin=1)


@pytest.mark.parametrize(
    ("change", "name"),
    [((b"VERSION     NC_1.3  GI:1234\n", b""), "NC_1"), ((b"NC_1.3  GI:1234", b"NC_9.1"), "NC_9.1")],
)
def test_names_of_records(tmp_path: Path, change: tuple[bytes, bytes], name: str) -> None:
    (annotation,) = read(tmp_path, RECORD.replace(*change))
    assert annotation.record == name


def test_a_record_that_only_refers_to_its_contigs(tmp_path: Path) -> None:
    start, end = RECORD.index(b"ORIGIN"), RECORD.index(b"//")
    (annotation,) = read(tmp_path, RECORD[:start] + b"CONTIG      join(J1.1:1..60)\n" + RECORD[end:])
    assert annotation.proteins == {1: ["MAAAAKLLLV"]}
    assert annotation.across_origin == 1


def test_translations_by_genetic_code(tmp_path: Path) -> None:
    genes = [
        gene("MA"),
        gene("MB", transl_table="2"),
        gene("MC", transl_table="2"),
        gene("MD", transl_table="11"),
    ]
    annotation = annotate(tmp_path, Genome("A.1", "ACGT", genes))
    assert annotation.proteins == {1: ["MA"], 2: ["MB", "MC"], 11: ["MD"]}
    assert (annotation.cds, annotation.without_translation, annotation.of_unknown_code) == (4, 0, 0)


@pytest.mark.parametrize("number", ["0", "99", "two", "-1", ""])
def test_codes_that_ncbi_does_not_list_count_as_standard(tmp_path: Path, number: str) -> None:
    annotation = annotate(tmp_path, Genome("A.1", "ACGT", [gene("MA", transl_table=number)]))
    assert annotation.proteins == {1: ["MA"]}
    assert annotation.of_unknown_code == 1


def test_cds_without_translation_are_counted(tmp_path: Path) -> None:
    genes = [gene(None, pseudo=""), gene(""), Gene(gb_io.Range(0, 3), {"translation": None}), gene("MA")]
    annotation = annotate(tmp_path, Genome("A.1", "ACGT", genes))
    assert (annotation.cds, annotation.without_translation) == (4, 3)
    assert annotation.proteins == {1: ["MA"]}


R, C, J = gb_io.Range, gb_io.Complement, gb_io.Join


@pytest.mark.parametrize(
    ("location", "crosses"),
    [
        (J([R(50, 60), R(0, 20)]), True),
        (C(J([R(50, 60), R(0, 20)])), True),
        (J([C(R(0, 20)), C(R(50, 60))]), True),
        (J([R(10, 20), R(40, 60), R(0, 5)]), True),
        (R(0, 60), False),
        (C(R(0, 60)), False),
        (J([R(0, 20), R(40, 60)]), False),
        (C(J([R(0, 20), R(40, 60)])), False),
        (J([C(R(40, 60)), C(R(0, 20))]), False),
        (J([R(50, 59), R(0, 20)]), False),
        (J([R(50, 60), gb_io.External("J1.1", R(0, 20))]), False),
        (J([R(50, 60), C(R(0, 20))]), False),
    ],
    ids=str,
)
def test_joins_across_the_origin_are_counted(tmp_path: Path, location: gb_io.Location, crosses: bool) -> None:
    annotation = annotate(
        tmp_path, Genome("A.1", "A" * 60, [Gene(location, {"translation": "MA"})], circular=True)
    )
    assert annotation.across_origin == crosses
    assert annotation.proteins == {1: ["MA"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"junk", r"holds no record \(no line starts with LOCUS\)"),
        (b"", "is empty; genomes without annotation give no reading frames"),
        (b"\n \n", "is empty"),
        (
            RECORD + RECORD[:300],
            r"record 2 \(NC_1.3\), line 19: .*MAAAA.* fits neither|record 2 .*the file ends before",
        ),
        (
            RECORD.replace(b"60 bp", b"61 bp"),
            r"record 1 \(NC_1.3\), line 12: 60 bases, but LOCUS \(line 1\) promises 61",
        ),
        (
            RECORD.replace(b"MAAAAK", b"MA\xff\xfeK"),
            "the translation of the CDS in line 6 holds .*, which is no residue",
        ),
        (RECORD + b">a\nACGT\n", "record 2, line 13: expected LOCUS or the end of the file, found '>a'"),
        (
            RECORD.replace(b"//\n", b"") * 2,
            r"record 1 \(NC_1.3\), line 12: a record begins before // ended this one",
        ),
    ],
)
def test_files_in_another_format_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, content)


def test_a_record_without_any_name_is_refused(tmp_path: Path) -> None:
    nameless = RECORD.replace(b"VERSION     NC_1.3  GI:1234\n", b"").replace(b"ACCESSION   NC_1 NC_2\n", b"")
    (annotation,) = read(tmp_path, nameless)
    assert annotation.record == "NC_1"
    with pytest.raises(DataError, match="record 2 has no VERSION, ACCESSION or name; give it one"):
        read(tmp_path, RECORD + nameless.replace(b"NC_1 ", b"     "))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(RECORD) + b"junk", "is no gzip stream"),
        (gzip.compress(RECORD * 500)[:-9], "is truncated"),
        (gzip.compress(RECORD)[:40] + b"\0" * 20 + gzip.compress(RECORD)[60:], "is damaged"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.genomic.gbff.gz"
    path.write_bytes(content)
    with pytest.raises(
        DataError,
        match=rf"a\.genomic\.gbff\.gz: .*gzip stream \d+.* {message}.*copy or download the file again",
    ):
        list(read_annotations(path))


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress, gzip.compress, bytes])
def test_packed_text_is_read_as_everywhere(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "a.genomic.gbff.gz"
    path.write_bytes(pack(RECORD) + pack(RECORD))
    assert len(list(read_annotations(path))) == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        list(read_annotations(tmp_path / "a.genomic.gbff.gz"))


@given(st.lists(st.tuples(st.integers(0, 3 * len(RECORD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=60)
def test_changed_bytes_give_an_error_or_records(changes: list[tuple[int, int]]) -> None:
    content = bytearray(RECORD * 3)
    for position, byte in changes:
        content[position] = byte
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.genomic.gbff.gz"
        path.write_bytes(gzip.compress(content))
        found: list[Annotation] = []
        with suppress(DataError):
            found.extend(read_annotations(path))
        assert len(found) <= 3


def annotations() -> list[Annotation]:
    return [annotation for path in sorted(DEMO.glob("*.gbff.gz")) for annotation in read_annotations(path)]


def test_real_records_have_the_proteins_that_are_known() -> None:
    found = annotations()
    assert len(found) == 15
    assert sum(len(proteins) for record in found for proteins in record.proteins.values()) == 357
    assert {record.record for record in found if 2 in record.proteins} == {"NC_012920.1"}
    assert {record.record: record.across_origin for record in found if record.across_origin} == {
        "NC_001422.1": 3
    }


def test_the_store_gives_proteins_in_any_order() -> None:
    store, found = ProteinStore(io.BytesIO()), annotations()
    assert all(store.add(annotation) for annotation in found)
    for annotation in reversed(found):
        proteins = store.get(annotation.record)
        assert not isinstance(proteins, Absence)
        # Equal proteins are kept once.
        expected = {
            code: "\n".join(dict.fromkeys(texts)).encode() for code, texts in annotation.proteins.items()
        }
        assert proteins == expected


def test_the_later_of_two_records_stays() -> None:
    store = ProteinStore(io.BytesIO())
    assert store.add(Annotation("A.1", {1: ["MA"]}, cds=1))
    assert not store.add(Annotation("A.1", {4: ["MB", "MC", "MB"]}, cds=3))
    assert store.get("A.1") == {4: b"MB\nMC"}


@pytest.mark.parametrize(
    ("record", "absence"),
    [
        ("B.1", Absence.UNKNOWN),
        ("A.2", Absence.OTHER_VERSION),
        ("A", Absence.OTHER_VERSION),
        ("N.1", Absence.WITHOUT_CDS),
        ("P.1", Absence.WITHOUT_TRANSLATION),
    ],
)
def test_the_store_says_why_there_are_no_proteins(record: str, absence: Absence) -> None:
    store = ProteinStore(io.BytesIO())
    store.add(Annotation("A.1", {1: ["MA"]}, cds=1))
    store.add(Annotation("N.1"))
    store.add(Annotation("P.1", cds=2, without_translation=2))
    assert store.get(record) is absence
