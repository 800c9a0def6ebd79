"""A run of ``nucpro dataset``: all genomes of a data folder to FASTA files of reading frames.

It locks the folder, checks everything that can be checked before a file is touched, converts each pair of
genome files in a worker process, and reports. Each source is complete on disk before it is reported, so a
stopped run is resumed.
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from nucpro.errors import DataError, PreflightError, counted, first_few
from nucpro.execution.runner import Committed, Runner
from nucpro.execution.workers import Workers, starting_problems
from nucpro.folder.kinds import require_folder
from nucpro.folder.paths import DataFolder, Source, contradiction_in
from nucpro.formats import remove_temporaries
from nucpro.formats.atomic import name_problem
from nucpro.genomes.conversion import Conversion, attempt
from nucpro.genomes.options import DatasetOptions
from nucpro.genomes.paths import (
    FASTA_SUFFIX,
    GENBANK_SUFFIX,
    GenomePair,
    Genomes,
    find_genomes,
    manifest_path,
    organisms_path,
)
from nucpro.genomes.reports import DatasetReport, SourceReport, read_manifest
from nucpro.progress import BYTES, Meter, Show, silent

__all__ = ["build"]

logger = logging.getLogger(__name__)

_SHOWN = 3
_PAIR = (
    f"a pair has names like viral.1.1{FASTA_SUFFIX} and viral.1{GENBANK_SUFFIX} in one folder, compressed with gzip: "
    "rename or compress the files, or complete their download"
)


def build(
    data_dir: Path,
    options: DatasetOptions | None = None,
    show: Show = silent,
    pool: Workers | None = None,
) -> DatasetReport:
    """Make ``X.identified_nucleotide.fa`` and ``X.identified_protein.fa`` for all genomes of a data folder.

    Sources that are complete and were made from the same genomes with the same options are left as they
    are. The result depends on genomes and options only.

    Parameters
    ----------
    data_dir : Path
        Folder with ``X.genomic.fna.gz`` and ``Y.genomic.gbff.gz``, sub-folders included.
    options : DatasetOptions, optional
        Choices; the defaults are those of the original training data at 300 bases.
    show : callable, optional
        Takes the progress, in bytes of genome files.
    pool : Workers, optional
        Where pairs of genome files are converted, such as the nodes of a cluster; by default in
        ``options.workers`` processes.

    Returns
    -------
    DatasetReport
        Counts of all sources.

    Raises
    ------
    PreflightError
        There is no such folder, another run holds it, there are no genomes, or files of other options are in it.
    DataError
        Genomes cannot be read; the message names file and record. All other pairs are done.
    StoreError
        A file cannot be written.
    """
    options = options or DatasetOptions()
    require_folder(data_dir)
    with Runner(DataFolder(data_dir).lock) as runner:
        genomes = find_genomes(data_dir)
        problems = list(_problems(genomes, data_dir, options, pool))
        if problems:
            raise PreflightError(problems)
        unusable = {pair: reasons for pair in genomes.pairs if (reasons := list(_unusable(pair)))}
        pairs = [pair for pair in genomes.pairs if pair not in unusable]
        reasons = [reason for some in unusable.values() for reason in some]
        if not pairs:
            raise PreflightError(reasons)
        for reason in reasons:
            logger.warning("%s", reason)
        for folder in genomes.folders:
            remove_temporaries(folder)
        for name in genomes.without_partner:
            logger.warning("%s: no GenBank file (%s) beside it; left out", name, GENBANK_SUFFIX)
        if genomes.others:
            logger.warning("%s", _not_used(genomes.others))
        reports = dict(_convert_all(runner, pairs, options, show, pool))
    failures = [found for found in reports.values() if isinstance(found, DataError)]
    if failures and len(genomes.pairs) == 1:
        raise failures[0]
    if unusable or failures:
        reasons += map(str, failures)
        raise DataError(
            f"{len(unusable) + len(failures)} of {counted(len(genomes.pairs), 'pair')} of genome files could not be "
            "used; all other files are done:\n" + "\n".join(f"  - {reason}" for reason in reasons)
        )
    found = (reports[pair.relative] for pair in pairs)
    sources = tuple(report for report in found if isinstance(report, SourceReport))
    return DatasetReport(options.length, options.genetic_code, sources, genomes.without_partner)


def _convert_all(
    runner: Runner, pairs: Sequence[GenomePair], options: DatasetOptions, show: Show, pool: Workers | None
) -> Iterator[tuple[str, SourceReport | DataError]]:
    sizes = {pair.relative: pair.fasta.stat().st_size + pair.genbank.stat().st_size for pair in pairs}
    meter = Meter(show, "Finding reading frames", sum(sizes.values()), BYTES)
    # The largest pair first, so that no worker is left with it alone at the end.
    order = sorted(pairs, key=lambda pair: -sizes[pair.relative])
    conversions = [Conversion(pair, options) for pair in order]
    count = min(options.workers, len(pairs))
    with Workers(count) if pool is None else nullcontext(pool) as workers:
        few = len(pairs) if pool is None and count == 1 else 0
        converted = workers.map(attempt, conversions, few=few)
        yield from runner.each(converted, lambda one: _told(*one, sizes), meter, done=0, total=len(pairs))


def _told(name: str, report: SourceReport | DataError, sizes: Mapping[str, int]) -> Committed:
    """Report on a source, recorded by its worker after writing it."""
    if isinstance(report, DataError):
        return Committed(f"{name}: cannot be used; the reason is shown at the end", sizes[name])
    return Committed(f"{name}: {counted(report.counts.kept_frames, 'reading frame')} kept", sizes[name])


def _not_used(names: Sequence[str]) -> str:
    """Which files look like genomes, but are of no pair, in words."""
    return f"{counted(len(names), 'other file')} not used: {first_few(names, _SHOWN)}; {_PAIR}"


def _problems(
    genomes: Genomes, data_dir: Path, options: DatasetOptions, pool: Workers | None
) -> Iterator[str]:
    if not genomes.pairs:
        found = [*genomes.without_partner, *genomes.others]
        yield (
            f"{data_dir}: no genomes found; it must hold pairs of X{FASTA_SUFFIX} and Y{GENBANK_SUFFIX}, "
            f"such as viral.1.1 and viral.1, which nucpro download {shlex.quote(str(data_dir))} fetches"
            f"{f'; found only {first_few(found, _SHOWN)}; {_PAIR}' if found else ''}"
        )
    if pool is None and min(options.workers, len(genomes.pairs)) > 1:
        yield from starting_problems()
    for pair in genomes.pairs:
        doubt = contradiction_in(pair.relative)
        if doubt:
            yield f"{pair.fasta}: {doubt}"
    for (length, code), names in _made_otherwise(genomes, options).items():
        yield (
            f"{data_dir}: made with length {length} and the {code} genetic code: {first_few(names, _SHOWN)}; "
            f"this run asks for {options.length} and {options.genetic_code}, and one data folder holds one kind: "
            "use another folder, or recreate all with --replace"
        )
    for pair in genomes.pairs:
        too_long = name_problem(pair.source.nucleotide_fasta)
        if too_long:
            name = pair.source.nucleotide_fasta.name
            yield f"{pair.fasta}: would give {name}: {too_long}; shorten the names of the pair"
        elif not options.replace:
            yield from _unrecorded(pair)


def _unusable(pair: GenomePair) -> Iterator[str]:
    """Files of a pair that cannot be opened as files: the pairs beside it can be converted all the same."""
    for path in (pair.fasta, pair.genbank):
        if path.is_symlink() and not path.exists():
            yield (
                f"{path}: is a link to {path.readlink()}, which does not exist; get the file "
                "(git annex get, datalad get, "
                "dvc pull), or copy it with cp -L from where it is"
            )
        elif not path.is_file():
            yield f"{path}: is a pipe or a device, expected a file; put the file itself there"
        elif not os.access(path, os.R_OK):
            yield f"{path}: may not be read; check owner and rights"


def _made_otherwise(genomes: Genomes, options: DatasetOptions) -> dict[tuple[int, str], list[str]]:
    """Sources that this run will not make again though other options made them, by these options."""
    replaceable = {pair.source for pair in genomes.pairs} if options.replace else set()
    found: dict[tuple[int, str], list[str]] = {}
    for source in genomes.recorded:
        manifest = read_manifest(manifest_path(source))
        if manifest and source not in replaceable and _has_files(source) and not manifest.is_of_kind(options):
            found.setdefault((manifest.length, manifest.genetic_code), []).append(source.relative)
    return found


def _has_files(source: Source) -> bool:
    return source.nucleotide_fasta.exists() or source.protein_fasta.exists()


def _unrecorded(pair: GenomePair) -> Iterator[str]:
    source, manifest = pair.source, read_manifest(pair.manifest)
    paths = [] if manifest else [source.nucleotide_fasta, source.protein_fasta]
    if manifest is None or "organisms" not in manifest.outputs:
        paths.append(organisms_path(source))
    for path in filter(os.path.lexists, paths):
        yield (
            f"{path}: there is no record that nucpro wrote it; move it away, or recreate it with --replace"
        )
