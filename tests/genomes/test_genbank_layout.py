"""Layouts of GenBank files as people have them: read as Biopython reads them, or refused with record and line."""

from __future__ import annotations

import gzip
import io
import warnings
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from Bio import SeqIO
from hypothesis import given, settings
from hypothesis import strategies as st

from nucpro.errors import DataError
from nucpro.genomes.genbank import read_annotations

RECORD = b"""LOCUS       NC_1                60 bp    DNA     linear   BCT 01-JAN-1970
DEFINITION  made for a test.
ACCESSION   NC_1
VERSION     NC_1.3
FEATURES             Location/Qualifiers
     gene            1..20
                     /pseudo
                     /note="x"
     CDS             join(1..20,
                     30..50)
                     /note="some words"
                     /translation="MAAAAK
                     LLLV"
     CDS             1..60
                     /translation="MKKK"
ORIGIN
        1 acgtacgtac acgtacgtac acgtacgtac acgtacgtac acgtacgtac acgtacgtac
//
"""
PROTEINS = {1: ["MAAAAKLLLV", "MKKK"]}

# What stands in the record, and what it is replaced by. Biopython 1.88 reads the same proteins, or, in the last
# block, refuses what says all that is needed.
READ = {
    "note22": (b'                     /note="x"', b'                      /note="x"'),
    "pseudo22": (b"                     /pseudo", b"                      /pseudo"),
    "cds6": (b"     CDS             1..60", b"      CDS             1..60"),
    "cdsfar": (b"     CDS             1..60", b"     CDS              1..60"),
    "gene6": (b"     gene   ", b"      gene   "),
    "loccont22": (b"                     30..50)", b"                      30..50)"),
    "transcont22": (b'                     LLLV"', b'                      LLLV"'),
    "trans22": (b'                     /translation="MKKK"', b'                      /translation="MKKK"'),
    "emptyline": (b"     CDS             1..60", b"\n     CDS             1..60"),
    "emptyline2": (b'                     LLLV"', b'\n                     LLLV"'),
    "noquote": (b'"MKKK"', b"MKKK"),
    "quoteinside": (b'"some words"', b'"some "words"'),
    "date odd": (b"01-JAN-1970", b"1-Jan-1970"),
    "date iso": (b"01-JAN-1970", b"1970-01-01"),
    "date none": (b" 01-JAN-1970", b""),
    "date 31": (b"01-JAN-1970", b"31-FEB-1970"),
    "date 0": (b"01-JAN-1970", b"00-XXX-0000"),
    "date slash": (b"01-JAN-1970", b"01/01/1970"),
    "date german": (b"01-JAN-1970", b"01-M\xc3\x84R-1970"),
    "date may lower": (b"01-JAN-1970", b"01-jan-1970"),
    "no division": (b" BCT", b"    "),
    "division odd": (b" BCT", b" Foo"),
    "no top": (b"linear  ", b"        "),
    "aa": (b"60 bp ", b"60 aa "),
    "mol odd": (b"DNA     linear", b"cRNA    linear"),
    "mol ss": (b"DNA     linear", b"ss-RNA  linear"),
    "mol none": (b"DNA     linear", b"        linear"),
    "wgs": (
        b"ORIGIN\n        1 acgtacgtac acgtacgtac acgtacgtac acgtacgtac acgtacgtac acgtacgtac\n",
        b"WGS         AAAA01000001-AAAA01000100\n",
    ),
    "tsa": (
        b"ORIGIN\n        1 acgtacgtac acgtacgtac acgtacgtac acgtacgtac acgtacgtac acgtacgtac\n",
        b"TSA         AAAA01000001-AAAA01000100\n",
    ),
    "wgs_scafld": (
        b"ORIGIN\n        1 acgtacgtac acgtacgtac acgtacgtac acgtacgtac acgtacgtac acgtacgtac\n",
        b"WGS         AAAA01000001-AAAA01000100\nWGS_SCAFLD  AA01-AA02\n",
    ),
    "basecount": (b"ORIGIN", b"BASE COUNT       15 a  15 c 15 g 15 t\nORIGIN"),
    "origin text": (b"ORIGIN", b"ORIGIN      1 bp upstream of EcoRI site."),
    "contig": (b"ORIGIN", b"CONTIG      join(J1.1:1..60)\nORIGIN"),
    "latin1": (b"some words", b"M\xfcller"),
    "lead nl": (b"LOCUS", b"\n\nLOCUS"),
    "lead text": (b"LOCUS", b"GBBCT1.SEQ  Genetic Sequence Data Bank\n\n\nLOCUS"),
    "location bad": (b"1..60", b"1.."),
    "location one-of": (b"1..60", b"one-of(1,5)..60"),
    "location bond": (b"1..60", b"bond(1,60)"),
    "location gap": (b"1..60", b"join(1..20,gap(5),30..60)"),
    "location space": (b"1..60", b"1 .. 60"),
    "seq upper": (b"acgt", b"ACGT"),
    "double record": (b"//\n", b"//\n\n\n"),
    "no slashes": (b"//\n", b""),
    "bom": (b"LOCUS", b"\xef\xbb\xbfLOCUS"),
    "rc": (b"60 bp ", b"60 rc "),
    "BP": (b"60 bp ", b"60 BP "),
    "nolen": (b"60 bp ", b"      "),
    "glued": (b"NC_1                60 bp", b"NC_1xxxxxxxxxxxxxxxx60 bp"),
    "seq none": (
        b"ORIGIN\n        1 acgtacgtac acgtacgtac acgtacgtac acgtacgtac acgtacgtac acgtacgtac\n",
        b"",
    ),
    "seq col": (b"        1 acgt", b"      1 acgt"),
    "spaceeq": (b'/translation="MKKK"', b'/translation = "MKKK"'),
    "crlf": (b"\n", b"\r\n"),
    "trailing": (b"\n", b"  \n"),
}
# Biopython reads fewer proteins of these, or none, without a word, or refuses them.
REFUSED = {
    "lower case": (b"     CDS             1..60", b"     cds             1..60"),
    "note20": (b'                     /note="x"', b'                    /note="x"'),
    "note5": (b'                     /note="x"', b'     /note="x"'),
    "pseudo10": (b"                     /pseudo", b"          /pseudo"),
    "pseudo5": (b"                     /pseudo", b"     /pseudo"),
    "pseudo0": (b"                     /pseudo", b"/pseudo"),
    "cds4": (b"     CDS             1..60", b"    CDS             1..60"),
    "cds0": (b"     CDS             1..60", b"CDS             1..60"),
    "cdstab": (b"     CDS             1..60", b"\tCDS\t1..60"),
    "cdsnear": (b"     CDS             1..60", b"     CDS 1..60"),
    "gene4": (b"     gene   ", b"    gene   "),
    "loccont20": (b"                     30..50)", b"                    30..50)"),
    "loccont5": (b"                     30..50)", b"     30..50)"),
    "transcont20": (b'                     LLLV"', b'                    LLLV"'),
    "transcont5": (b'                     LLLV"', b'     LLLV"'),
    "transcont0": (b'                     LLLV"', b'LLLV"'),
    "trans20": (b'                     /translation="MKKK"', b'                    /translation="MKKK"'),
    "trans5": (b'                     /translation="MKKK"', b'     /translation="MKKK"'),
    "transtab": (b'                     /translation="MKKK"', b'\t/translation="MKKK"'),
    "alltab": (b"                     /", b"\t\t\t/"),
    "origin1": (b"ORIGIN", b" ORIGIN"),
    "feat1": (b"FEATURES  ", b" FEATURES  "),
    "cr": (b"\n", b"\r"),
    "openquote": (b'"MKKK"', b'"MKKK'),
    "openquote1": (b'"some words"', b'"some words'),
    "seq short": (b"acgtacgtac\n//", b"acgtac\n//"),
    "0bp": (b"60 bp ", b"0 bp "),
    "lower locus": (b"LOCUS ", b"locus "),
    "fasta tail": (b"//\n", b"//\n>x\nACGT\n"),
    "gap seq": (b"acgtacgtac\n//", b"acgtac[gap 10 bp]\n//"),
}


def changed(old: bytes, new: bytes) -> bytes:
    """Replace line ends and what stands in every line everywhere, other things where they come first."""
    everywhere = old in {b"\n", b"acgt", b" " * 21 + b"/"}
    return RECORD.replace(old, new, -1 if everywhere else 1)


def proteins(folder: Path, content: bytes) -> list[dict[int, list[str]]]:
    path = folder / "viral.1.genomic.gbff.gz"
    path.write_bytes(gzip.compress(content))
    return [annotation.proteins for annotation in read_annotations(path)]


@pytest.mark.parametrize("name", READ)
def test_odd_layouts_lose_no_gene(tmp_path: Path, name: str) -> None:
    assert proteins(tmp_path, changed(*READ[name])) == [PROTEINS]


@pytest.mark.parametrize("name", REFUSED)
def test_lines_that_fit_nothing_are_named(tmp_path: Path, name: str) -> None:
    where = r"(record \d+( \(NC_1.3\))?|before the first record), line \d+: "
    with pytest.raises(DataError, match=rf"viral\.1\.genomic\.gbff\.gz: {where}") as caught:
        proteins(tmp_path, changed(*REFUSED[name]))
    assert "fetch" not in str(caught.value)


def test_the_line_at_fault_is_named_behind_good_records(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"record 3 \(NC_1.3\), line 44: '/note=\"x\"' fits neither a feature"
    ):
        proteins(tmp_path, RECORD * 2 + changed(*REFUSED["note20"]))


def test_a_master_record_of_a_project_has_no_proteins(tmp_path: Path) -> None:
    master = RECORD[: RECORD.index(b"     gene")].replace(b"60 bp", b"100 rc") + b"WGS         A01-A09\n//\n"
    assert proteins(tmp_path, master + RECORD) == [{}, PROTEINS]


def test_an_expanded_gap_counts_as_its_bases(tmp_path: Path) -> None:
    gap = RECORD.replace(b"acgtacgtac\n//", b"[gap 10 bp]    Expand Ns\n//")
    assert proteins(tmp_path, gap) == [PROTEINS]


def test_plain_text_under_a_packed_name_is_read(tmp_path: Path) -> None:
    path = tmp_path / "viral.1.genomic.gbff.gz"
    path.write_bytes(RECORD)
    assert [annotation.proteins for annotation in read_annotations(path)] == [PROTEINS]


OTHERS = {
    "EMBL": (
        b"ID   X56734; SV 1; linear; mRNA; STD; PLN; 1859 BP.\nXX\n",
        "is in EMBL format.*convert it to GenBank",
    ),
    "GFF": (b"##gff-version 3\n", "is GFF.*GFF holds no translations"),
    "old GFF": (b"#!gff-spec-version 1.21\n", "is GFF"),
    "GTF": (b"#gtf-version 2.2\n", "is GTF"),
    "HTML": (
        b"<!DOCTYPE html>\n<html><title>Sign in</title></html>",
        "is a web page or XML.*nucpro download",
    ),
    "XML": (b"\xef\xbb\xbf<?xml version='1.0'?>\n<INSDSet>", "is a web page or XML"),
    "JSON": (b'{"error": "not found"}', "is JSON"),
    "FASTA": (b">NC_1.3\nACGT\n", "is FASTA"),
    "FASTQ": (b"@r\nA\n+\nI\n", "is FASTQ"),
    "ASN.1": (b"Seq-entry ::= set {", "is ASN.1.*asn2gb"),
    "UTF-16": ("LOCUS       NC_1".encode("utf-16"), "is UTF-16.*save it as plain text"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "git-annex": (b"/annex/objects/SHA256E-s1--0.gz\n", "git annex get"),
    "binary": (b"\x01\x00\x00\x02", "holds binary data"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_called_by_their_names(tmp_path: Path, name: str, packed: bool) -> None:
    content, message = OTHERS[name]
    path = tmp_path / "viral.1.genomic.gbff.gz"
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match=rf"viral\.1\.genomic\.gbff\.gz: .*{message}") as caught:
        list(read_annotations(path))
    assert "fetch it again" not in str(caught.value)


def of_biopython(content: bytes) -> list[dict[int, list[str]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        records = list(SeqIO.parse(io.StringIO(content.decode()), "genbank"))
    found = [feature for record in records for feature in record.features if feature.type == "CDS"]
    return [{1: [text for cds in found for text in cds.qualifiers.get("translation", [])[:1]]}]


@given(line=st.integers(5, 16), indent=st.integers(-21, 5), cut=st.integers(0, 3))
@settings(max_examples=300)
def test_any_indentation_gives_what_biopython_reads_or_an_error(line: int, indent: int, cut: int) -> None:
    lines = RECORD.splitlines(keepends=True)
    text = lines[line]
    moved = b" " * indent + text if indent > 0 else text[min(-indent, len(text) - len(text.lstrip(b" "))) :]
    lines[line] = moved[: len(moved) - 1 - cut] + b"\n"
    content = b"".join(lines)
    with TemporaryDirectory() as folder, suppress(DataError, ValueError):  # either may refuse it
        found = proteins(Path(folder), content)
        assert found == of_biopython(content)
