"""The last part of the demo: genomes that no model has seen, and what the classifier makes of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nucpro.folder.paths import FilePair
from nucpro.formats.fasta import read, stream


def write_held_out(genomes: Path, pairs: Iterable[FilePair], contigs: Path) -> list[str]:
    """Write the genomes that gave no row to any merged file, and name them.

    Only full split files are used for training, so small genomes, and the last one of a source, are left over.
    """
    used = {
        name.rpartition("_chunk_")[0]
        for pair in pairs
        if pair.merged.exists()
        for name in read(pair.nucleotide_fasta).ids
    }
    records = [
        (name, bases.decode())
        for path in sorted(genomes.glob("*.genomic.fna.gz"))
        for name, bases in stream(path)
        if name not in used
    ]
    contigs.write_text("".join(f">{name}\n{bases}\n" for name, bases in records))
    return [name for name, _ in records]
