"""Making the split folders of a source: both sides with the same boundaries, or nothing.

Parts are written into temporary folders, compared side with side there, and each folder is renamed
whole. The nucleotide folder comes last: discovery goes by it, so a crash in between only means that it
is split again beside a protein folder that is complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nucpro.errors import DataError
from nucpro.folder.inventory import numbers_in
from nucpro.folder.paths import Source
from nucpro.formats import cannot_write, sync_folder
from nucpro.formats.atomic import TEMPORARY_MARK, temporary_start
from nucpro.formats.fasta import Records, difference, read, require_usable, split
from nucpro.formats.sequences import ALPHABETS, SequenceType, copied_side, looks_like_nucleotides

__all__ = ["remove_unfinished", "split_source"]


def split_source(source: Source, sequences_per_file: int) -> list[Path]:
    """Split the sides of a source that have no split folder yet.

    Parameters
    ----------
    source : Source
        Both of its unsplit FASTA files must exist.
    sequences_per_file : int
        Records of each part; the last may have fewer.

    Returns
    -------
    list of Path
        The folders that were made.

    Raises
    ------
    DataError
        The sides do not hold the same ids part by part; nothing is left behind.
    FastaError
        A FASTA file cannot be parsed or holds records that cannot be used; nothing is left behind.
    """
    made: list[Path] = []
    with (
        _side(source.protein_fasta, source.protein_folder, sequences_per_file, made) as protein,
        _side(source.nucleotide_fasta, source.nucleotide_folder, sequences_per_file, made) as nucleotide,
    ):
        _require_fitting_parts(nucleotide, protein, source)
        for temporary, folder in ((protein, source.protein_folder), (nucleotide, source.nucleotide_folder)):
            if temporary != folder:
                temporary.rename(folder)
                sync_folder(folder.parent)
                made.append(folder)
    return made


def remove_unfinished(sources: Iterable[Source]) -> None:
    """Remove the temporary folders that dead runs left; only for whoever holds the data folder's lock."""
    starts: dict[Path, set[str]] = {}
    for source in sources:
        for folder in (source.protein_folder, source.nucleotide_folder):
            starts.setdefault(folder.parent, set()).add(temporary_start(folder.name))
    # Each folder is listed once, however many sources lie in it.
    for parent, known in starts.items():
        for entry in [entry for entry in parent.iterdir() if TEMPORARY_MARK in entry.name]:
            if entry.name[: entry.name.rindex(TEMPORARY_MARK) + len(TEMPORARY_MARK)] in known:
                shutil.rmtree(entry, ignore_errors=True)


@contextmanager
def _side(fasta: Path, folder: Path, sequences_per_file: int, made: list[Path]) -> Iterator[Path]:
    """Folder that exists already, or a temporary one with the parts of a FASTA file."""
    if folder.exists():
        yield folder
        return
    temporary = folder.with_name(f"{temporary_start(folder.name)}{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        _write_parts(fasta, temporary, sequences_per_file, folder)
        yield temporary
    finally:
        if folder not in made:
            shutil.rmtree(temporary, ignore_errors=True)


def _write_parts(fasta: Path, temporary: Path, sequences_per_file: int, folder: Path) -> None:
    try:
        temporary.mkdir()
        split(fasta, temporary, sequences_per_file)
        _sync(temporary)
    except OSError as error:
        raise cannot_write(folder, error) from error


def _sync(folder: Path) -> None:
    for part in folder.iterdir():
        with part.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)


def _require_fitting_parts(nucleotide: Path, protein: Path, source: Source) -> None:
    left, right = numbers_in(nucleotide) or (), numbers_in(protein) or ()
    if left != right:
        raise DataError(
            f"{source.nucleotide_fasta} and {source.protein_fasta} do not hold the same number of records: "
            f"{len(left)} and {len(right)} parts; make both again from the same genomes"
        )
    for number in left:
        name = f"output_{number}.fa"
        left_records, right_records = read(nucleotide / name), read(protein / name)
        require_usable(left_records, ALPHABETS[SequenceType.DNA])
        require_usable(right_records, ALPHABETS[SequenceType.PROTEIN])
        only_left, only_right = difference(left_records.ids, right_records.ids)
        if only_left or only_right:
            raise DataError(
                f"part {number} of {source.nucleotide_fasta} and {source.protein_fasta} would hold different ids: "
                f"{only_left[:5]} and {only_right[:5]}; make both again from the same genomes"
            )
        _require_proteins(source, left_records, right_records)


def _require_proteins(source: Source, nucleotide: Records, protein: Records) -> None:
    letters = b"".join(protein.sequences)
    problem = copied_side(
        source.nucleotide_fasta,
        sum(map(len, nucleotide.sequences)),
        source.protein_fasta,
        len(letters),
        is_nucleotide=looks_like_nucleotides(letters),
    )
    if problem:
        raise DataError(problem)
