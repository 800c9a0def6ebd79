"""Genetic codes against codon lists and NCBI's differences from the standard code."""

from __future__ import annotations

from itertools import product

import pytest

from frame_reference import STANDARD_CODE, VERTEBRATE_MITOCHONDRIAL_CODE
from nucpro.errors import UsageError
from nucpro.genomes.frames import genetic_code, is_known

CODONS = ["".join(codon) for codon in product("TCAG", repeat=3)]
REVERSE_COMPLEMENT = {
    codon: "".join({"A": "T", "C": "G", "G": "C", "T": "A"}[base] for base in reversed(codon))
    for codon in CODONS
}

# NCBI's list of differences from the standard code: https://www.ncbi.nlm.nih.gov/Taxonomy/Utils/wprintgc.cgi
DIFFERENCES = {
    3: {"ATA": "M", "CTT": "T", "CTC": "T", "CTA": "T", "CTG": "T", "TGA": "W"},
    4: {"TGA": "W"},
    5: {"AGA": "S", "AGG": "S", "ATA": "M", "TGA": "W"},
    6: {"TAA": "Q", "TAG": "Q"},
    9: {"AAA": "N", "AGA": "S", "AGG": "S", "TGA": "W"},
    10: {"TGA": "C"},
    11: {},
    12: {"CTG": "S"},
    13: {"AGA": "G", "AGG": "G", "ATA": "M", "TGA": "W"},
    14: {"AAA": "N", "AGA": "S", "AGG": "S", "TAA": "Y", "TGA": "W"},
    15: {"TAG": "Q"},
    16: {"TAG": "L"},
    21: {"TGA": "W", "ATA": "M", "AGA": "S", "AGG": "S", "AAA": "N"},
    22: {"TCA": "*", "TAG": "L"},
    23: {"TTA": "*"},
    24: {"AGA": "S", "AGG": "K", "TGA": "W"},
    25: {"TGA": "G"},
    26: {"CTG": "A"},
    27: {"TAA": "Q", "TAG": "Q", "TGA": "W"},
    28: {"TAA": "Q", "TAG": "Q", "TGA": "W"},
    29: {"TAA": "Y", "TAG": "Y"},
    30: {"TAA": "E", "TAG": "E"},
    31: {"TAA": "E", "TAG": "E", "TGA": "W"},
    32: {"TAG": "W"},
    33: {"TAA": "Y", "AGA": "S", "AGG": "K", "TGA": "W"},
}


def residues(number: int) -> dict[str, str]:
    return {codon: chr(genetic_code(number).forward[index]) for index, codon in enumerate(CODONS)}


def test_the_standard_code() -> None:
    assert residues(1) == STANDARD_CODE


def test_the_code_of_vertebrate_mitochondria() -> None:
    assert residues(2) == VERTEBRATE_MITOCHONDRIAL_CODE


@pytest.mark.parametrize("number", sorted(DIFFERENCES))
def test_other_codes_differ_as_ncbi_says(number: int) -> None:
    assert residues(number) == STANDARD_CODE | DIFFERENCES[number]


@pytest.mark.parametrize("number", [1, 2, *DIFFERENCES])
def test_the_other_strand_reads_the_reverse_complement(number: int) -> None:
    code, forward = genetic_code(number), residues(number)
    assert {codon: chr(code.reverse[index]) for index, codon in enumerate(CODONS)} == {
        codon: forward[REVERSE_COMPLEMENT[codon]] for codon in CODONS
    }


def test_codons_with_ambiguous_bases_are_unknown_on_both_strands() -> None:
    code = genetic_code(1)
    assert set(code.forward[64:]) == set(code.reverse[64:]) == {ord("X")}


def test_codes_with_equal_residues_are_one() -> None:
    assert genetic_code(11) is genetic_code(1)
    assert genetic_code(28) is genetic_code(27)
    assert genetic_code(4) is not genetic_code(1)


@pytest.mark.parametrize("number", [0, 7, 8, 17, 34, -1])
def test_numbers_that_ncbi_does_not_list_are_refused(number: int) -> None:
    assert not is_known(number)
    with pytest.raises(
        UsageError, match=f"genetic code {number} does not exist; NCBI lists 1, 2, 3, 4, 5, 6, 9, 10"
    ):
        genetic_code(number)
