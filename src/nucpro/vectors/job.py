"""A file of vectors of a file of sequences: everything is checked, then computed part by part, then written whole.

A run that was interrupted at any point and is started again computes only the missing parts. The folder in
which they are kept, and the file itself, are not touched before everything is known to fit.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from nucpro.embedding import encoder as encoders
from nucpro.embedding.device import settled
from nucpro.embedding.encoder import Identified
from nucpro.embedding.identification import require_residues
from nucpro.errors import (
    DimensionError,
    FastaError,
    ModelError,
    PreflightError,
    UsageError,
    counted,
    human_size,
)
from nucpro.execution.engine import Done, Engine, engine_of, load_one
from nucpro.execution.runner import Committed, Runner
from nucpro.extraction.preflight import space_problems, writing_problems
from nucpro.folder.kinds import Kind, place_problems
from nucpro.formats import make_folder
from nucpro.formats.atomic import name_problem
from nucpro.formats.fasta import stream
from nucpro.formats.opening import spooled
from nucpro.formats.sequences import SequenceType
from nucpro.models.config import MEAN_OF_LAST, Readout
from nucpro.options import Options
from nucpro.progress import Meter, Show, silent
from nucpro.state.checkpoint import Fingerprint, require_unchanged
from nucpro.vectors.hdf5 import HDF5_SUFFIXES, Hdf5
from nucpro.vectors.inputs import (
    InputFacts,
    Part,
    PartSize,
    default_part_size,
    inspect,
    length_problem,
    parts_of,
)
from nucpro.vectors.residues import Shards
from nucpro.vectors.work import MARK, Made, Rows, Work

__all__ = ["EmbedOptions", "EmbedReport", "embed_file", "embed_files"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbedOptions:
    """Options of ``nucpro embed``.

    Parameters
    ----------
    input : Path
        FASTA file, plain or compressed, or a pipe.
    output : Path
        File to write; its suffix is the format (:data:`nucpro.vectors.outputs.FORMATS`). For vectors of
        residues, a folder (:mod:`nucpro.vectors.residues`) or an HDF5 file (:mod:`nucpro.vectors.hdf5`).
    models : Options
        Model, device, precision and engine.
    sequence_type : SequenceType
        Sequence type of the records.
    is_sure : bool
        Accept proteins that look like nucleotides.
    replace : bool
        Replace a file of other vectors, or what another run left unfinished.
    part : PartSize, optional
        What is computed and kept at a time; the default depends on the class of device only.
    readout : Readout
        Layers and poolings of a vector, and whether it is one per record or per residue.
    refuse_long : bool
        Refuse records that are longer than the model reads, which are cut there otherwise.
    adapter : str, optional
        Folder of a LoRA adapter; see :func:`nucpro.embedding.identification.identify`.
    """

    input: Path
    output: Path
    models: Options
    sequence_type: SequenceType = SequenceType.PROTEIN
    is_sure: bool = False
    replace: bool = False
    part: PartSize | None = None
    readout: Readout = MEAN_OF_LAST
    refuse_long: bool = False
    adapter: str | None = None

    def __post_init__(self) -> None:
        if self.sequence_type is SequenceType.DNA:
            self.models.require_no_model(SequenceType.PROTEIN, "only without --dna, which takes --dna-model")
        else:
            self.models.require_no_model(SequenceType.DNA, "only with --dna; proteins take --protein-model")


@dataclass(frozen=True)
class EmbedReport:
    """Result of a run.

    Parameters
    ----------
    output : Path
        The file.
    records, width : int
        Records, and columns of a vector.
    vectors : int
        Vectors of all records.
    truncated : int
        Records that are longer than the model reads, and were truncated.
    computed : int
        Records of them that this run computed.
    tokens, unknown : int
        Tokens that this run computed, and those unknown to the model.
    """

    output: Path
    records: int
    width: int
    vectors: int
    truncated: int
    computed: int = 0
    tokens: int = 0
    unknown: int = 0


@dataclass(frozen=True)
class _Checked:
    """A job that nothing speaks against."""

    options: EmbedOptions
    path: Path
    stamp: Fingerprint | None
    facts: InputFacts
    identified: Identified
    work: Work
    size: PartSize
    is_done: bool

    @property
    def meta(self) -> dict[str, Any]:
        """``meta`` of the file."""
        return {**self.identified.recipe.meta(self.facts.digest, len(self.facts.ids)), **MARK}


def embed_file(options: EmbedOptions, show: Show = silent) -> EmbedReport:
    """Make a file of vectors of a file of sequences, or resume an interrupted run.

    Parameters
    ----------
    options : EmbedOptions
        Input, output and model.
    show : callable, optional
        Called with the progress.

    Returns
    -------
    EmbedReport
        Output, counts and width.

    Raises
    ------
    UsageError
        The suffix of the output is not a known format.
    PreflightError
        Found before anything was touched: problems of input, model, device or output, all at once.
    ExtractionError
        The encoder failed on a record; parts that were done stay.
    DataError, StoreError
        The input changed during the run, or a file cannot be written.
    """
    (report,) = embed_files([options], show)
    return report


def embed_files(jobs: Sequence[EmbedOptions], show: Show = silent) -> list[EmbedReport]:
    """Make files of vectors of several files of sequences, one after the other, or resume an interrupted run.

    Parameters
    ----------
    jobs : sequence of EmbedOptions
        At least one; they differ in input and output alone, so the model is loaded once.
    show : callable, optional
        Takes the progress of each.

    Returns
    -------
    list of EmbedReport
        In the same order.

    Raises
    ------
    NucproError
        As :func:`embed_file`; all of them are checked before anything is computed.
    """
    models = settled(jobs[0].models)
    jobs = [replace(options, models=models) for options in jobs]
    with engine_of(models) as engine, ExitStack() as stack:
        checked = _check_all(jobs, engine, lambda path: stack.enter_context(spooled(path, FastaError)))
        load = cache(partial(engine.load, partial(load_one, checked[0].identified, models)))
        return [_embed(one, engine, load, show) for one in checked]


def _check_all(jobs: Sequence[EmbedOptions], engine: Engine, spool: Callable[[Path], Path]) -> list[_Checked]:
    model = _model(jobs[0])
    checked: list[_Checked] = []
    problems: list[str] = []
    for options in jobs:
        try:
            checked.append(_check(options, _work_of(options), model, engine, spool))
        except PreflightError as error:
            problems += error.problems
    problems += space_problems(_disk_needed(checked))
    if problems:
        raise PreflightError(list(dict.fromkeys(problems)))
    return checked


def _disk_needed(jobs: Iterable[_Checked]) -> dict[Path, tuple[int, int]]:
    """Most bytes that the outputs of each folder, made one after the other, take at a time beyond today's."""
    lasting: Counter[Path] = Counter()
    most: dict[Path, tuple[int, int]] = {}
    for job in jobs:
        if job.is_done:
            continue
        folder, disk = job.options.output.parent, job.work.disk(job.facts, job.identified.recipe.width)
        highest = lasting[folder] + disk.lasting + disk.meanwhile
        most[folder] = max(highest, most.get(folder, (0, 0))[0]), 0
        lasting[folder] += disk.lasting - disk.replaced
    return most


def _embed(checked: _Checked, engine: Engine, load: Callable[[], object], show: Show) -> EmbedReport:
    output = checked.options.output
    work = checked.work
    if checked.is_done:
        work.remove_left()
        logger.info("%s already holds these vectors", output)
        return _report(checked)
    make_folder(output.parent)
    with work.held() as runner:
        return _Run(checked, engine, load, runner, show).run()


def _work_of(options: EmbedOptions) -> Work:
    """What the output will be, if its name can be that of one.

    Raises
    ------
    UsageError
        It cannot.
    """
    element_type = options.readout.per_residue
    require_residues(options.readout, options.sequence_type)
    output, fasta = options.output, options.input
    with suppress(OSError):  # what is not there, or has no possible name, is found where it is opened
        if output.samefile(fasta):
            raise UsageError(f"--output is {output}, the input itself; name another file")
    if not output.name:
        raise UsageError(f"--output is the folder {str(output)!r}; name a file in it")
    work: Work = Rows(output)
    if element_type:
        kind = Hdf5 if output.suffix in HDF5_SUFFIXES else Shards
        work = kind(output, element_type)
    work.require_name()
    return work


def _check(
    options: EmbedOptions,
    work: Work,
    model: tuple[Identified | None, list[str]],
    engine: Engine,
    spool: Callable[[Path], Path],
) -> _Checked:
    """Read input and model, and check whether the output can be written.

    Raises
    ------
    PreflightError
        Names every problem.
    """
    identified, problems = model[0], list(model[1])
    size = options.part or work.part_size or _part_size(options, identified)
    facts, path = None, options.input
    try:
        path = spool(options.input)
        stamp = Fingerprint.of(path)
        facts = inspect(path, options.sequence_type, size, is_sure=options.is_sure)
        problems += [problem.replace(str(path), str(options.input)) for problem in facts.problems]
    except FastaError as error:
        # The content of a pipe is in a temporary file whose name is meaningless.
        problems.append(str(error).replace(str(path), str(options.input)))
    except OSError as error:
        problems.append(f"{options.input}: cannot be read: {error.strerror}")
    problems += engine.problems() + _target_problems(options, work)
    is_done = False
    if facts is not None and identified is not None and not problems:
        width = identified.recipe.width
        if options.readout.windows:
            facts = replace(facts, read=sum(part.size for part in facts.parts))
        problems += work.unfit(facts, width)
        if options.refuse_long and facts.long:
            count, kind, remedy = len(facts.ids), options.sequence_type, "have them cut there with --long cut"
            problems.append(length_problem(options.input, facts.long, count, kind, remedy))
        is_done = identified.recipe.difference(work.own_meta(), facts.digest) is None
        if not is_done:
            problems += work.problems(identified.recipe.key, replace=options.replace)
            if options.readout.per_residue:
                written = human_size(work.disk(facts, width).lasting)
                logger.info("%s: vectors of %d residues, %s to write", options.output, facts.read, written)
    if problems or facts is None or identified is None:
        raise PreflightError(problems)
    parts = counted(len(facts.parts), "part")
    logger.debug(
        "%s: %s, %d characters to read in %s", path, counted(len(facts.ids), "record"), facts.read, parts
    )
    return _Checked(options, path, stamp, facts, identified, work, size, is_done)


def _part_size(options: EmbedOptions, identified: Identified | None) -> PartSize:
    # Windows are averaged before they are pooled.
    element_type = options.readout.per_residue or ("float32" if options.readout.windows else None)
    width = 0 if identified is None or element_type is None else identified.recipe.width
    return default_part_size(options.models.device, width * np.dtype(element_type).itemsize)


def _model(options: EmbedOptions) -> tuple[Identified | None, list[str]]:
    machines = options.models.anywhere() if options.models.uses_cluster else options.models
    try:
        found = encoders.identify(machines, options.sequence_type, adapter=options.adapter)
        return found.reading(options.readout), []
    except (ModelError, DimensionError, UsageError) as error:
        return None, [str(error)]


def _target_problems(options: EmbedOptions, work: Work) -> list[str]:
    output = options.output
    too_long = name_problem(output) or name_problem(work.root)
    if too_long:
        return [f"{output}: {too_long} (with the mark of unfinished ones); choose a shorter name"]
    misplaced = place_problems(output.parent, "vectors", {Kind.DATA})
    return misplaced or work.target_problems(replace=options.replace) + writing_problems([output.parent])


def _report(checked: _Checked, **counts: int) -> EmbedReport:
    facts = checked.facts
    width, output = checked.identified.recipe.width, checked.options.output
    vectors = facts.read if checked.identified.readout.per_residue else len(facts.ids)
    truncated = 0 if checked.options.readout.windows else len(facts.long)
    return EmbedReport(output, len(facts.ids), width, vectors, truncated, **counts)


class _Run:
    """One checked job with a locked folder."""

    def __init__(
        self,
        checked: _Checked,
        engine: Engine,
        load: Callable[[], object],
        runner: Runner,
        show: Show,
    ) -> None:
        self._checked = checked
        self._engine = engine
        self._load = load
        self._work = checked.work
        self._runner = runner
        self._show = show

    def run(self) -> EmbedReport:
        """Compute the missing parts, and write the file."""
        checked = self._checked
        recipe, parts, before = checked.identified.recipe, checked.facts.parts, self._engine.totals
        done = self._work.begin(recipe.key, checked.size, parts, recipe.width)
        if done:
            logger.info("Resuming: %d of %d parts are done", len(done), len(parts))
        computed = self._compute(done)
        self._work.finish(checked.facts.ids, checked.meta, checked.options.sequence_type)
        after = self._engine.totals
        counts = {"tokens": after.tokens - before.tokens, "unknown": after.unknown - before.unknown}
        return _report(checked, computed=computed, **counts)

    def _compute(self, done: set[int]) -> int:
        """Compute the parts that are not done, and keep each; the number of their records."""
        parts = self._checked.facts.parts
        left = [part for number, part in enumerate(parts) if number not in done]
        total = len(self._checked.facts.ids)
        finished = total - sum(part.records for part in left)
        meter = Meter(
            self._show, "Embedding", total, "sequences", done=finished, work=sum(part.size for part in left)
        )
        if not left:
            return 0
        self._load()
        computed = self._engine.run(self._work.compute, self._parts_left(done), len(left))
        kept = self._runner.each(computed, self._keep, meter, done=len(done), total=len(parts))
        return sum(len(part.records) for part, *_ in kept)

    def _keep(self, done: Done[Part, Made]) -> Committed:
        part, _, made = done
        require_unchanged(self._checked.path, self._checked.stamp)
        self._work.commit(part.number, made.result)
        count = len(part.records)
        line = f"Embedded {counted(count, 'sequence')} of {self._checked.options.input}, {made.seconds:.1f}s"
        return Committed(line, count, part.size)

    def _parts_left(self, done: set[int]) -> Iterator[Part]:
        path, size = self._checked.path, self._checked.size
        yield from (part for part in parts_of(path, stream(path), size) if part.number not in done)
        # A shorter input would leave an engine waiting for parts that never come.
        require_unchanged(path, self._checked.stamp)
