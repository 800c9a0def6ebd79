#!/usr/bin/env python3
"""Protein embeddings for all training data of a VirNucPro data folder, in one command.

    python scripts/extract_training_data.py

finds the data, checks everything before the GPU is touched, extracts FastESM2_650 vectors, merges them
with the DNABERT-S vectors, validates the files on disk, and can be killed at any time and run again.

This script is the job, written to be read: the eight functions below are its steps, and ``main`` calls them in order
with what the steps before gave. They share a ``Run``, which holds the lock, the record of what is done and the worker
processes; called on their own, they open one for the files that they are given. ``nucpro extract`` is the same job.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# The script runs from anywhere, installed or not: the package and ``units`` of this clone come first.
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from nucpro.__main__ import answer_signals, open_streams

if __name__ == "__main__":
    answer_signals()  # what follows takes a while
from nucpro.cli.arguments import add_messages, log_file, manner_of
from nucpro.cli.console import Terminated, console, exit_code_of, showing, told_end
from nucpro.cli.extract import add_arguments
from nucpro.cli.main import answer, asks_for_help, leave
from nucpro.cli.parser import Parser
from nucpro.errors import PreflightError, UsageError, first_few
from nucpro.extraction.preflight import dna_problems
from nucpro.extraction.run import Run, dry_run, make_dna_first, validate_folder, whole_command
from nucpro.extraction.survey import read_only_survey
from nucpro.extraction.validation import expected_width
from nucpro.folder.paths import CLASS_NAMES, DataFolder, FilePair, walk_failed
from nucpro.options import Options
from nucpro.report.writing import report_at_end
from nucpro.state.checkpoint import Checkpoint
from units import (
    DNA_DIM,
    MERGED_DIM,
    PROTEIN_DIM,
    DimensionError,
    as_encoder,
    merge_data,
    recipe_of,
    validate_merge_inputs,
)


def discover_training_data(
    data_dir: str | Path = "./data/", *, run: Run | None = None
) -> tuple[list[str], list[str]]:
    """Find the nucleotide files to use: all full viral ones, and a balanced choice of full host files.

    Which hosts: the recorded choice; else those that have outputs already; else a seeded draw.

    Returns
    -------
    viral_files, host_files : list of str
        Split nucleotide FASTA files, which begin as ``data_dir`` does; everything else that belongs to one is
        found from its path.
    """
    walked = os.walk(data_dir, followlinks=True, onerror=walk_failed)
    sources = DataFolder(Path(data_dir)).walk_sources(walked)
    if run is not None:
        run.discover(sources)
        selection = run.survey.selection
    else:
        with read_only_survey(Options(Path(data_dir))) as survey:
            selection = survey.discover(sources)
    return _names(data_dir, selection.viral), _names(data_dir, selection.hosts)


def load_checkpoint(checkpoint_path: str | Path) -> dict[str, Any]:
    """What an earlier run finished: ``completed_files`` (below the data folder) and ``started_at``."""
    checkpoint = Checkpoint(DataFolder.of_checkpoint(Path(checkpoint_path)), read_only=True)
    return {"completed_files": checkpoint.completed, "started_at": checkpoint.started_at}


def save_checkpoint(checkpoint_path: str | Path, completed_files: Sequence[str], started_at: str) -> None:
    """Write the list of finished protein files, atomically; what else is known of the folder is kept.

    The list speeds a restart up and is never believed alone: files are compared with what made them. Its paths
    may be absolute, or relative to the working directory or to the data folder; a protein FASTA and its ``_ESM.pt``
    mean the same.
    """
    folder = DataFolder.of_checkpoint(Path(checkpoint_path))
    pairs = {name: folder.pair_named(name) for name in completed_files}
    if unknown := [str(name) for name, pair in pairs.items() if pair is None]:
        raise UsageError(
            f"{folder.root} has no such files: {first_few(unknown, 5)}; give paths of its split files"
        )
    with Checkpoint(folder) as checkpoint:
        checkpoint.started_at = started_at
        checkpoint.restart(pair.protein_vectors for pair in pairs.values() if pair is not None)
        checkpoint.fold()


def validate_prerequisites(
    viral_files: Sequence[str],
    host_files: Sequence[str],
    *,
    device: str = "cuda",
    run: Run | None = None,
) -> None:
    """Stop before any model is loaded if the device is not there, or a file lacks its ``_DNABERT_S.pt``.

    All files that lack it are listed. Within the job, on its device, and with everything else that can be checked
    before the start.
    """
    pairs = _pairs((*viral_files, *host_files))
    if run is not None:
        run.take(pairs)
        run.check()
        run.show()
        return
    from nucpro.embedding.device import device_problems  # noqa: PLC0415 - imports torch

    problems = device_problems(device) + dna_problems(pairs, "nucpro embed-dna DATA")
    if problems:
        raise PreflightError(problems)


def extract_all(
    viral_protein_files: Sequence[str],
    host_protein_files: Sequence[str],
    model: Any,
    tokenizer: Any,
    checkpoint_path: str | Path,
    *,
    run: Run | None = None,
) -> int:
    """Embed all protein files that are not done, viral ones first; returns how many were made.

    A few files are under way at a time, so that the GPU never waits for a disk; each is in the checkpoint as soon as
    it is on disk. Within the job finished files are merged beside it.
    """
    files = (*viral_protein_files, *host_protein_files)
    if run is not None:
        run.make(_pairs(files))
        return run.statistics.files
    if not files:
        return 0
    folder = DataFolder.of_checkpoint(Path(checkpoint_path)).root
    with showing() as show, Run(Options(folder), show=show) as alone:
        alone.take(_pairs(files, alone.folder))
        alone.use(recipe_of(model, tokenizer), lambda: as_encoder(model, tokenizer))
        alone.make(merging=False)
        return alone.statistics.files


def merge_all(viral_files: Sequence[str], host_files: Sequence[str], *, run: Run | None = None) -> int:
    """Join DNA and protein vectors of all files, matched by id; returns how many were merged.

    Within the job most are merged already, in worker processes, while the GPU was at work; this waits for the rest.
    """
    if run is not None:
        run.finish()
        return run.statistics.merged
    width = expected_width(_pairs((*viral_files, *host_files)))
    for label, files in ((1, viral_files), (0, host_files)):
        for pair in _pairs(files):
            if pair.label != label:
                what = f"given as {CLASS_NAMES[label]}, but its path says {pair.category}"
                raise UsageError(f"{pair.nucleotide_fasta}: {what}; give it with its own class")
            merge_data(
                pair.dna_vectors, pair.protein_vectors, pair.merged, CLASS_NAMES[label], protein_dim=width
            )
    return len(viral_files) + len(host_files)


def validate_all(data_dir: str | Path = "./data/", *, run: Run | None = None) -> None:
    """Read everything back from disk and check it; the last line says that it passed.

    Then open one file of each class as a training script would, with ``torch.load``.
    """
    if run is None:
        verdicts = validate_folder(Options(Path(data_dir)))
    else:
        verdicts = run.validate(report_at_end) if run.options.report else run.validate()
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
        raise DimensionError(len(ids), len(rows), "rows", str(path))
    if rows.shape[1] == MERGED_DIM:  # other models have other widths
        validate_merge_inputs(rows[0, :DNA_DIM], rows[0, DNA_DIM : DNA_DIM + PROTEIN_DIM], ids[0])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the whole job.

    Returns
    -------
    int
        0 done, 1 data or validation error, 2 usage, 3 pre-flight, 130 and 143 interrupted.
    """
    open_streams()
    parser = Parser(prog="extract_training_data.py", description=__doc__)
    add_arguments(parser)
    add_messages(parser)
    argv = sys.argv[1:] if argv is None else argv
    if asks_for_help(argv):
        return answer(parser.format_help())
    arguments = vars(parser.parse_args(argv))
    manner = manner_of(arguments)
    with console(log_file(arguments), manner):
        try:
            do(Options.of(arguments))
        except (Exception, KeyboardInterrupt, Terminated) as error:  # noqa: BLE001 - becomes an exit code
            return told_end(exit_code_of(error, arguments))
        return told_end(0)


def do(options: Options) -> None:
    """Call the steps in their order."""
    # A tqdm bar that counts files and estimates by residues; the folder is held from the first DNA file on.
    with showing() as show, whole_command(options) as is_held:
        if options.with_dna:
            make_dna_first(options, show, is_held=is_held)
        if options.dry_run:
            dry_run(options, show=show)
            return
        with Run(options, show=show, is_held=is_held) as run:
            viral_files, host_files = discover_training_data(run.options.data_dir, run=run)
            validate_prerequisites(viral_files, host_files, run=run)  # nothing is touched
            run.prepare()
            model = run.load()  # None where no protein file has to be made, or workers of a cluster load it
            viral_proteins = [str(pair.protein_fasta) for pair in run.survey.selection.viral]
            host_proteins = [str(pair.protein_fasta) for pair in run.survey.selection.hosts]
            extract_all(viral_proteins, host_proteins, model, None, run.folder.checkpoint, run=run)
            merge_all(viral_files, host_files, run=run)
            run.audit()
            validate_all(options.data_dir, run=run)


def _names(data_dir: str | Path, pairs: Sequence[FilePair]) -> list[str]:
    # Path would drop the "./" that scripts look for at the beginning.
    return [os.path.join(data_dir, pair.key) for pair in pairs]  # noqa: PTH118


def _pairs(names: Sequence[str | Path], folder: DataFolder | None = None) -> list[FilePair]:
    """File pairs of split FASTA files of either side, each once; all that are not there are listed."""
    pairs, problems = [], []
    for name in names:
        here = folder or DataFolder.around(Path(name))
        pair = here.pair_named(name)
        if pair is None:
            problems.append(
                f"{name}: no split file of {here.root} (output_K.fa in an identified_… folder); "
                "name files that discover_training_data found"
            )
        elif not (pair.nucleotide_fasta.exists() or pair.protein_fasta.exists()):
            problems.append(f"{name}: no such file; name files that discover_training_data found")
        else:
            pairs.append(pair)
    if problems:
        raise PreflightError(problems)
    return list(dict.fromkeys(pairs))


if __name__ == "__main__":
    leave(main())
