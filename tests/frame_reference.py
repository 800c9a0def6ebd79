"""The rules of the data set, written down once more as plainly as possible: slow, and independent of the package."""

from __future__ import annotations

CODONS = {
    "A": "GCT GCC GCA GCG",
    "C": "TGT TGC",
    "D": "GAT GAC",
    "E": "GAA GAG",
    "F": "TTT TTC",
    "G": "GGT GGC GGA GGG",
    "H": "CAT CAC",
    "I": "ATT ATC ATA",
    "K": "AAA AAG",
    "L": "TTA TTG CTT CTC CTA CTG",
    "M": "ATG",
    "N": "AAT AAC",
    "P": "CCT CCC CCA CCG",
    "Q": "CAA CAG",
    "R": "CGT CGC CGA CGG AGA AGG",
    "S": "TCT TCC TCA TCG AGT AGC",
    "T": "ACT ACC ACA ACG",
    "V": "GTT GTC GTA GTG",
    "W": "TGG",
    "Y": "TAT TAC",
    "*": "TAA TAG TGA",
}
STANDARD_CODE = {codon: residue for residue, codons in CODONS.items() for codon in codons.split()}
VERTEBRATE_MITOCHONDRIAL_CODE = STANDARD_CODE | {"AGA": "*", "AGG": "*", "ATA": "M", "TGA": "W"}
COMPLEMENT = dict(zip("ACGTURYSWKMBDHVN", "TGCAAYRSWMKVHDBN", strict=True))


def cut(length: int, size: int) -> list[tuple[int, int]]:
    """Start and end of each chunk, step by step as the rule is told."""
    count = 0
    while count * size < length:
        count += 1
    surplus = count * size - length
    back = surplus // count if count else 0
    longer = surplus - back * (count - 1)
    pieces, gone_back = [], 0
    for number in range(count):
        start = number * size - gone_back
        pieces.append((start, min(start + size, length)))
        gone_back += back + 1 if number < longer else back
    return pieces


def translate(bases: str, code: dict[str, str] = STANDARD_CODE) -> str:
    return "".join(code.get(bases[i : i + 3], "X") for i in range(0, len(bases) - 2, 3))


def frames(bases: str, code: dict[str, str] = STANDARD_CODE) -> dict[str, tuple[str, str]]:
    """Nucleotide slice and protein of all six frames of a chunk."""
    other = "".join(COMPLEMENT[base] for base in reversed(bases))
    found = {}
    for letter, strand in (("F", bases), ("R", other)):
        for shift in range(3):
            protein = translate(strand[shift:], code)
            found[f"{letter}{shift + 1}"] = (strand[shift : shift + 3 * len(protein) + 1], protein)
    return found


def kept(
    name: str, bases: str, proteins: list[str], size: int, code: dict[str, str] = STANDARD_CODE
) -> list[tuple[str, str, str]]:
    """Id, nucleotides and protein of every frame of a record that belongs to the data set."""
    records = []
    for number, (start, end) in enumerate(cut(len(bases), size), start=1):
        chunk = bases[start:end].upper()
        if set(chunk) <= set("ACGT"):
            for frame, (nucleotides, protein) in frames(chunk, code).items():
                if protein and "*" not in protein and any(protein in other for other in proteins):
                    records.append((f"{name}_chunk_{number}{frame}", nucleotides, protein))
    return records
