"""Everything that can be checked before a model is loaded or a file is touched.

Each check returns messages and changes nothing; the pipeline gathers them all and stops with one report.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nucpro.errors import DataError, FastaError, StoreError
from nucpro.fasta import FastaFacts, difference, read
from nucpro.layout import TEMPORARY_MARK, FilePair, Source
from nucpro.letters import copied_side
from nucpro.opening import open_input
from nucpro.store import check_directory
from nucpro.text import first_few

__all__ = ["dna_problems", "side_problems", "space_problems", "unsplit_problems", "writing_problems"]

_SHOWN = 5


def dna_problems(pairs: Iterable[FilePair], command: str, *, may_be_missing: bool = False) -> list[str]:
    """DNABERT-S files that are missing (all are listed) or are no archives.

    Only their archive directory is read: contents are read by the merge workers, ahead of the encoder.

    Parameters
    ----------
    pairs : iterable of FilePair
        Selected files.
    command : str
        The command that makes missing files, for the message.
    may_be_missing : bool
        Whether the run makes missing files itself.
    """
    missing, problems = [], []
    for pair in pairs:
        if not os.path.lexists(pair.dna_vectors):
            missing.append(pair.dna_vectors)
            continue
        try:
            check_directory(pair.dna_vectors)
        except StoreError as error:
            problems.append(f"{error}; make this file again with: {command}")
    if missing and not may_be_missing:
        listed = "\n".join(f"      {path}" for path in missing)
        problems.insert(0, f"{len(missing)} DNABERT-S files are missing; make them with: {command}\n{listed}")
    return problems


def side_problems(
    pairs: Sequence[FilePair],
    nucleotide: Mapping[Path, FastaFacts],
    protein: Mapping[Path, FastaFacts],
) -> list[str]:
    """Protein sides that are missing or hold other ids, and records that cannot be used on either side.

    Parameters
    ----------
    pairs : sequence of FilePair
        Selected files whose sides both have a split folder.
    nucleotide, protein : mapping of Path to FastaFacts
        Facts of all split files that could be read.
    """
    problems: list[str] = []
    for pair in pairs:
        left, right = nucleotide.get(pair.nucleotide_fasta), protein.get(pair.protein_fasta)
        problems += left.problems if left else ()
        problems += right.problems if right else ()
        if not os.path.lexists(pair.protein_fasta):
            problems.append(f"{pair.protein_fasta}: missing; {pair.nucleotide_fasta} has no protein side")
        elif left and right and left.ids_digest != right.ids_digest:
            problems.append(_different_ids(pair.nucleotide_fasta, pair.protein_fasta))
        elif left and right:
            problems += _copied(pair, left, right)
    return problems


def unsplit_problems(sources: Iterable[Source]) -> list[str]:
    """Sources that are still to be split, but have only one side, or one that cannot be opened."""
    problems = []
    for source in sources:
        if not os.path.lexists(source.protein_fasta):
            problems.append(
                f"{source.protein_fasta}: missing; {source.nucleotide_fasta} cannot be split without its protein side"
            )
            continue
        try:
            open_input(source.protein_fasta).close()
        except DataError as error:
            problems.append(str(error))
    return problems


def _copied(pair: FilePair, left: FastaFacts, right: FastaFacts) -> list[str]:
    problem = copied_side(
        pair.nucleotide_fasta,
        left.letters,
        pair.protein_fasta,
        right.letters,
        is_nucleotide=right.nucleotide,
    )
    return [problem] if problem else []


def _different_ids(nucleotide: Path, protein: Path) -> str:
    try:
        only_left, only_right = difference(read(nucleotide).ids, read(protein).ids)
    except FastaError as error:
        return str(error)
    return (
        f"{nucleotide} and {protein} hold different ids: "
        f"{_some(only_left)} only on the nucleotide side, {_some(only_right)} only on the protein side; "
        "split both again from the same run of the data set preparation"
    )


def _some(ids: list[str]) -> str:
    return first_few(ids, _SHOWN) or "none"


def writing_problems(folders: Iterable[Path]) -> list[str]:
    """Folders that cannot be written, tried by creating a file; for a folder to be made, its nearest parent."""
    problems = []
    for folder in sorted({_nearest_existing(folder) for folder in folders}):
        try:
            with tempfile.NamedTemporaryFile(dir=folder, prefix=f".probe{TEMPORARY_MARK}"):
                pass
        except OSError as error:
            problems.append(
                f"{folder}: cannot be written ({error.strerror}); check owner, rights and mount options"
            )
    return problems


def space_problems(needed: Mapping[Path, tuple[int, int]]) -> list[str]:
    """File systems with too little room.

    Parameters
    ----------
    needed : mapping of Path to (int, int)
        For each folder that is written to: bytes to write, and bytes of files that are replaced.
    """
    totals: dict[int, tuple[Path, int, int]] = {}
    for folder, (write, replaced) in needed.items():
        existing = _nearest_existing(folder)
        device = existing.stat().st_dev
        first, to_write, freed = totals.get(device, (existing, 0, 0))
        totals[device] = (first, to_write + write, freed + replaced)
    problems = []
    for folder, write, replaced in totals.values():
        free = shutil.disk_usage(folder).free
        if write - replaced > free:
            problems.append(
                f"{folder}: too little disk space: {_gigabytes(write)} to write, {_gigabytes(replaced)} of them "
                f"replace files, {_gigabytes(free)} free; make {_gigabytes(write - replaced - free)} of room"
            )
    return problems


def _nearest_existing(folder: Path) -> Path:
    while not folder.is_dir():
        folder = folder.parent
    return folder


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
