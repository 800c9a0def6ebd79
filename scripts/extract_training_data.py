#!/usr/bin/env python3
"""Protein embeddings for all training data of a VirNucPro data folder, in one command.

    python scripts/extract_training_data.py

finds the data, checks everything before the GPU is touched, extracts FastESM2_650 vectors, merges them
with the DNABERT-S vectors, validates what lies on disk, and can be killed at any moment and run again.

This script is the job, written to be read: the eight functions below are its steps, and ``main`` calls
them in order. All of them work on a ``Job``, which holds what the steps share (the lock, the record of
what is done, the worker processes); called on their own, they open one for the files that they are given.
``nucpro extract`` is the same job.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

# The script runs from anywhere, installed or not: the package and ``units`` of this clone come first.
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from nucpro.__main__ import open_streams
from nucpro.checkpoint import Checkpoint
from nucpro.cli.arguments import log_file
from nucpro.cli.console import FileBar, Terminated, console, exit_code_of
from nucpro.cli.extract import add_arguments
from nucpro.cli.main import leave
from nucpro.errors import PreflightError, UsageError
from nucpro.layout import CLASS_NAMES, DataFolder, FilePair, SourceFinder, walk_failed
from nucpro.options import Options
from nucpro.pipeline import make_dna_first, validate_folder
from nucpro.plan import PlanItem
from nucpro.preflight import dna_problems
from nucpro.protein_job import DNA_COMMAND, ProteinJob
from nucpro.recipe import Recipe
from units import (
    DNA_DIM,
    MERGED_DIM,
    PROTEIN_DIM,
    DimensionError,
    as_encoder,
    extract_fast_esm,
    merge_data,
    validate_merge_inputs,
)

logger = logging.getLogger("nucpro.extract_training_data")


def discover_training_data(
    data_dir: str | Path = "./data/", *, job: ProteinJob | None = None
) -> tuple[list[str], list[str]]:
    """Find the nucleotide files to use: all full viral ones, and a balanced choice of full host files.

    Which hosts: the recorded choice; else those that have outputs already; else a seeded draw.

    Returns
    -------
    viral_files, host_files : list of str
        Split nucleotide FASTA files; everything else that belongs to one is found from its path.
    """
    with _job(data_dir, job) as work:
        finder = SourceFinder(work.folder)
        for root, subfolders, files in os.walk(data_dir, followlinks=True, onerror=walk_failed):
            finder.visit(root, subfolders, files)
        selection = work.discover(finder.sources)
        return _paths(selection.viral), _paths(selection.hosts)


def load_checkpoint(checkpoint_path: str | Path) -> dict[str, Any]:
    """What an earlier run finished: ``completed_files`` (below the data folder) and ``started_at``."""
    checkpoint = Checkpoint(DataFolder.of_checkpoint(Path(checkpoint_path)), read_only=True)
    return {"completed_files": checkpoint.completed, "started_at": checkpoint.started_at}


def save_checkpoint(checkpoint_path: str | Path, completed_files: Sequence[str], started_at: str) -> None:
    """Write the list of finished protein files, atomically; what else is known of the folder is kept.

    The list speeds a restart up and is never believed alone: files are compared with what made them.
    """
    folder = DataFolder.of_checkpoint(Path(checkpoint_path))
    with Checkpoint(folder) as checkpoint:
        checkpoint.started_at = started_at
        checkpoint.restart(folder.root / name for name in completed_files)
        checkpoint.fold()


def validate_prerequisites(viral_files: Sequence[str], host_files: Sequence[str]) -> None:
    """Stop before any model is loaded if a file lacks its ``_DNABERT_S.pt``; all that lack it are listed."""
    pairs = [_pair(path) for path in (*viral_files, *host_files)]
    problems = dna_problems(pairs, DNA_COMMAND)
    if problems:
        raise PreflightError(problems)


def extract_all(
    viral_protein_files: Sequence[str],
    host_protein_files: Sequence[str],
    model: Any,
    tokenizer: Any,
    checkpoint_path: str | Path,
    *,
    job: ProteinJob | None = None,
) -> int:
    """Embed all protein files that are not done, viral ones first; returns how many were made.

    Each file goes through ``extract_fast_esm`` in a thread of its own, a few at a time, so that the GPU
    never waits for a disk. Finished files are merged beside it when this is part of the whole job.
    """
    # Within the job there is no model here if nothing has to be extracted, or if workers of a cluster load it.
    encoder = None if model is None and job is not None else as_encoder(model, tokenizer)

    def extract_one(item: PlanItem) -> None:
        proteins, data = extract_fast_esm(item.pair.protein_fasta, item.pair.protein_vectors, encoder)
        if data[0].shape != (work.plan.recipe.width,):
            what = f"{item.pair.protein_fasta}, {proteins[0]}: shape of the vector"
            raise DimensionError(what, (work.plan.recipe.width,), tuple(data[0].shape))

    join = merge_data if job is not None else None
    with _job(Path(checkpoint_path).parent, job) as work:
        if encoder is not None and job is None:
            _compare(work, (*viral_protein_files, *host_protein_files), encoder.recipe)
        with FileBar() as bar:  # a tqdm bar that counts files and estimates by residues
            bar.show(work.progress)
            for _ in work.extract(None if encoder is None else extract_one, join):
                bar.show(work.progress)
        return work.statistics.files


def merge_all(viral_files: Sequence[str], host_files: Sequence[str], *, job: ProteinJob | None = None) -> int:
    """Join DNA and protein vectors of all files, matched by id; returns how many were merged.

    Within the job most are merged already, in worker processes, while the GPU was at work; this waits for
    the rest.
    """
    if job is not None:
        job.finish()
        return job.statistics.merged
    for label, files in ((1, viral_files), (0, host_files)):
        for pair in map(_pair, files):
            if pair.label != label:
                what = f"given as {CLASS_NAMES[label]}, but its path says {pair.category}"
                raise UsageError(f"{pair.nucleotide_fasta}: {what}; give it with its own class")
            merge_data(pair.dna_vectors, pair.protein_vectors, pair.merged, CLASS_NAMES[label])
    return len(viral_files) + len(host_files)


def validate_all(data_dir: str | Path = "./data/", *, job: ProteinJob | None = None) -> None:
    """Read everything back from disk and check it; the last line says that it passed.

    Then open one file of each class as a training script would, with ``torch.load``.
    """
    verdicts = validate_folder(Options(Path(data_dir))) if job is None else job.validate()
    for label in (1, 0):
        look_at_merged(next((v.pair.merged for v in verdicts if v.pair.label == label), None))


def look_at_merged(path: Path | None) -> None:
    """Check the dimensions that a training script would see in one merged file."""
    import torch  # noqa: PLC0415 - only this step needs it

    if path is None:
        return
    content = torch.load(path, weights_only=True, mmap=True)
    rows, ids = content["data"], content["ids"]
    if len(rows) != len(ids):
        raise DimensionError(f"{path}: rows", len(ids), len(rows))
    if rows.shape[1] == MERGED_DIM:  # other models have other widths
        validate_merge_inputs(rows[0, :DNA_DIM], rows[0, DNA_DIM:], ids[0])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the whole job.

    Returns
    -------
    int
        0 done, 1 data or validation error, 2 usage, 3 pre-flight, 130 and 143 interrupted.
    """
    open_streams()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    arguments = vars(parser.parse_args(argv))
    with console(log_file(arguments)):
        try:
            run(Options.of(arguments))
        except (Exception, KeyboardInterrupt, Terminated) as error:  # noqa: BLE001 - becomes an exit code
            return exit_code_of(error)
    return 0


def run(options: Options) -> None:
    """Call the steps in their order."""
    if options.with_dna:
        make_dna_first(options)
    with ProteinJob(options) as job:
        viral_files, host_files = discover_training_data(job.options.data_dir, job=job)
        # The DNABERT_S prerequisites, and everything else that can be checked; nothing is touched.
        job.check()
        job.show()
        if options.dry_run:
            return
        job.prepare()
        model = job.load_model()  # None where no protein file has to be made, or workers of a cluster load it
        width = job.plan.recipe.width
        if job.plan.to_extract and width != PROTEIN_DIM:
            logger.warning("This model gives %d columns, FastESM2_650 gives %d", width, PROTEIN_DIM)
        viral_proteins = [str(pair.protein_fasta) for pair in job.selection.viral]
        host_proteins = [str(pair.protein_fasta) for pair in job.selection.hosts]
        extract_all(viral_proteins, host_proteins, model, None, job.folder.checkpoint, job=job)
        merge_all(viral_files, host_files, job=job)
        job.audit()
        validate_all(options.data_dir, job=job)


@contextmanager
def _job(data_dir: str | Path, job: ProteinJob | None) -> Iterator[ProteinJob]:
    """Give the job that a step is part of, or one of its own for a step that is called alone."""
    with nullcontext(job) if job is not None else ProteinJob(Options(Path(data_dir))) as present:
        yield present


def _compare(job: ProteinJob, protein_files: Sequence[str], recipe: Recipe) -> None:
    job.take([_pair(path) for path in protein_files])
    job.needs_dna = False
    problems = job.inputs()
    if problems:
        raise PreflightError(problems)
    job.compare(recipe)


def _paths(pairs: Sequence[FilePair]) -> list[str]:
    return [str(pair.nucleotide_fasta) for pair in pairs]


def _pair(path: str | Path) -> FilePair:
    """File pair of a split FASTA file of either side."""
    path, default = Path(path), Path("./data/")
    # Below the usual folder, sources may lie in sub-folders; elsewhere the split folder lies in the data folder.
    folder = DataFolder(default if path.is_relative_to(default) else path.parent.parent)
    pair = folder.pair_of(path)
    if pair is None:
        raise PreflightError([f"{path}: not a split FASTA file (output_K.fa in an identified_… folder)"])
    return pair


if __name__ == "__main__":
    leave(main())
