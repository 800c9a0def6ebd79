"""The manifest of a source, ``X.identified.json``.

It is written when the source's FASTA files are complete and before they get their final names. So every FASTA
file of this program has a manifest with the length of its chunks, and a run that was interrupted in between
leaves a manifest that does not match the files. It holds no times and no absolute paths: equal work gives
equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path

from nucpro.errors import RecordError, ValidationError
from nucpro.folder.paths import Source
from nucpro.formats.records import Count, Digest, Name, read_record, write_record
from nucpro.genomes.options import DatasetOptions
from nucpro.genomes.paths import organisms_path
from nucpro.state.checkpoint import changed_files

__all__ = [
    "Counts",
    "DatasetReport",
    "Manifest",
    "SourceReport",
    "read_manifest",
    "write_manifest",
]

RULES = 1
"""Raised when the same genomes and options begin to give other files."""


@dataclass(frozen=True)
class Manifest:
    """Provenance of a source.

    Parameters
    ----------
    length : int
        Bases of a full chunk.
    genetic_code : str
        Choice of :class:`DatasetOptions`.
    inputs : dict of str to str
        SHA-256 of the compressed files, by ``fasta`` and ``genbank``.
    outputs : dict of str to (str or None)
        SHA-256 of the FASTA files, by ``nucleotide`` and ``protein``; None where no frame was kept. Of the table of
        organisms by ``organisms``; it lacks where a version made the source that wrote none.
    counts : dict of str to int
        See :class:`nucpro.genomes.reports.Counts`.
    examples : dict of str to list of str
        See :class:`nucpro.genomes.reports.SourceReport`.
    rules : int
        Version of the rules of this program.
    """

    length: Count
    genetic_code: Name
    inputs: dict[str, Digest]
    outputs: dict[str, Digest | None]
    counts: dict[str, Count]
    examples: dict[str, list[Name]]
    rules: Count = RULES

    def is_of_kind(self, options: DatasetOptions) -> bool:
        """Whether its source is compatible with those of a run with these options."""
        return (self.length, self.genetic_code) == (options.length, options.genetic_code)

    def fits(self, options: DatasetOptions, inputs: dict[str, str]) -> bool:
        """Whether a run with these options would make the same files from these genomes."""
        return self.is_of_kind(options) and self.inputs == inputs and self.rules == RULES

    def differing(self, source: Source) -> list[Path]:
        """FASTA files of a source that are missing or do not match this manifest."""
        files = {"nucleotide": source.nucleotide_fasta, "protein": source.protein_fasta}
        return changed_files({path: self.outputs.get(name) for name, path in files.items()})

    def has_organisms(self, source: Source) -> bool:
        """Whether the table of organisms of a source exists and matches this manifest."""
        recorded = self.outputs.get("organisms", "")
        return not changed_files({organisms_path(source): recorded})


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest whole or not at all."""
    write_record(path, manifest, sort_keys=True)


def read_manifest(path: Path) -> Manifest | None:
    """Read a manifest; None where there is none.

    One without a checksum is of an earlier version: its digests are compared with the files each time.

    Raises
    ------
    RecordError
        The file is not a manifest.
    """
    kept = read_record(path, Manifest, "the record of a data set", _REMEDY)
    if kept is None:
        return None
    manifest = kept.content
    # Counts of other rules have other names; their source is rewritten, so they are ignored.
    if manifest.rules == RULES and manifest.counts.keys() != {name.name for name in fields(Counts)}:
        raise RecordError(f"{path}: does not hold the counts of a data set; {_REMEDY}")
    return manifest


_REMEDY = "remove it, and recreate its FASTA files with --replace"


_SHOWN = 5


@dataclass
class Counts:
    """Named outcomes of one source, or of many.

    Records of the FASTA file: ``records`` is the sum of ``annotated_records``, which frames are looked for
    in, and of the records that are left out.

    Parameters
    ----------
    records, annotated_records : int
        All records, and those with proteins.
    empty_records, duplicate_records : int
        Left out: no bases; an accession that came before.
    records_not_in_genbank, records_of_other_version : int
        Left out: the GenBank file has no such accession; it has another version of it.
    records_without_cds, records_without_translation : int
        Left out: no CDS; none of the CDS has a translation.
    genbank_records, duplicate_genbank_records : int
        Records of the GenBank file; those that replaced an earlier one of the same accession and version.
    cds, cds_without_translation, cds_across_origin, cds_of_unknown_code : int
        See :class:`nucpro.genomes.genbank.Annotation`.
    chunks, ambiguous_chunks : int
        Chunks of annotated records; those left out because of an ambiguous base.
    frames, kept_frames, frames_with_stop, frames_not_in_cds : int
        Six frames of each other chunk; those that are written; those left out because of a stop (or because
        they are shorter than a codon), or because no protein of the record holds them.
    lost_frames : int
        Of the frames left out, those that the genetic code of their CDS would keep.
    """

    records: int = 0
    annotated_records: int = 0
    empty_records: int = 0
    duplicate_records: int = 0
    records_not_in_genbank: int = 0
    records_of_other_version: int = 0
    records_without_cds: int = 0
    records_without_translation: int = 0
    genbank_records: int = 0
    duplicate_genbank_records: int = 0
    cds: int = 0
    cds_without_translation: int = 0
    cds_across_origin: int = 0
    cds_of_unknown_code: int = 0
    chunks: int = 0
    ambiguous_chunks: int = 0
    frames: int = 0
    kept_frames: int = 0
    frames_with_stop: int = 0
    frames_not_in_cds: int = 0
    lost_frames: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            **{name.name: getattr(self, name.name) + getattr(other, name.name) for name in fields(Counts)}
        )

    @property
    def left_out_records(self) -> int:
        """FASTA records in which no frames were looked for."""
        return (
            self.empty_records
            + self.duplicate_records
            + self.records_not_in_genbank
            + self.records_of_other_version
            + self.records_without_cds
            + self.records_without_translation
        )

    def require_balance(self, name: str) -> None:
        """Check that all input is accounted for in the output.

        Raises
        ------
        ValidationError
            A sum does not hold: an error of this program.
        """
        sums = {
            "records": (self.records, self.annotated_records + self.left_out_records),
            "frames": (self.frames, self.kept_frames + self.frames_with_stop + self.frames_not_in_cds),
            "frames of chunks": (self.frames, 6 * (self.chunks - self.ambiguous_chunks)),
        }
        for what, (expected, actual) in sums.items():
            if expected != actual:
                raise ValidationError(
                    f"{name}: {expected} {what} went in, {actual} are accounted for; report this"
                )


@dataclass
class SourceReport:
    """Result of one pair of genome files.

    Parameters
    ----------
    name : str
        Path of the FASTA file of genomes below the data folder.
    category : str or None
        Category that the path names.
    made : bool
        False if the files of an earlier run were current.
    counts : Counts
        Outcomes.
    examples : dict of str to list of str
        First records of each outcome that leaves something out or is unusual, by name of the count.
    differing : tuple of str
        FASTA files that differed from the record of an earlier run, and were recreated.
    """

    name: str
    category: str | None
    made: bool = True
    counts: Counts = field(default_factory=Counts)
    examples: dict[str, list[str]] = field(default_factory=dict)
    differing: tuple[str, ...] = ()

    def count(self, outcome: str, record: str, times: int = 1) -> None:
        """Count an outcome of a record and keep the record's name as an example."""
        if not times:
            return
        setattr(self.counts, outcome, getattr(self.counts, outcome) + times)
        shown = self.examples.setdefault(outcome, [])
        if len(shown) < _SHOWN and record not in shown:
            shown.append(record)


@dataclass(frozen=True)
class DatasetReport:
    """Result of a run.

    Parameters
    ----------
    length : int
        Bases of a full chunk.
    genetic_code : str
        The choice of :class:`nucpro.genomes.DatasetOptions`.
    sources : tuple of SourceReport
        One for each pair of genome files, naturally sorted.
    without_partner : tuple of str
        FASTA files of genomes that were not used because their GenBank file is missing.
    """

    length: int
    genetic_code: str
    sources: tuple[SourceReport, ...]
    without_partner: tuple[str, ...]

    @property
    def totals(self) -> Counts:
        """Counts of all sources together."""
        return _sum(source.counts for source in self.sources)

    @property
    def by_category(self) -> dict[str | None, Counts]:
        """Counts by category, in the order in which the categories appear."""
        categories = dict.fromkeys(source.category for source in self.sources)
        return {name: _sum(s.counts for s in self.sources if s.category == name) for name in categories}


def _sum(counts: Iterable[Counts]) -> Counts:
    total = Counts()
    for some in counts:
        total += some
    return total
