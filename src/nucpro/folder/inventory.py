"""Inventory of a data folder: sources, their split files, and the number of records in each.

Reads each FASTA file once, in worker processes, and stores the result in the checkpoint; the selection and
the pre-flight checks use it. Finds incomplete and outdated split folders.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from nucpro.errors import FastaError, counted
from nucpro.folder.paths import NO_CATEGORY, VIRAL, FilePair, Source, split_number
from nucpro.formats.fasta import FastaFacts, count, inspect
from nucpro.formats.sequences import ALPHABETS, LIMITS, SequenceType
from nucpro.state.checkpoint import Checkpoint, Fingerprint

__all__ = ["Inventory", "SourceState", "inspect_all", "numbers_in", "size_on_disk", "take_inventory"]

_FACTS = FastaFacts.__dataclass_fields__.keys()
"""Facts required of a FASTA file; an earlier version may have recorded fewer."""


Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Mapper(Protocol):
    """Makes calls in worker processes (:class:`nucpro.execution.workers.Workers`)."""

    def map(
        self, function: Callable[[Argument], Result], arguments: Iterable[Argument], /
    ) -> Iterator[Result]:
        """Results as they become ready."""
        ...


@dataclass(frozen=True)
class SourceState:
    """One source on disk.

    Parameters
    ----------
    source : Source
        The source.
    records : int
        Records of the unsplit nucleotide FASTA; -1 if it could not be read.
    nucleotide_numbers, protein_numbers : tuple of int or None
        K of the split files of a sequence type; None if it has no split folder yet.
    """

    source: Source
    records: int
    nucleotide_numbers: tuple[int, ...] | None
    protein_numbers: tuple[int, ...] | None

    @property
    def is_split(self) -> bool:
        """Whether both sequence types have a split folder."""
        return self.nucleotide_numbers is not None and self.protein_numbers is not None


@dataclass(frozen=True)
class Inventory:
    """Sources, records and problems of a data folder.

    Parameters
    ----------
    sources : tuple of SourceState
        Naturally sorted.
    records : dict of FilePair to int
        Nucleotide records of every pair, split or still to be split.
    problems : tuple of str
        Reasons that make a source unusable.
    """

    sources: tuple[SourceState, ...]
    records: dict[FilePair, int]
    problems: tuple[str, ...]

    def full(self, sequences_per_file: int) -> list[FilePair]:
        """Pairs of a known category that hold exactly as many records as a full file."""
        return [pair for pair in self._of_size(sequences_per_file) if pair.category is not None]

    def left_out(self, sequences_per_file: int) -> list[str]:
        """Warning about full files that are not used because they belong to no category."""
        pairs = [pair for pair in self._of_size(sequences_per_file) if pair.category is None]
        if not pairs:
            return []
        return [
            f"{counted(len(pairs), 'full file')} of no category, not used (first: {pairs[0].key}): {NO_CATEGORY}"
        ]

    def not_used(self, sequences_per_file: int, used: Collection[FilePair]) -> list[str]:
        """Warning about records in unused files: how many, why, and which groups have no used file at all.

        Parameters
        ----------
        sequences_per_file : int
            Records of a full file.
        used : collection of FilePair
            The files that are used.
        """
        total = sum(self.records.values())
        count_used = sum(self.records.get(pair, 0) for pair in used)
        if count_used == total:
            return []
        why, none_of = Counter[str](), Counter[str]()
        seen = {pair.category for pair in used}
        for pair, records in self.records.items():
            if pair in used:
                continue
            if pair.category is None:
                why["of no category"] += records
            elif records < sequences_per_file:
                why["in short last files"] += records
            elif records > sequences_per_file:
                why[f"in files of more than {sequences_per_file}"] += records
            else:
                why["not selected"] += records
            if pair.category is not None and pair.category not in seen:
                none_of[pair.category] += records
        reasons = ", ".join(f"{records} {reason}" for reason, records in why.items())
        lines = [f"{count_used} of {counted(total, 'record')} are used: {reasons}"]
        if none_of:
            groups = ", ".join(f"{category} ({counted(n, 'record')})" for category, n in none_of.items())
            lines.append(f"no record is used of {groups}")
        return lines

    def sizes_hint(self, sequences_per_file: int) -> list[str]:
        """Advice if no viral file has the requested size; a size is suggested only if a run with it would start."""
        viral = Counter(count for pair, count in self.records.items() if pair.category == VIRAL)
        host = {count for pair, count in self.records.items() if pair.category not in (VIRAL, None)}
        if not viral:
            return [
                "no viral source was found: its name begins with viral, as in viral.1.1.identified_nucleotide.fa, or "
                "its folder is called viral"
            ]
        usable = next((size for size, _ in viral.most_common() if size in host), None)
        if usable is None:
            return self._smaller_hint(sequences_per_file)
        what = f"{viral[usable]} viral files hold" if viral[usable] > 1 else "a viral file holds"
        return [f"{what} {counted(usable, 'record')}; to use such files: --sequences-per-file {usable}"]

    def _smaller_hint(self, sequences_per_file: int) -> list[str]:
        """Advice if sources are too small for the requested size: the size of files that they could be split into."""
        totals = {
            is_viral: max((s.records for s in self.sources if _is_viral(s.source) is is_viral), default=0)
            for is_viral in (True, False)
        }
        most = min(total for total in totals.values() if total > 0)
        if any(state.is_split for state in self.sources):
            way = f"nucpro split {self.sources[0].source.data_dir} --replace --sequences-per-file N"
        else:
            way = "--sequences-per-file N"
        return [
            f"files of {counted(sequences_per_file, 'record')} are too large: the largest viral "
            f"source holds {counted(totals[True], 'record')}, the largest host "
            f"source {totals[False]}; to use smaller ones: {way}, N at most {most}"
        ]

    def _of_size(self, records: int) -> list[FilePair]:
        return [pair for pair, count in self.records.items() if count == records]


def _is_viral(source: Source) -> bool:
    return source.category == VIRAL


def numbers_in(folder: Path) -> tuple[int, ...] | None:
    """K of all ``output_K.fa`` in a folder, sorted; None if there is no folder."""
    try:
        with os.scandir(folder) as entries:
            found = (split_number(entry.name) for entry in entries)
            return tuple(sorted(number for number in found if number is not None))
    except (FileNotFoundError, NotADirectoryError):
        return None


def take_inventory(
    sources: Sequence[Source], checkpoint: Checkpoint, workers: Mapper, sequences_per_file: int
) -> Inventory:
    """Count all records that could be used.

    Parameters
    ----------
    sources : sequence of Source
        The sources of the data folder.
    checkpoint : Checkpoint
        Remembers counts of files that have not changed.
    workers : Mapper
        Where FASTA files are read.
    sequences_per_file : int
        Size of the parts that a source without split folders will be split into.

    Returns
    -------
    Inventory
        Sources, files and records of the folder.
    """
    totals, problems = _count_all(sources, checkpoint, workers)
    states = [
        SourceState(
            source,
            totals.get(source, -1),
            numbers_in(source.nucleotide_folder),
            numbers_in(source.protein_folder),
        )
        for source in sources
    ]
    existing = [s.source.pair(number) for s in states for number in s.nucleotide_numbers or ()]
    facts, unreadable = inspect_all(existing, SequenceType.DNA, checkpoint, workers)
    records = {pair: facts[pair].records for pair in existing if pair in facts}
    problems += unreadable + _shared_folders(sources)
    for state in states:
        if state.nucleotide_numbers is None:
            records.update(_planned(state, sequences_per_file))
        elif state.records >= 0 and all(
            state.source.pair(number) in records for number in state.nucleotide_numbers
        ):
            # If a part could not be read, the total is unknown.
            problems += _split_problems(state, records)
    return Inventory(tuple(states), records, tuple(problems))


def size_on_disk(sources: Sequence[Source], checkpoint: Checkpoint, workers: Mapper) -> int | None:
    """Records of a full file, inferred from the split folders; None if every source fits into one file.

    Viral sources take precedence: a run needs their full files.
    """
    split = [source for source in sources if len(numbers_in(source.nucleotide_folder) or ()) > 1]
    viral = [source for source in split if source.category == VIRAL]
    firsts = [source.pair(1) for source in viral or split]
    facts, _ = inspect_all(firsts, SequenceType.DNA, checkpoint, workers)
    common = Counter(fact.records for fact in facts.values()).most_common(1)
    return common[0][0] if common else None


def inspect_all(
    pairs: Sequence[FilePair], sequence_type: SequenceType, checkpoint: Checkpoint, workers: Mapper
) -> tuple[dict[FilePair, FastaFacts], list[str]]:
    """Facts of the FASTA files of a sequence type, and problems of those that cannot be read.

    The checkpoint is used for files that have not changed.
    """
    facts: dict[FilePair, FastaFacts] = {}
    unknown = []
    for pair in pairs:
        known = checkpoint.fact("fasta", pair.fasta(sequence_type))
        if known is None or known.get("side") != sequence_type or not known.keys() >= _FACTS:
            unknown.append((pair, sequence_type))
        else:
            facts[pair] = _restored(known)
    problems = []
    for pair, stamp, result in workers.map(_inspect, unknown):
        if isinstance(result, str):
            problems.append(result)
        else:
            facts[pair] = result
            # Problems name the path, which may differ when they are reported again.
            if result.problems:
                continue
            fact = {**asdict(result), "side": sequence_type}
            checkpoint.add("fasta", pair.fasta(sequence_type), fact, stamp)
    return facts, sorted(problems)


def _restored(known: dict[str, object]) -> FastaFacts:
    fields = {name: known[name] for name in _FACTS}
    fields["problems"] = tuple(fields["problems"])  # type: ignore[arg-type]
    return FastaFacts(**fields)  # type: ignore[arg-type]


def _inspect(task: tuple[FilePair, SequenceType]) -> tuple[FilePair, Fingerprint | None, FastaFacts | str]:
    pair, sequence_type = task
    path = pair.fasta(sequence_type)
    # Taken before reading: a file that changes while it is read must not be recorded with its old fingerprint.
    stamp = Fingerprint.of(path)
    try:
        return pair, stamp, inspect(path, ALPHABETS[sequence_type], LIMITS[sequence_type])
    except FastaError as error:
        return pair, stamp, str(error)


def _count_all(
    sources: Sequence[Source], checkpoint: Checkpoint, workers: Mapper
) -> tuple[dict[Source, int], list[str]]:
    recorded = ((source, checkpoint.fact("count", source.nucleotide_fasta)) for source in sources)
    totals = {source: fact["records"] for source, fact in recorded if fact is not None}
    problems = []
    for source, stamp, result in workers.map(_count, [source for source in sources if source not in totals]):
        if isinstance(result, str):
            problems.append(result)
        else:
            totals[source] = result
            checkpoint.add("count", source.nucleotide_fasta, {"records": result}, stamp)
    return totals, sorted(problems)


def _count(source: Source) -> tuple[Source, Fingerprint | None, int | str]:
    stamp = Fingerprint.of(source.nucleotide_fasta)
    try:
        return source, stamp, count(source.nucleotide_fasta)
    except FastaError as error:
        return source, stamp, str(error)


def _planned(state: SourceState, sequences_per_file: int) -> Iterable[tuple[FilePair, int]]:
    for start in range(0, state.records, sequences_per_file):
        pair = state.source.pair(start // sequences_per_file + 1)
        yield pair, min(sequences_per_file, state.records - start)


def _shared_folders(sources: Sequence[Source]) -> list[str]:
    """Sources whose merged files would have the same names."""
    owners: dict[str, Source] = {}
    return [
        f"{source.nucleotide_fasta}: its merged files would overwrite those of {owner.nucleotide_fasta.name}; "
        "rename or move one of them"
        for source in sources
        if (owner := owners.setdefault(os.fspath(source.merged_folder), source)) is not source
    ]


def _split_problems(state: SourceState, records: dict[FilePair, int]) -> list[str]:
    """Incomplete folders and leftovers of an older split."""
    source, numbers = state.source, state.nucleotide_numbers or ()
    folder, parent = source.nucleotide_folder, source.nucleotide_fasta
    counts = [records.get(source.pair(number), 0) for number in numbers]
    missing = sorted(set(range(1, len(numbers) + 1)) - set(numbers))
    if sum(counts) == state.records and not missing:
        return []
    facts = f"its files hold {counted(sum(counts), 'record')} in all, {parent.name} holds {state.records}"
    remedy = (
        "remove the folder, so that it is split again (this also removes its DNABERT-S files), or complete it"
    )
    if missing:
        gaps = ", ".join(f"output_{number}.fa" for number in missing[:5])
        return [f"{folder}: half-made split: {gaps} missing; {facts}; {remedy}"]
    if sum(counts) < state.records:
        return [
            f"{folder}: half-made split: ends at output_{numbers[-1] if numbers else 0}.fa; {facts}; {remedy}"
        ]
    leftovers = _beyond(numbers, counts, state.records)
    return [
        f"{folder}: leftovers of an older split: {leftovers}; {facts}; remove what {parent.name} does not contain"
    ]


def _beyond(numbers: Sequence[int], counts: Sequence[int], total: int) -> str:
    running = 0
    for number, records in zip(numbers, counts, strict=True):
        running += records
        if running >= total:
            first, last = number + (running == total), numbers[-1]
            return f"output_{first}.fa" if first == last else f"output_{first}.fa to output_{last}.fa"
    return "its files"
