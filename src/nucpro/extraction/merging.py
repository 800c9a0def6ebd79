"""Merging a file pair: DNA columns first, then protein columns, with rows matched by id.

Runs in worker processes, without torch. Reads a ``_DNABERT_S.pt`` and an ``_ESM.pt`` file, writes a
``_merged.pt`` file in the order of the DNA file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucpro.errors import DimensionError, MergeError, NucproError, counted, first_few
from nucpro.folder.paths import CLASS_NAMES, FilePair
from nucpro.formats import Written, make_folder, read_vectors, write_merged
from nucpro.formats.fasta import FastaFacts, difference, ids_digest, read
from nucpro.formats.sequences import DNA_WIDTH, SequenceType
from nucpro.state.checkpoint import Fingerprint
from nucpro.state.recipe import input_digest, merged_meta

__all__ = ["DnaFile", "DnaVerdict", "examine_dna", "join_rows", "merge", "verify_dna"]

_SHOWN = 10


@dataclass(frozen=True)
class DnaFile:
    """A DNABERT-S file whose contents are not verified yet.

    Parameters
    ----------
    pair : FilePair
        Its pair.
    fasta : FastaFacts
        Facts of the nucleotide FASTA that it must belong to.
    """

    pair: FilePair
    fasta: FastaFacts


@dataclass(frozen=True)
class DnaVerdict:
    """Result of reading a DNABERT-S file.

    Parameters
    ----------
    file : DnaFile
        The file.
    stamp : Fingerprint or None
        Fingerprint of the file that was read.
    problem : str or None
        Why it cannot be used; None if it is valid.
    """

    file: DnaFile
    stamp: Fingerprint | None = None
    problem: str | None = None


def examine_dna(file: DnaFile) -> DnaVerdict:
    """Read a complete DNABERT-S file; problems are returned, not raised, so that all can be listed."""
    pair, fasta = file.pair, file.fasta
    try:
        stamp = verify_dna(pair.dna_vectors, pair.nucleotide_fasta, fasta.ids_digest, fasta.digest)
    except (NucproError, OSError) as error:
        return DnaVerdict(file, problem=str(error))
    return DnaVerdict(file, stamp)


def verify_dna(dna: Path, fasta: Path, fasta_ids_digest: str, fasta_digest: str) -> Fingerprint | None:
    """Read a complete DNABERT-S file, to find problems long before it is merged.

    Parameters
    ----------
    dna, fasta : Path
        The vectors and the nucleotide FASTA that they belong to.
    fasta_ids_digest, fasta_digest : str
        Digests of that FASTA's ids and of its records (:class:`nucpro.formats.fasta.FastaFacts`).

    Returns
    -------
    Fingerprint or None
        Fingerprint of the file that was read.

    Raises
    ------
    StoreError
        The file is damaged or does not follow its schema.
    DimensionError
        Its vectors have another width.
    MergeError
        Its ids differ from those of its FASTA, or it was made from another one.
    """
    stamp = Fingerprint.of(dna)
    vectors = read_vectors(dna, SequenceType.DNA)
    if vectors.vectors.shape[1] != DNA_WIDTH:
        raise DimensionError(DNA_WIDTH, vectors.vectors.shape[1], "width of the DNABERT-S vectors", str(dna))
    if ids_digest(vectors.ids) != fasta_ids_digest:
        only_dna, only_fasta = difference(vectors.ids, read(fasta).ids)
        raise MergeError(
            f"{dna} does not belong to {fasta}: {_listed(only_dna)} only in the vectors, "
            f"{_listed(only_fasta)} only in the FASTA; recompute the vectors"
        )
    if input_digest(vectors.meta) not in (None, fasta_digest):
        raise MergeError(f"{dna} was made from another version of {fasta}; recompute the vectors")
    return stamp


def merge(
    dna: Path, protein: Path, merged: Path, class_name: str | None, width: int | None = None
) -> Written:
    """Merge one file pair.

    Parameters
    ----------
    dna, protein, merged : Path
        Both sources and the file to write.
    class_name : str or None
        ``viral`` or ``host``; None for rows without a class, which are not training data.
    width : int, optional
        Required columns of the protein vectors; by default any number.

    Returns
    -------
    Written
        Size and SHA-256 of the merged file.

    Raises
    ------
    MergeError
        Some ids are in one file only: they are listed, and nothing is written.
    DimensionError
        One of the files has the wrong width.
    StoreError
        A file cannot be read or has duplicate ids, or the result cannot be written.
    """
    left, right = read_vectors(dna, SequenceType.DNA), read_vectors(protein, SequenceType.PROTEIN)
    if left.vectors.shape[1] != DNA_WIDTH:
        raise DimensionError(DNA_WIDTH, left.vectors.shape[1], "width of the DNABERT-S vectors", str(dna))
    if width is not None and right.vectors.shape[1] != width:
        raise DimensionError(width, right.vectors.shape[1], "width of the protein vectors", str(protein))
    try:
        order = _row_order(left.ids, right.ids)
    except MergeError as error:
        raise MergeError(
            f"{dna} and {protein} do not fit together, {merged} was not written: {error}"
        ) from error
    rows = join_rows(left.vectors, right.vectors, order)
    label = None if class_name is None else CLASS_NAMES.index(class_name)
    make_folder(merged.parent)
    meta = merged_meta(left.digest, right.digest, label, rows.shape[1])
    return write_merged(merged, left.ids, rows, meta, label)


def join_rows(
    dna: NDArray[np.float32], protein: NDArray[np.float32], order: Sequence[int] | None
) -> NDArray[np.float32]:
    """DNA and protein vectors in one matrix.

    Parameters
    ----------
    dna, protein : ndarray
        float32 ``[N, D]`` and ``[N, P]``.
    order : sequence of int or None
        Row of ``protein`` for each row of ``dna``; None if both have the same order.

    Returns
    -------
    ndarray
        float32 ``[N, D + P]``.
    """
    rows = np.empty((len(dna), dna.shape[1] + protein.shape[1]), dtype=np.float32)
    rows[:, : dna.shape[1]] = dna
    rows[:, dna.shape[1] :] = protein if order is None else protein[list(order)]
    return rows


def _row_order(dna_ids: Sequence[str], protein_ids: Sequence[str]) -> list[int] | None:
    """Row of each DNA id in the protein file; ids are unique in both files."""
    row_of = {name: row for row, name in enumerate(protein_ids)}
    if list(dna_ids) == list(protein_ids):
        return None
    only_dna, only_protein = difference(dna_ids, protein_ids)
    if only_dna or only_protein:
        raise MergeError(
            f"{_listed(only_dna)} only in the DNA file, {_listed(only_protein)} only in the protein file; "
            "recompute the file that is out of date from its FASTA file"
        )
    return [row_of[name] for name in dna_ids]


def _listed(ids: list[str]) -> str:
    return f"{counted(len(ids), 'id')} ({first_few(ids, _SHOWN)})" if ids else "no ids"
