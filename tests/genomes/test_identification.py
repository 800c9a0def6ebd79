"""Which frames are kept, against the rules written down plainly."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frame_reference import STANDARD_CODE, VERTEBRATE_MITOCHONDRIAL_CODE, cut, frames, kept
from nucpro.errors import FastaError
from nucpro.genomes.identification import Identified, frame_records, identify

CODES = {1: STANDARD_CODE, 2: VERTEBRATE_MITOCHONDRIAL_CODE}


def records(bases: str, size: int, found: Identified) -> list[tuple[str, str, str]]:
    return [(r.name, r.nucleotides, r.protein) for r in frame_records("NC_1.1", bases, size, found.kept)]


@st.composite
def annotated(draw: st.DrawFn, code: int = 1) -> tuple[str, int, list[str]]:
    """A record, a chunk size, and proteins that hold some of its frames and nearly hold others."""
    bases = draw(st.text("ACGT", min_size=1, max_size=500) | st.text("ACGTNRacgtn", min_size=1, max_size=500))
    size = draw(st.integers(3, 90))
    proteins = []
    for start, end in draw(st.lists(st.sampled_from(cut(len(bases), size)), max_size=6)):
        protein = draw(st.sampled_from(list(frames(bases[start:end].upper(), CODES[code]).values())))[1]
        change = draw(st.integers(0, 3))
        proteins.append(["M" + protein + "L", protein, protein[1:], protein.replace("L", "I")][change])
    return bases, size, proteins + draw(st.lists(st.text("ACDEFGHIKLMNPQRSTVWY", min_size=1), max_size=2))


def as_text(proteins: list[str]) -> bytes:
    return "\n".join(proteins).encode()


@given(annotated())
@settings(max_examples=200)
def test_kept_frames_are_those_of_the_rules(case: tuple[str, int, list[str]]) -> None:
    bases, size, proteins = case
    found = identify("NC_1.1", bases, {1: as_text(proteins)}, size, "standard")
    assert records(bases, size, found) == kept("NC_1.1", bases, proteins, size)


@given(annotated())
def test_every_chunk_and_frame_is_accounted_for(case: tuple[str, int, list[str]]) -> None:
    bases, size, proteins = case
    found = identify("NC_1.1", bases, {1: as_text(proteins)}, size, "standard")
    chunks = [bases[start:end].upper() for start, end in cut(len(bases), size)]
    clean = [chunk for chunk in chunks if set(chunk) <= set("ACGT")]
    translated = [protein for chunk in clean for _, protein in frames(chunk).values()]
    is_open = [protein for protein in translated if protein and "*" not in protein]
    assert found.chunks == len(chunks)
    assert found.ambiguous_chunks == len(chunks) - len(clean)
    assert found.frames == len(translated) == 6 * len(clean)
    assert found.frames_with_stop == len(translated) - len(is_open)
    assert found.frames_not_in_cds == len(is_open) - len(found.kept)
    assert found.lost_frames == 0


@given(annotated(2))
@settings(max_examples=200)
def test_the_code_of_the_cds_keeps_what_the_standard_code_loses(case: tuple[str, int, list[str]]) -> None:
    bases, size, proteins = case
    texts = {2: as_text(proteins)}
    automatic = identify("NC_1.1", bases, texts, size, "auto")
    assert records(bases, size, automatic) == kept("NC_1.1", bases, proteins, size, CODES[2])
    standard = identify("NC_1.1", bases, texts, size, "standard")
    assert records(bases, size, standard) == kept("NC_1.1", bases, proteins, size)
    assert standard.lost_frames == len(automatic.kept.keys() - standard.kept.keys())
    assert automatic.lost_frames == 0


@given(annotated(1), annotated(2))
def test_each_frame_is_looked_for_in_proteins_of_its_own_code(
    one: tuple[str, int, list[str]], two: tuple[str, int, list[str]]
) -> None:
    bases, size = one[0] + two[0], one[1]
    found = identify("NC_1.1", bases, {2: as_text(two[2]), 11: as_text(one[2])}, size, "auto")
    by_standard = {name: rest for name, *rest in kept("NC_1.1", bases, one[2], size)}
    by_other = {name: rest for name, *rest in kept("NC_1.1", bases, two[2], size, CODES[2])}
    assert {name: rest for name, *rest in records(bases, size, found)} == by_other | by_standard
    assert found.frames == found.frames_with_stop + found.frames_not_in_cds + len(found.kept)


def test_a_record_of_many_blocks_is_one_record() -> None:
    # 2.4 million bases; the same two chunks again and again, one of them with a stop in every frame.
    bases = ("GCT" * 100 + "TAACTAACTAAC" * 25) * 4000
    found = identify("NC_1.1", bases, {1: b"A" * 100 + b"\n" + b"S" * 99}, 300, "standard")
    assert found.chunks == 8000
    expected = [f"NC_1.1_chunk_{number}{frame}" for number in range(1, 8000, 2) for frame in ("F1", "R2")]
    assert [name for name, _, _ in records(bases, 300, found)] == expected


def test_a_frame_may_stand_at_either_end_of_a_protein_but_not_across_two() -> None:
    bases = "ATGGCTAAAGTT"
    for proteins, expected in [
        ([b"MAKV"], True),
        ([b"MAKVL"], True),
        ([b"LMAKV"], True),
        ([b"MA", b"KV"], False),
    ]:
        found = identify("NC_1.1", bases, {1: b"\n".join(proteins)}, 300, "standard")
        assert (0 in found.kept) == expected


@pytest.mark.parametrize(
    ("bases", "shown"),
    [
        ("ACGJ", "'J' at position 4"),
        ("ACß", "'ß' at position 3"),
        ("ACGT" * 600_000 + "-" + "ACGT" * 10, "'-' at position 2400001"),
    ],
)
def test_characters_that_are_no_nucleotides_are_refused(bases: str, shown: str) -> None:
    with pytest.raises(
        FastaError, match=rf"record NC_1\.1 has {shown}; a nucleotide sequence may hold ACGTURYSWKMBDHVN"
    ):
        identify("NC_1.1", bases, {1: b"MA"}, 300, "standard")
