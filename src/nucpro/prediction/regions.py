"""What other programs read: viral sequences as FASTA, and their viral frames as GFF3 and BED.

The tables of a prediction come in (:mod:`nucpro.prediction.tables`), the input once more for the sequences. A
frame is viral where its score reaches the threshold of the verdicts; its place is that of its whole codons on
the record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from nucpro.formats import replace_file
from nucpro.prediction.contigs import records_of
from nucpro.prediction.options import OutputFolder, PredictionOptions
from nucpro.prediction.tables import SequenceRow, read_tables, shown_score
from nucpro.prediction.verdict import ChunkScore, FrameScore, Rules
from nucpro.prediction.work import read_record

__all__ = ["place_of_frame", "write_bed", "write_fasta", "write_gff3"]

_LINE = 80
_SAFE = "".join(map(chr, range(33, 127))).translate(str.maketrans("", "", "%;=&,>\"'"))
"""What GFF3 allows in ids without an escape; see the Sequence Ontology's specification, version 1.26."""


def place_of_frame(chunk: ChunkScore, frame: FrameScore) -> tuple[int, int, str]:
    """First and last base of a frame's codons on its record, counted from 1, both included, and its strand."""
    shift, bases = int(frame.frame[1]) - 1, 3 * frame.residues
    if frame.frame.startswith("F"):
        return chunk.start + shift, chunk.start + shift + bases - 1, "+"
    return chunk.end - shift - bases + 1, chunk.end - shift, "-"


def _viral_frames(row: SequenceRow, rules: Rules) -> Iterator[tuple[str, int, int, str, FrameScore]]:
    """Id, first and last base and strand of each viral frame of a viral sequence, by position."""
    if not row.is_viral:
        return
    for chunk in row.chunks:
        placed = (
            (*place_of_frame(chunk, frame), frame) for frame in chunk.frames if rules.is_viral(frame.score)
        )
        for start, end, strand, frame in sorted(placed, key=lambda found: found[:2]):
            yield f"{row.values['record']}_chunk_{frame.chunk}{frame.frame}", start, end, strand, frame


def write_fasta(folder: OutputFolder, options: PredictionOptions) -> Sequence[Path]:
    """Write ``viral.fasta``: the sequences that are called viral, in upper case, with their score in the header.

    Raises
    ------
    DataError
        The tables or the input cannot be read.
    StoreError
        The file cannot be written.
    """
    rows = {row.values["record"]: row.values["score"] for row in read_tables(folder) if row.is_viral}
    with replace_file(folder.viral_fasta) as file:
        for name, sequence in records_of(options.inputs) if rows else ():
            if name in rows:
                lines = (sequence[start : start + _LINE] for start in range(0, len(sequence), _LINE))
                file.write(f">{name} viral score={rows[name]}\n".encode() + b"\n".join(lines) + b"\n")
    return (folder.viral_fasta,)


def write_gff3(folder: OutputFolder, _: PredictionOptions) -> Sequence[Path]:
    """Write ``viral_frames.gff3``: positions from 1, both ends included.

    Raises
    ------
    DataError
        The tables cannot be read.
    StoreError
        The file cannot be written.
    """
    rules = Rules.of_record(read_record(folder.record))
    with replace_file(folder.gff3) as file:
        file.write(b"##gff-version 3\n")
        for row in read_tables(folder):
            if row.is_viral:
                seqid = quote(row.values["record"], safe=_SAFE)
                file.write(f"##sequence-region {seqid} 1 {row.values['bases']}\n".encode())
            for name, start, end, strand, frame in _viral_frames(row, rules):
                values = (start, end, shown_score(frame.score), strand, ".", f"ID={quote(name, safe=_SAFE)}")
                cells = (seqid, "nucpro", "reading_frame", *map(str, values))
                file.write("\t".join(cells).encode() + b"\n")
    return (folder.gff3,)


def write_bed(folder: OutputFolder, _: PredictionOptions) -> Sequence[Path]:
    """Write ``viral_frames.bed`` (BED6): positions from 0, the end not included, scores from 0 to 1000.

    Raises
    ------
    DataError
        The tables cannot be read.
    StoreError
        The file cannot be written.
    """
    rules = Rules.of_record(read_record(folder.record))
    with replace_file(folder.bed) as file:
        for row in read_tables(folder):
            for name, start, end, strand, frame in _viral_frames(row, rules):
                values = (start - 1, end, name, round(1000 * frame.score), strand)
                file.write("\t".join((row.values["record"], *map(str, values))).encode() + b"\n")
    return (folder.bed,)
