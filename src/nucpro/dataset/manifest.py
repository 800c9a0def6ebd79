"""The record of how a source was made, ``X.identified.json``.

It is written when the source's FASTA files are complete and before they take their names. So a FASTA file of
this program never lies there without the length of its chunks, and a run that was stopped in between leaves
a manifest that does not describe what is there. It holds no times and no absolute paths: equal work gives
equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from nucpro.dataset.options import DatasetOptions
from nucpro.dataset.reports import Counts
from nucpro.errors import DataError
from nucpro.layout import Source
from nucpro.store import decoded, file_digest, seal_of, write_document
from nucpro.store.documents import SEAL

__all__ = ["Manifest", "digest_of", "read_manifest", "write_manifest"]

RULES = 1
"""Raised when the same genomes and options begin to give other files."""


@dataclass(frozen=True)
class Manifest:
    """How a source was made.

    Parameters
    ----------
    length : int
        Bases of a full chunk.
    genetic_code : str
        Choice of :class:`DatasetOptions`.
    inputs : dict of str to str
        SHA-256 of the compressed files, by ``fasta`` and ``genbank``.
    outputs : dict of str to (str or None)
        SHA-256 of the FASTA files, by ``nucleotide`` and ``protein``; None where no frame was kept.
    counts : dict of str to int
        See :class:`nucpro.dataset.reports.Counts`.
    examples : dict of str to list of str
        See :class:`nucpro.dataset.reports.SourceReport`.
    rules : int
        Version of the rules of this program.
    """

    length: int
    genetic_code: str
    inputs: dict[str, str]
    outputs: dict[str, str | None]
    counts: dict[str, int]
    examples: dict[str, list[str]]
    rules: int = RULES

    def is_of_kind(self, options: DatasetOptions) -> bool:
        """Whether its source may lie beside those of a run with these options."""
        return (self.length, self.genetic_code) == (options.length, options.genetic_code)

    def fits(self, options: DatasetOptions, inputs: dict[str, str]) -> bool:
        """Whether a run with these options would make the same files from these genomes."""
        return self.is_of_kind(options) and self.inputs == inputs and self.rules == RULES

    def describes(self, source: Source) -> bool:
        """Whether the FASTA files of a source are complete and as this manifest says."""
        sides = {"nucleotide": source.nucleotide_fasta, "protein": source.protein_fasta}
        return self.outputs == {
            side: digest_of(path) if path.exists() else None for side, path in sides.items()
        }


def digest_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises
    ------
    DataError
        The file cannot be read.
    """
    try:
        return file_digest(path)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}; check that it exists and who may read it"
        ) from error


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest whole or not at all."""
    plain = asdict(manifest)
    write_document(path, {**plain, SEAL: seal_of(plain)}, sort_keys=True)


def read_manifest(path: Path) -> Manifest | None:
    """Read a manifest; None where there is none.

    Raises
    ------
    DataError
        The file is no manifest.
    """
    try:
        plain = decoded(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}; {_REMEDY}") from error
    if not _is_manifest(plain):
        raise DataError(f"{path}: does not hold what a record of a data set must hold; {_REMEDY}")
    return Manifest(**{name: value for name, value in plain.items() if name != SEAL})


_REMEDY = "remove it, and have its FASTA files made again with --replace"
_TYPES = {
    "length": int,
    "genetic_code": str,
    "inputs": dict,
    "outputs": dict,
    "counts": dict,
    "examples": dict,
    "rules": int,
}


def _is_manifest(plain: object) -> bool:
    if not isinstance(plain, Mapping) or set(plain) - {SEAL} != {name.name for name in fields(Manifest)}:
        return False
    # Manifests without a digest were written before there was one.
    if plain.get(SEAL, seal_of(plain)) != seal_of(plain):
        return False
    if not all(isinstance(plain[name], types) for name, types in _TYPES.items()):
        return False
    # Counts of other rules have other names; their source is made again, so nobody looks at them.
    return plain["rules"] != RULES or set(plain["counts"]) == {name.name for name in fields(Counts)}
