"""Splitting sources: both sequence types with the same boundaries, or nothing.

Parts are written into temporary folders and their ids are compared; then each folder is renamed as a whole.
The nucleotide folder comes last, because discovery depends on it: after a crash in between, it is split again
and the complete protein folder is kept.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from nucpro.errors import DataError, PreflightError, counted, first_few
from nucpro.folder.inventory import Mapper, numbers_in, size_on_disk
from nucpro.folder.paths import NO_SOURCES, DataFolder, Source
from nucpro.folder.selection import load
from nucpro.formats import cannot_write, remove_temporaries, sync_folder
from nucpro.formats.atomic import TEMPORARY_MARK, temporary_start
from nucpro.formats.fasta import Records, count, difference, read, require_usable, split
from nucpro.formats.opening import open_input
from nucpro.formats.sequences import ALPHABETS, SequenceType, copied_sequences, looks_like_nucleotides
from nucpro.options import SEQUENCES_PER_FILE
from nucpro.state.checkpoint import Checkpoint

__all__ = ["file_size", "remove_unfinished", "split_folder", "split_source", "unsplit_problems"]

_SYNCED_AT_ONCE = 8


def file_size(
    asked: int | None, folder: DataFolder, sources: Sequence[Source], records: Checkpoint, workers: Mapper
) -> int:
    """Records of a full split file: as requested, as recorded, as on disk, or the default.

    Parameters
    ----------
    asked : int or None
        The requested number.
    folder : DataFolder
        The data folder.
    sources : sequence of Source
        Its sources.
    records : Checkpoint
        State of the folder.
    workers : Mapper
        Where FASTA files are read.

    Returns
    -------
    int
        Records per full file.
    """
    size = asked or records.sequences_per_file
    if size is None and (selection := load(folder)) is not None:
        size = selection.sequences_per_file
    return size or size_on_disk(sources, records, workers) or SEQUENCES_PER_FILE


def split_folder(
    folder: DataFolder, asked: int | None, records: Checkpoint, workers: Mapper, *, replace: bool = False
) -> Iterator[tuple[Source, list[Path]]]:
    """Split unsplit sources (the caller holds the lock); yields each source with its new folders.

    Parameters
    ----------
    folder : DataFolder
        The data folder.
    asked : int or None
        Records of each file; by default :func:`file_size`.
    records : Checkpoint
        Gets the size.
    workers : Mapper
        Where FASTA files are read.
    replace : bool
        Split sources with files of another size again, and remove the files made from those.

    Raises
    ------
    PreflightError
        There are no sources; or some lack their proteins, or have files of another size, or folders that hold other
        files beside them.
    DataError, FastaError
        See :func:`split_source`.
    """
    sources = folder.walk_sources()
    if not sources:
        raise PreflightError([NO_SOURCES])
    remove_temporaries(folder.root)
    remove_unfinished(sources)
    size = file_size(asked, folder, sources, records, workers)
    others = dict.fromkeys(source for source in sources if not _has_size(source, size))
    problems = unsplit_problems(s for s in sources if s in others or not s.protein_folder.exists())
    found = (_foreign_problem(source) if replace else _size_problem(source, size) for source in others)
    if problems := [*problems, *filter(None, found)]:
        raise PreflightError(problems)
    records.remember_size(size)
    if others:
        # It names files that are about to be removed.
        folder.selection.unlink(missing_ok=True)
    for source in sources:
        if source in others:
            _remove_split(source)
        yield source, split_source(source, size)


def unsplit_problems(sources: Iterable[Source]) -> list[str]:
    """Sources that are still to be split, but lack one of the two files, or have one that cannot be opened."""
    problems = []
    for source in sources:
        if not os.path.lexists(source.protein_fasta):
            problems.append(
                f"{source.protein_fasta}: missing; {source.nucleotide_fasta} cannot be split without its proteins"
            )
            continue
        try:
            open_input(source.protein_fasta).close()
        except DataError as error:
            problems.append(str(error))
    return problems


def _has_size(source: Source, size: int) -> bool:
    """Whether a source could have been split into files of a size; a single file may hold fewer records."""
    numbers = numbers_in(source.nucleotide_folder)
    if not numbers:
        return numbers is None
    first = source.pair(1).nucleotide_fasta
    held = count(first) if first.is_file() else 0
    return held == size or (numbers == (1,) and held < size)


def _size_problem(source: Source, size: int) -> str:
    first = source.pair(1).nucleotide_fasta
    held = count(first) if first.is_file() else 0
    made = len(_made_of(source))
    lost = f" and removes {counted(made, 'file')} of vectors that were computed from them" if made else ""
    return (
        f"{source.nucleotide_folder}: split into files of {counted(held, 'record')}, not of {size}; "
        "omit --sequences-per-file to keep "
        f"them, or add --replace, which splits again{lost}"
    )


def _made_of(source: Source) -> list[Path]:
    """Vectors and merged files of a source."""
    pairs = [source.pair(number) for number in numbers_in(source.nucleotide_folder) or ()]
    return [path for pair in pairs for path in pair.files[2:] if path.exists()]


def _foreign_problem(source: Source) -> str | None:
    """Why the split folders of a source cannot be removed: they contain files that nucpro did not make."""
    folders = (source.nucleotide_folder, source.protein_folder)
    numbers = {number for folder in folders for number in numbers_in(folder) or ()}
    known = {path for number in numbers for path in source.pair(number).files}
    there = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    foreign = [path.name for path in there if path not in known and TEMPORARY_MARK not in path.name]
    if not foreign:
        return None
    return (
        f"{source.nucleotide_folder}: cannot be split again: it or {source.protein_folder.name} holds other files "
        f"({first_few(foreign, 3)}); move them elsewhere"
    )


def _remove_split(source: Source) -> None:
    """Remove the split folders of a source and the files made from them, each folder at once."""
    made = _made_of(source)
    # Discovery depends on the nucleotide folder: while it exists, the source counts as split with the old
    # size.
    old = [
        folder.rename(folder.with_name(f"{temporary_start(folder.name)}{os.getpid()}.old"))
        for folder in (source.protein_folder, source.nucleotide_folder)
        if folder.is_dir()
    ]
    for path in (path for path in made if source.merged_folder in path.parents):
        path.unlink(missing_ok=True)
    for folder in old:
        shutil.rmtree(folder)


def split_source(source: Source, sequences_per_file: int) -> list[Path]:
    """Split the files of a source that have no split folder yet.

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
        The two files do not have the same ids part by part; nothing is left behind.
    FastaError
        A FASTA file cannot be parsed or holds records that cannot be used; nothing is left behind.
    """
    made: list[Path] = []
    with (
        _splitting(source.protein_fasta, source.protein_folder, sequences_per_file, made) as protein,
        _splitting(source.nucleotide_fasta, source.nucleotide_folder, sequences_per_file, made) as nucleotide,
    ):
        _require_fitting_parts(nucleotide, protein, source)
        for temporary, folder in ((protein, source.protein_folder), (nucleotide, source.nucleotide_folder)):
            if temporary != folder:
                temporary.rename(folder)
                sync_folder(folder.parent)
                made.append(folder)
    return made


def remove_unfinished(sources: Iterable[Source]) -> None:
    """Remove temporary folders of killed runs; only for the holder of the data folder's lock."""
    starts: dict[Path, set[str]] = {}
    for source in sources:
        for folder in (source.protein_folder, source.nucleotide_folder):
            starts.setdefault(folder.parent, set()).add(temporary_start(folder.name))
    # Each folder is listed once, however many sources it contains.
    for parent, known in starts.items():
        for entry in [entry for entry in parent.iterdir() if TEMPORARY_MARK in entry.name]:
            if entry.name[: entry.name.rindex(TEMPORARY_MARK) + len(TEMPORARY_MARK)] in known:
                shutil.rmtree(entry, ignore_errors=True)


@contextmanager
def _splitting(fasta: Path, folder: Path, sequences_per_file: int, made: list[Path]) -> Iterator[Path]:
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
    parts = list(folder.iterdir())
    # File systems commit together what several threads wait for: one thread takes eight times as long.
    with ThreadPoolExecutor(_SYNCED_AT_ONCE) as threads:
        list(threads.map(_sync_files, (parts[first::_SYNCED_AT_ONCE] for first in range(_SYNCED_AT_ONCE))))
    sync_folder(folder)


def _sync_files(paths: Iterable[Path]) -> None:
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _require_fitting_parts(nucleotide: Path, protein: Path, source: Source) -> None:
    left, right = numbers_in(nucleotide) or (), numbers_in(protein) or ()
    if left != right:
        raise DataError(
            f"{source.nucleotide_fasta} and {source.protein_fasta} do not hold the same number of records: "
            f"{len(left)} and {counted(len(right), 'part')}; recreate both from the same genomes"
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
                f"{only_left[:5]} and {only_right[:5]}; recreate both from the same genomes"
            )
        _require_proteins(source, left_records, right_records)


def _require_proteins(source: Source, nucleotide: Records, protein: Records) -> None:
    residues = b"".join(protein.sequences)
    problem = copied_sequences(
        source.nucleotide_fasta,
        sum(map(len, nucleotide.sequences)),
        source.protein_fasta,
        len(residues),
        is_nucleotide=looks_like_nucleotides(residues),
    )
    if problem:
        raise DataError(problem)
