"""Small annotated genomes, written as RefSeq writes them."""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import gb_io

DEMO = Path(__file__).parent.parent.parent / "demo" / "genomes"


@dataclass
class Gene:
    """A CDS feature; its qualifiers are written as they are."""

    location: gb_io.Location
    qualifiers: dict[str, str | None] = field(default_factory=dict)


@dataclass
class Genome:
    """One record of both files."""

    name: str
    bases: str
    genes: Sequence[Gene] = ()
    circular: bool = False

    def record(self) -> gb_io.Record:
        features = [
            gb_io.Feature("CDS", gene.location, [gb_io.Qualifier(*pair) for pair in gene.qualifiers.items()])
            for gene in self.genes
        ]
        # A feature of another kind with a translation must never count as a CDS.
        features.append(
            gb_io.Feature("mat_peptide", gb_io.Range(0, 3), [gb_io.Qualifier("translation", "MATPEPTIDE")])
        )
        return gb_io.Record(
            self.bases.lower().encode(),
            name=self.name.partition(".")[0],
            accession=self.name.partition(".")[0],
            version=self.name,
            length=len(self.bases),
            circular=self.circular,
            definition="made for a test",
            molecule_type="DNA",
            division="VRL",
            features=features,
        )


def gene(protein: str | None, **qualifiers: str) -> Gene:
    """A gene somewhere: where it lies does not matter to the data set."""
    with_protein = {} if protein is None else {"translation": protein}
    return Gene(gb_io.Range(0, 3), {**qualifiers, **with_protein})


def write_genbank(path: Path, genomes: Sequence[Genome]) -> None:
    text = io.BytesIO()
    gb_io.dump([genome.record() for genome in genomes], text)
    path.write_bytes(gzip.compress(text.getvalue(), mtime=0))


def write_fasta(path: Path, records: Sequence[tuple[str, str]], width: int = 80) -> None:
    text = "".join(
        f">{name} made for a test\n"
        + "".join(f"{bases[i : i + width]}\n" for i in range(0, len(bases), width))
        for name, bases in records
    )
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def write_pair(folder: Path, stem: str, genomes: Sequence[Genome]) -> None:
    """``STEM.1.genomic.fna.gz`` and ``STEM.genomic.gbff.gz``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_fasta(folder / f"{stem}.1.genomic.fna.gz", [(genome.name, genome.bases) for genome in genomes])
    write_genbank(folder / f"{stem}.genomic.gbff.gz", genomes)


def read_fasta(path: Path) -> list[tuple[str, str]]:
    """Records of a file that has one line a sequence, which is checked on the way."""
    lines = path.read_text().splitlines()
    assert all(line.startswith(">") == (number % 2 == 0) for number, line in enumerate(lines))
    return [(name[1:], bases) for name, bases in zip(lines[::2], lines[1::2], strict=True)]


def outputs(folder: Path, stem: str) -> list[tuple[str, str, str]]:
    """Id, nucleotides and protein of every frame that was written."""
    nucleotides = read_fasta(folder / f"{stem}.identified_nucleotide.fa")
    proteins = read_fasta(folder / f"{stem}.identified_protein.fa")
    assert [name for name, _ in nucleotides] == [name for name, _ in proteins]
    return [(name, bases, protein) for (name, bases), (_, protein) in zip(nucleotides, proteins, strict=True)]
