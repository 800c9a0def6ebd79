"""One pair of genome files to one source: the work of one process.

``X.genomic.fna.gz`` and its GenBank partner come in, the two FASTA files, the table of organisms and the manifest
of the source go out. Memory holds one record at a time, and for each GenBank record the place of its proteins on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile

from nucpro.errors import DataError, FastaError, StoreError
from nucpro.formats import AtomicFile, cannot_write, file_digest, replace_file, write_bytes
from nucpro.formats.fasta import stream
from nucpro.genomes.flatfile import Organism
from nucpro.genomes.genbank import read_annotations
from nucpro.genomes.identification import FrameRecord, frame_records, identify
from nucpro.genomes.options import DatasetOptions
from nucpro.genomes.paths import GenomePair, organisms_path
from nucpro.genomes.proteins import Absence, Proteins, ProteinStore
from nucpro.genomes.reports import Counts, Manifest, SourceReport, read_manifest, write_manifest
from nucpro.genomes.taxonomy import organisms_table

__all__ = ["Conversion", "attempt", "convert"]

_ABSENCES = {
    Absence.UNKNOWN: "records_not_in_genbank",
    Absence.OTHER_VERSION: "records_of_other_version",
    Absence.WITHOUT_CDS: "records_without_cds",
    Absence.WITHOUT_TRANSLATION: "records_without_translation",
}


@dataclass(frozen=True)
class Conversion:
    """A pair of genome files and how to convert it.

    Parameters
    ----------
    pair : GenomePair
        Input, and through it the place of the output.
    options : DatasetOptions
        Choices of the run.
    """

    pair: GenomePair
    options: DatasetOptions


def attempt(conversion: Conversion) -> tuple[str, SourceReport | DataError]:
    """Convert a pair, or return why its files cannot be used: the pairs beside it can be converted all the same.

    Returns
    -------
    str
        Path of its FASTA file below the data folder.
    SourceReport or DataError
        See :func:`convert`.

    Raises
    ------
    StoreError
        An output cannot be written.
    """
    name = conversion.pair.relative
    try:
        return name, convert(conversion)
    except StoreError:
        raise
    except DataError as error:
        return name, error


def convert(conversion: Conversion) -> SourceReport:
    """Write the FASTA files of a source, unless correct ones exist.

    Raises
    ------
    FastaError, DataError
        An input cannot be read, or split folders of earlier FASTA files are in the way.
    StoreError
        An output cannot be written.
    """
    pair, options = conversion.pair, conversion.options
    inputs = {"fasta": file_digest(pair.fasta), "genbank": file_digest(pair.genbank)}
    earlier = read_manifest(pair.manifest)
    differing: list[Path] = []
    if earlier and earlier.fits(options, inputs):
        differing = earlier.differing(pair.source)
        if not differing:
            if not earlier.has_organisms(pair.source):
                _add_organisms(pair, earlier)
            return _report(pair, made=False, counts=Counts(**earlier.counts), examples=earlier.examples)
    _require_unsplit(pair)
    report = _report(pair, made=True, counts=Counts(), examples={})
    report.differing = tuple(str(path) for path in differing if path.exists())
    try:
        # The data folder has space for large files; the system's temporary folder may be in memory.
        with TemporaryFile(dir=pair.fasta.parent) as file:
            proteins = ProteinStore(file)
            _load(pair.genbank, proteins, report)
            _write_source(pair, options, inputs, proteins, report)
    except OSError as error:
        # Bytes that are still on their way fail wherever they are forced out, even where the file is read.
        raise cannot_write(pair.source.nucleotide_fasta, error) from error
    return report


def _add_organisms(pair: GenomePair, earlier: Manifest) -> None:
    """Write the table of organisms again, or for the first time: the FASTA files stay as they are."""
    if not pair.source.nucleotide_fasta.exists():
        return
    organisms = {annotation.record: annotation.organism for annotation in read_annotations(pair.genbank)}
    names = [name for name, _ in stream(pair.fasta, longest=None)]
    table = organisms_table({name: organisms[name] for name in names if name in organisms})
    # The record goes first: a table that a killed run leaves is known as its own.
    outputs = {**earlier.outputs, "organisms": hashlib.sha256(table).hexdigest()}
    write_manifest(pair.manifest, replace(earlier, outputs=outputs))
    write_bytes(organisms_path(pair.source), table)


def _report(pair: GenomePair, *, made: bool, counts: Counts, examples: dict[str, list[str]]) -> SourceReport:
    return SourceReport(pair.relative, pair.source.category, made, counts, examples)


def _remove_outputs(pair: GenomePair) -> None:
    organisms_path(pair.source).unlink(missing_ok=True)
    pair.source.nucleotide_fasta.unlink(missing_ok=True)
    pair.source.protein_fasta.unlink(missing_ok=True)


def _require_unsplit(pair: GenomePair) -> None:
    for folder in (pair.source.nucleotide_folder, pair.source.protein_folder):
        if folder.exists():
            raise DataError(
                f"{folder}: holds split files of FASTA files that would be rewritten, because the genomes, "
                "the options or the files themselves changed; move the folder away, then run again"
            )


def _write_source(
    pair: GenomePair,
    options: DatasetOptions,
    inputs: dict[str, str],
    proteins: ProteinStore,
    report: SourceReport,
) -> None:
    source = pair.source
    paths = source.protein_fasta, source.nucleotide_fasta, organisms_path(source)
    with (
        replace_file(paths[0]) as protein,
        replace_file(paths[1]) as nucleotide,
        replace_file(paths[2]) as table,
    ):
        outputs = _Outputs(nucleotide, protein, table)
        for name, bases, found in _annotated_records(pair.fasta, proteins, report):
            outputs.write(_frames_of(name, bases, found, options, report))
            outputs.organisms[name] = proteins.organism(name)
        outputs.end()
        report.counts.require_balance(report.name)
        _require_common_record(pair, proteins, report)
        # Between the old manifest and the new files there are no files, rather than some of another length.
        _remove_outputs(pair)
        kind = (options.length, options.genetic_code)
        write_manifest(
            pair.manifest, Manifest(*kind, inputs, outputs.digests(), asdict(report.counts), report.examples)
        )
    if outputs.empty:
        # A FASTA file without a record is an error to those who read it; a source without one is not.
        _remove_outputs(pair)


def _require_common_record(pair: GenomePair, proteins: ProteinStore, report: SourceReport) -> None:
    """Refuse two files that have nothing to do with each other, of which nothing could come."""
    counts = report.counts
    strangers = counts.records_not_in_genbank + counts.records_of_other_version
    if not strangers or strangers < counts.records - counts.empty_records:
        return
    examples = report.examples
    (first, *_) = examples.get("records_not_in_genbank") or examples["records_of_other_version"]
    raise DataError(
        f"{pair.fasta}: no record of it is in {pair.genbank_name}: the first is {first}, there "
        f"it is {proteins.first}; the ids must be equal, version included (as in NC_001416.1): take both files from "
        "the same release, or correct the headers"
    )


class _Outputs:
    """The files of a source while they are written."""

    def __init__(self, nucleotide: AtomicFile, protein: AtomicFile, organisms: AtomicFile) -> None:
        self.empty = True
        self.organisms: dict[str, Organism] = {}
        self._files = {"nucleotide": nucleotide, "protein": protein, "organisms": organisms}

    def write(self, records: Sequence[FrameRecord]) -> None:
        self.empty = self.empty and not records
        nucleotides = "".join([f">{record.name}\n{record.nucleotides}\n" for record in records])
        proteins = "".join([f">{record.name}\n{record.protein}\n" for record in records])
        self._files["nucleotide"].write(nucleotides.encode())
        self._files["protein"].write(proteins.encode())

    def end(self) -> None:
        self._files["organisms"].write(organisms_table(self.organisms))

    def digests(self) -> dict[str, str | None]:
        return {kind: None if self.empty else file.digest for kind, file in self._files.items()}


def _load(genbank: Path, proteins: ProteinStore, report: SourceReport) -> None:
    for annotation in read_annotations(genbank):
        name = annotation.record
        report.counts.genbank_records += 1
        report.counts.cds += annotation.cds
        report.count("cds_without_translation", name, annotation.without_translation)
        report.count("cds_across_origin", name, annotation.across_origin)
        report.count("cds_of_unknown_code", name, annotation.of_unknown_code)
        try:
            is_new = proteins.add(annotation)
        except OSError as error:
            raise StoreError(
                f"{genbank.parent}: the proteins of {genbank.name} cannot be kept there: {error.strerror}; "
                "free space on that disk, then run again"
            ) from error
        if not is_new:
            report.count("duplicate_genbank_records", name)


def _annotated_records(
    fasta: Path, proteins: ProteinStore, report: SourceReport
) -> Iterator[tuple[str, str, Proteins]]:
    """Yield records in which frames are looked for, and count those that are left out."""
    seen: set[str] = set()
    # Chromosomes of plants and amphibians have more bases than other commands read at a time.
    for name, sequence in stream(fasta, longest=None):
        bases = sequence.decode("ascii")
        # The bytes of a chromosome must not live on while its frames are found.
        del sequence
        report.counts.records += 1
        found = proteins.get(name)
        if not bases:
            report.count("empty_records", name)
        elif isinstance(found, Absence):
            report.count(_ABSENCES[found], name)
        elif name in seen:
            report.count("duplicate_records", name)
        else:
            seen.add(name)
            report.counts.annotated_records += 1
            yield name, bases, found


def _frames_of(
    name: str, bases: str, proteins: Proteins, options: DatasetOptions, report: SourceReport
) -> list[FrameRecord]:
    try:
        identified = identify(name, bases, proteins, options.length, options.genetic_code)
    except FastaError as error:
        raise FastaError(f"{report.name}: {error}") from error
    counts = report.counts
    counts.chunks += identified.chunks
    counts.frames += identified.frames
    counts.kept_frames += len(identified.kept)
    counts.frames_with_stop += identified.frames_with_stop
    counts.frames_not_in_cds += identified.frames_not_in_cds
    report.count("ambiguous_chunks", name, identified.ambiguous_chunks)
    report.count("lost_frames", name, identified.lost_frames)
    return list(frame_records(name, bases, options.length, identified.kept))
