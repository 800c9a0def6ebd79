"""Genetic codes: which residue a codon stands for, on either strand.

The tables are NCBI's (https://www.ncbi.nlm.nih.gov/Taxonomy/Utils/wprintgc.cgi), codons in the order
TTT, TTC, TTA, TTG, TCT, … GGG. Where a codon may be a stop or a residue (codes 27, 28 and 31), it is the
residue, as in NCBI's own list.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from nucpro.errors import UsageError

__all__ = ["STANDARD", "STOP", "UNKNOWN", "GeneticCode", "genetic_code", "is_known"]

STANDARD = 1
"""Number of the standard code."""
STOP = ord("*")
"""Residue letter of a stop codon."""
UNKNOWN = ord("X")
"""Residue letter of a codon with an ambiguous base."""

_TABLES = {
    1: "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    2: "FFLLSSSSYY**CCWWLLLLPPPPHHQQRRRRIIMMTTTTNNKKSS**VVVVAAAADDEEGGGG",
    3: "FFLLSSSSYY**CCWWTTTTPPPPHHQQRRRRIIMMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    4: "FFLLSSSSYY**CCWWLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    5: "FFLLSSSSYY**CCWWLLLLPPPPHHQQRRRRIIMMTTTTNNKKSSSSVVVVAAAADDEEGGGG",
    6: "FFLLSSSSYYQQCC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    9: "FFLLSSSSYY**CCWWLLLLPPPPHHQQRRRRIIIMTTTTNNNKSSSSVVVVAAAADDEEGGGG",
    10: "FFLLSSSSYY**CCCWLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    11: "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    12: "FFLLSSSSYY**CC*WLLLSPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    13: "FFLLSSSSYY**CCWWLLLLPPPPHHQQRRRRIIMMTTTTNNKKSSGGVVVVAAAADDEEGGGG",
    14: "FFLLSSSSYYY*CCWWLLLLPPPPHHQQRRRRIIIMTTTTNNNKSSSSVVVVAAAADDEEGGGG",
    15: "FFLLSSSSYY*QCC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    16: "FFLLSSSSYY*LCC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    21: "FFLLSSSSYY**CCWWLLLLPPPPHHQQRRRRIIMMTTTTNNNKSSSSVVVVAAAADDEEGGGG",
    22: "FFLLSS*SYY*LCC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    23: "FF*LSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    24: "FFLLSSSSYY**CCWWLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSSKVVVVAAAADDEEGGGG",
    25: "FFLLSSSSYY**CCGWLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    26: "FFLLSSSSYY**CC*WLLLAPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    27: "FFLLSSSSYYQQCCWWLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    28: "FFLLSSSSYYQQCCWWLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    29: "FFLLSSSSYYYYCC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    30: "FFLLSSSSYYEECC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    31: "FFLLSSSSYYEECCWWLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    32: "FFLLSSSSYY*WCC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
    33: "FFLLSSSSYYY*CCWWLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSSKVVVVAAAADDEEGGGG",
}


@dataclass(frozen=True)
class GeneticCode:
    """Residues by codon index, ready for :meth:`bytes.translate`.

    The index of a codon is ``16 * first + 4 * second + third`` with T 0, C 1, A 2 and G 3; 64 and above
    mean that a base is ambiguous.

    Parameters
    ----------
    number : int
        NCBI's number; of codes with equal residues the smallest.
    forward : bytes of length 256
        Residue of the codon itself.
    reverse : bytes of length 256
        Residue of the codon's reverse complement.
    """

    number: int
    forward: bytes
    reverse: bytes


def is_known(number: int) -> bool:
    """Whether NCBI lists a genetic code of this number."""
    return number in _TABLES


@cache
def genetic_code(number: int) -> GeneticCode:
    """Genetic code by NCBI's number; codes with equal residues (1 and 11) are one object.

    Raises
    ------
    UsageError
        NCBI has no such code.
    """
    if number not in _TABLES:
        raise UsageError(f"genetic code {number} does not exist; NCBI lists {', '.join(map(str, _TABLES))}")
    residues = _TABLES[number]
    smallest = next(other for other, table in _TABLES.items() if table == residues)
    if smallest != number:
        return genetic_code(smallest)
    padding = bytes([UNKNOWN]) * (256 - 64)
    reverse = "".join(residues[_reverse_complement(codon)] for codon in range(64))
    return GeneticCode(number, residues.encode() + padding, reverse.encode() + padding)


def _reverse_complement(codon: int) -> int:
    first, second, third = codon >> 4, codon >> 2 & 3, codon & 3
    # In the order T, C, A, G the complement of a base is two places away.
    return (third ^ 2) << 4 | (second ^ 2) << 2 | (first ^ 2)
