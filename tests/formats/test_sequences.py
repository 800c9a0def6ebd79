"""What letters say about a file: nucleotides taken for proteins, and records that no encoder tells apart."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from folders import Frame
from nucpro.cli import main
from nucpro.errors import DataError
from nucpro.extraction.preflight import pairing_problems
from nucpro.folder.paths import DataFolder, FilePair
from nucpro.folder.splitting import split_source
from nucpro.formats import read_vectors
from nucpro.formats.fasta import inspect
from nucpro.formats.sequences import (
    NUCLEOTIDES,
    RESIDUES,
    SequenceType,
    Tally,
    advice_on,
    are_alike,
    nucleotide_records,
)

BASES = "".join(random.Random(3).choices("ACGT", k=240)).encode()
KRTAP = b"MSYYGNYYGGLGYGYGGFDDLGYGYGCGCGSFRRLGYGCGYGGYGYGSGFGGYGYGCCRPSCYGGYGFSGFY"


@pytest.mark.parametrize(
    ("text", "sequence_type"),
    [
        (BASES, SequenceType.DNA),
        (BASES.replace(b"T", b"U"), SequenceType.DNA),
        (BASES[:100] + b"N" * 300, SequenceType.DNA),
        (b"ACGTRYSWKMBDHVN" * 10, SequenceType.DNA),
        (b"A", SequenceType.DNA),
        (b"GATTACA", SequenceType.DNA),
        (BASES * 4 + b"E", SequenceType.DNA),
        (KRTAP, SequenceType.PROTEIN),
        (b"MKV", SequenceType.PROTEIN),
        (b"GSGSGSKKRRWW", SequenceType.PROTEIN),
        (b"MKVLAAGIVGLLLAQPSF", SequenceType.PROTEIN),
        (b"X" * 100, SequenceType.PROTEIN),
    ],
)
def test_characters_look_like_one_sequence_type(text: bytes, sequence_type: SequenceType) -> None:
    assert Tally.of(text).sequence_type is sequence_type
    assert Tally.of(text[:7]) + Tally.of(text[7:]) == Tally.of(text)


def test_no_real_frame_is_taken_for_the_other_sequence_type(frames: dict[str, list[Frame]]) -> None:
    for records in frames.values():
        proteins = [frame.residues.encode() for frame in records]
        assert nucleotide_records(proteins) == []
        assert [
            place for place, text in enumerate(proteins) if Tally.of(text).sequence_type is SequenceType.DNA
        ] == []
        assert len(nucleotide_records([frame.bases.encode() for frame in records])) == len(records)


def test_nucleotides_among_proteins_are_found() -> None:
    proteins = [KRTAP, b"MKV", b"GATTACA"] * 50
    assert nucleotide_records(proteins) == []
    assert nucleotide_records([*proteins, BASES, BASES.replace(b"T", b"U")]) == [150, 151]
    assert nucleotide_records([]) == []


@pytest.mark.parametrize(
    ("sequences", "sequence_type", "alike"),
    [
        ([b"ACGRT", b"ACGYT", b"ACGNNT"], SequenceType.DNA, True),
        ([b"ACGU", b"ACGT"], SequenceType.DNA, True),
        ([b"ACGA", b"ACGT"], SequenceType.DNA, False),
        ([b"MKB", b"MKZ"], SequenceType.PROTEIN, False),
        ([b"M" * 1024 + b"K", b"M" * 1024 + b"V"], SequenceType.PROTEIN, True),
        ([b"MKV"], SequenceType.PROTEIN, True),
    ],
)
def test_what_no_encoder_distinguishes(
    sequences: list[bytes], sequence_type: SequenceType, alike: bool
) -> None:
    assert are_alike(sequences, sequence_type) is alike


@pytest.mark.parametrize("letter", ["*", "-", ".", " ", "\t", "7", ";", "J"])
def test_there_is_advice_on_characters_that_files_really_hold(letter: str, tmp_path: Path) -> None:
    path = tmp_path / "x.fa"
    path.write_text(f">a\nMKVLFE{letter}LLQP\n")
    (problem,) = inspect(path, RESIDUES).problems
    assert f"a has {letter!r} at position 7; correct or remove these records ({advice_on(letter)})" in problem


def test_proteins_among_nucleotides_are_named_so(tmp_path: Path) -> None:
    path = tmp_path / "x.fa"
    path.write_bytes(b">a\n" + KRTAP + b"\n")
    (problem,) = inspect(path, NUCLEOTIDES).problems
    assert problem.endswith("(they look like proteins, and nucleotides are expected here)")


def pair_of(tmp_path: Path, bases: bytes, protein: bytes) -> FilePair:
    source = DataFolder(tmp_path).source_of(tmp_path / "viral.1.1.identified_nucleotide.fa")
    assert source is not None
    pair = source.pair(1)
    for path, letters in ((pair.nucleotide_fasta, bases), (pair.protein_fasta, protein)):
        path.parent.mkdir()
        path.write_bytes(b">a\n%b\n>b\n%b\n" % (letters, letters[::-1]))
    return pair


def problems_of(pair: FilePair) -> list[str]:
    nucleotide, protein = inspect(pair.nucleotide_fasta, NUCLEOTIDES), inspect(pair.protein_fasta, RESIDUES)
    return pairing_problems([pair], {pair: nucleotide}, {pair: protein})


@pytest.mark.parametrize(
    "change",
    [
        bytes,
        bytes.lower,
        lambda bases: bases.replace(b"T", b"U"),
        lambda bases: bases[:40] + b"\n" + bases[40:],
        lambda bases: bases[1:-1],
    ],
    ids=["copied", "lower case", "RNA", "wrapped", "another frame"],
)
def test_nucleotides_in_the_protein_file_stop_preflight(change: object, tmp_path: Path) -> None:
    assert callable(change)
    pair = pair_of(tmp_path, BASES, change(BASES))
    (problem,) = problems_of(pair)
    assert problem.startswith(f"{pair.protein_fasta}: contains nucleotides: ")


@pytest.mark.parametrize("protein", [b"ACGT", b"A", b"GATTACA" * 11])
def test_a_real_protein_of_these_characters_is_none(protein: bytes, tmp_path: Path) -> None:
    assert problems_of(pair_of(tmp_path, (BASES * 2)[: 3 * len(protein)], protein)) == []


def test_nucleotides_in_the_protein_file_are_not_split(tmp_path: Path) -> None:
    source = DataFolder(tmp_path).source_of(tmp_path / "viral.1.1.identified_nucleotide.fa")
    assert source is not None
    for path in (source.nucleotide_fasta, source.protein_fasta):
        path.write_bytes(b">a\n%b\n>b\n%b\n" % (BASES, BASES[::-1]))
    with pytest.raises(DataError, match=r"identified_protein\.fa: contains nucleotides: 240 characters"):
        split_source(source, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        path.name for path in (source.nucleotide_fasta, source.protein_fasta)
    )


@pytest.mark.parametrize(
    "text", [BASES, BASES.replace(b"T", b"U"), BASES.lower(), BASES[:60] + b"RYKM" + BASES]
)
def test_embed_refuses_nucleotides_unless_asked(
    text: bytes, tmp_path: Path, model: Path, dna_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fasta, output = tmp_path / "genome.fa", tmp_path / "o.pt"
    fasta.write_bytes(b">a\n%b\n>b\n%b\n" % (text, text[::-1]))
    plain = ["embed", str(fasta), "-o", str(output), "--device", "cpu"]
    command = [*plain, "--protein-model", str(model)]
    assert main(command) == 3
    said = capsys.readouterr().err
    assert f"{fasta}: 2 of 2 records look like nucleotides, first 'a'; add --dna to embed nucleotides" in said
    assert not output.exists()
    assert main([*command, "--protein"]) == 0
    as_dna = [*plain[:3], str(tmp_path / "dna.pt"), *plain[4:], "--dna", "--dna-model", str(dna_model)]
    assert main(as_dna) == 0
    with pytest.raises(SystemExit):
        main([*command, "--dna", "--protein"])


def test_rna_is_read_as_dna(tmp_path: Path, dna_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vectors = []
    for name, text in (
        ("dna", BASES),
        ("rna", BASES.replace(b"T", b"U")),
        ("small", BASES.replace(b"T", b"u")),
    ):
        fasta, output = tmp_path / f"{name}.fa", tmp_path / f"{name}.pt"
        fasta.write_bytes(b">a\n%b\n>b\n%b\n" % (text, text[::-1]))
        command = ["embed", str(fasta), "--dna", "-o", str(output), "--device", "cpu"]
        assert main([*command, "--dna-model", str(dna_model)]) == 0
        vectors.append(read_vectors(output, SequenceType.DNA).vectors)
    assert (vectors[0] == vectors[1]).all()
    assert (vectors[0] == vectors[2]).all()
    assert "unknown to the model" not in capsys.readouterr().err


def test_records_that_differ_in_ambiguity_codes_have_the_same_vector(
    tmp_path: Path, dna_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fasta, output = tmp_path / "x.fa", tmp_path / "o.pt"
    fasta.write_bytes(b">r\n%b\n>y\n%b\n" % (BASES + b"R" + BASES, BASES + b"Y" + BASES))
    command = ["embed", str(fasta), "--dna", "-o", str(output), "--device", "cpu"]
    assert main([*command, "--dna-model", str(dna_model)]) == 0
    first, second = read_vectors(output, SequenceType.DNA).vectors
    assert (first == second).all()
    assert "2 of " in capsys.readouterr().err
