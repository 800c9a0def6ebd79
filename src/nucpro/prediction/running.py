"""The steps of a prediction: check everything, score the rest, write the tables, then other outputs.

A sequence file and a trained classifier come in; the folder of :mod:`nucpro.prediction.options` goes out. A
run that was interrupted at any point and is started again resumes at its unit, and ends with the same bytes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from nucpro.embedding.device import settled
from nucpro.errors import DataError, FastaError, PreflightError, counted
from nucpro.execution.engine import Done, Engine, engine_of
from nucpro.execution.runner import Committed, Runner
from nucpro.extraction.preflight import writing_problems
from nucpro.folder.kinds import place_problems
from nucpro.formats import made_first, remove_temporaries, replacing_problems
from nucpro.formats.atomic import name_problem
from nucpro.formats.opening import STANDARD_INPUT, is_pipe, spooled
from nucpro.prediction.contigs import InputFacts, Unit, inspect, records_of, units_of
from nucpro.prediction.models import Models, find_models
from nucpro.prediction.options import OutputFolder, PredictionOptions
from nucpro.prediction.outputs import asked_for, files_of_a_result
from nucpro.prediction.tables import Counts, stored_units, write_tables
from nucpro.prediction.verdict import Rules, ScoredUnit, Scorer
from nucpro.prediction.work import Work, difference, make_record, read_record, write_record
from nucpro.progress import Meter, Show, silent
from nucpro.state.checkpoint import Fingerprint, changed_files, require_unchanged

__all__ = ["Checked", "PredictionReport", "check", "predict"]

logger = logging.getLogger(__name__)

_CHUNKS_PER_UNIT = {"cuda": 8_192, "cpu": 256}
"""By class of device: seconds of a GPU, and seconds to minutes of a CPU."""
_ELSEWHERE = "name another folder with --output, or replace it with --replace"


@dataclass(frozen=True)
class PredictionReport:
    """What a run gave.

    Parameters
    ----------
    folder : Path
        Path of the result.
    counts : dict of str to int
        See :class:`nucpro.prediction.tables.Counts`.
    scored_chunks, scored_frames : int
        Those that this run scored; earlier runs scored the rest.
    seconds : float
        Time that scoring took, models loaded; on a cluster with loading them.
    splits : int
        Batches that were split after running out of memory.
    files : tuple of Path
        Tables, and what was made of them.
    """

    folder: Path
    counts: Mapping[str, int]
    scored_chunks: int
    scored_frames: int
    seconds: float
    splits: int
    files: tuple[Path, ...]


@dataclass
class _Scored:
    """What a run scored."""

    chunks: int = 0
    frames: int = 0
    seconds: float = 0.0
    splits: int = 0


def predict(options: PredictionOptions, show: Show = silent) -> PredictionReport:
    """Classify sequences as viral or host.

    Parameters
    ----------
    options : PredictionOptions
        Input, classifier and output.
    show : callable, optional
        Called with the progress, in chunks.

    Returns
    -------
    PredictionReport
        Folder, counts and files.

    Raises
    ------
    PreflightError
        Found before anything was touched: problems of input, models, device or output folder, all at once.
    ExtractionError
        An encoder or the classifier failed on a frame.
    DataError, StoreError
        The input changed during the run, or a file cannot be read or written.
    """
    options = settled(options)
    folder = OutputFolder(options.folder)
    with engine_of(options) as engine, ExitStack() as stack:
        checked = check(options, engine, lambda path: stack.enter_context(spooled(path, FastaError)))
        with made_first(folder.root), Runner(folder.lock) as runner:
            remove_temporaries(folder.root)
            return _predict(_Run(checked, folder, engine, runner), show)


def _predict(run: _Run, show: Show) -> PredictionReport:
    if not run.is_done():
        run.score(show)
        run.write_tables()
    return run.report(run.write_outputs())


class _Run:
    """One prediction that was checked, in a folder that is held."""

    def __init__(self, checked: Checked, folder: OutputFolder, engine: Engine, runner: Runner) -> None:
        self._checked = checked
        self._engine = engine
        self._runner = runner
        self._options = checked.options
        self._folder = folder
        self._work = Work(folder)
        self._record = make_record(checked.name, checked.facts, checked.models, checked.length)
        self._chunks_per_unit = checked.options.chunks_per_unit or 0
        self._scored = _Scored()
        self._rules = checked.rules

    def is_done(self) -> bool:
        """Whether the folder holds the result of this run; other content is refused or removed.

        Raises
        ------
        PreflightError
            The folder holds another prediction.
        """
        there, unfinished = self._recorded()
        if there is None and unfinished is None and any(files_of_a_result(self._folder)):
            self._replace("holds files with the names of a prediction, but no record of one")
        elif there is not None and (other := difference(there, self._record)):
            self._replace(f"holds a prediction that {other}")
        elif there is not None and (changed := self._changed_tables(there)):
            self._replace(f"holds tables that were changed since they were written ({', '.join(changed)})")
        elif there is not None and not all(path.exists() for path in self._folder.tables):
            logger.info("%s: some of its tables were removed since; predicting again", self._folder.root)
            self._clear()
        elif there is not None:
            self._work.remove()
            self._judge_again(there)
            return True
        elif unfinished is not None:
            self._take_over(unfinished)
        self._chunks_per_unit = self._chunks_per_unit or self._default_chunks()
        return False

    def _judge_again(self, there: Mapping[str, Any]) -> None:
        """Write the tables of a finished prediction again where other rules give other verdicts of its scores."""
        before, asked = Rules.of_record(there), (self._options.threshold, self._options.min_length)
        # Verdicts of earlier versions stay as they are, unless others are asked for.
        is_kept = "verdicts" not in there and asked == (None, None)
        if is_kept or before == self._rules:
            logger.info("%s already holds this prediction", self._folder.root)
            return
        logger.info(
            "%s already holds the scores; verdicts by %s, not %s", self._folder.root, self._rules, before
        )
        kept = {name: there["counts"][name] for name in ("unknown_frames", "cut_frames")}
        counts, digests = write_tables(
            self._folder, stored_units(self._folder), self._checked.facts, self._rules
        )
        self._write_record(replace(counts, **kept), digests)

    def _write_record(self, counts: Counts, digests: Mapping[str, str]) -> None:
        content = {"verdicts": asdict(self._rules), "counts": asdict(counts), "outputs": digests}
        write_record(self._folder.record, {**self._record, **content})

    def _recorded(self) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """Records of the finished and of the unfinished prediction in the folder."""
        try:
            return _read_if_there(self._folder.record), _read_if_there(self._folder.work_record)
        except DataError as error:
            self._replace(f"holds a prediction whose record is damaged ({error})")
            return None, None

    def _take_over(self, unfinished: Mapping[str, Any]) -> None:
        """Go on with an unfinished prediction, or refuse it."""
        other = difference(unfinished, self._record)
        size = unfinished.get("chunks_per_unit")
        if other is None and self._chunks_per_unit not in (0, size):
            other = f"was started with units of {size} chunks, not {self._chunks_per_unit}"
        if other is None and type(size) is int and size > 0:
            self._chunks_per_unit = size
        else:
            self._replace(f"holds an unfinished prediction that {other or 'cannot be read'}")

    def _replace(self, problem: str) -> None:
        if not self._options.replace:
            raise PreflightError([f"{self._folder.root}: {problem}; {_ELSEWHERE}"])
        logger.info("%s: %s; it is discarded", self._folder.root, problem)
        self._clear()

    def _clear(self) -> None:
        # The record goes first: tables without one are never taken for finished ones.
        for path in list(files_of_a_result(self._folder)):
            path.unlink()
        with suppress(OSError):
            # Pictures of other origin are kept, with their folder.
            self._folder.plots.rmdir()
        self._work.remove()

    def _changed_tables(self, record: Mapping[str, Any]) -> list[str]:
        """Names of the tables that are there but are not those that a record was written for."""
        outputs = record.get("outputs")
        expected = outputs if isinstance(outputs, dict) else {}
        there = [path for path in self._folder.tables if path.exists()]
        return [path.name for path in changed_files({path: expected.get(path.name) for path in there})]

    def _default_chunks(self) -> int:
        return _CHUNKS_PER_UNIT[self._options.device.partition(":")[0]]

    @property
    def _units(self) -> int:
        facts = self._checked.facts
        # Records without bases have no chunk, and are of the unit that they come in.
        return max(min(1, facts.records), -(-facts.chunks // self._chunks_per_unit))

    def score(self, show: Show) -> None:
        """Score all units that are not scored.

        Raises
        ------
        NucproError
            The first fault, at once; units that are done stay.
        """
        done = self._work.start({**self._record, "chunks_per_unit": self._chunks_per_unit})
        total = self._checked.facts.chunks
        logger.debug("%s of up to %d chunks", counted(self._units, "unit"), self._chunks_per_unit)
        if done:
            logger.info("Resuming: %d of %d units are done", len(done), self._units)
        meter = Meter(show, "Scoring", total, "chunks", done=sum(map(self._chunks_of, done)))
        if len(done) < self._units:
            units = self._score_units(done)
            for _ in self._runner.each(units, self._keep, meter, done=len(done), total=self._units):
                pass
            self._scored.splits = self._engine.totals.splits

    def _chunks_of(self, number: int) -> int:
        before = (number - 1) * self._chunks_per_unit
        return min(self._chunks_per_unit, self._checked.facts.chunks - before)

    def _score_units(self, done: set[int]) -> Iterator[Done[Unit, ScoredUnit]]:
        """Score units where the engine does it; nothing is written there."""
        load = partial(self._checked.models.load_scorer, self._options.input)
        self._engine.load(load)
        return self._engine.run(Scorer.score, self._units_left(done), self._units - len(done))

    def _units_left(self, done: set[int]) -> Iterator[Unit]:
        records = records_of(self._options.inputs)
        units = units_of(records, self._checked.length, self._chunks_per_unit)
        yield from (unit for unit in units if unit.number not in done)
        # A shorter input would leave an engine waiting for units that never come.
        self._require_unchanged_input()

    def _keep(self, done: Done[Unit, ScoredUnit]) -> Committed:
        unit, seconds, scored = done
        self._require_unchanged_input()
        self._work.commit(unit, scored)
        self._scored.chunks += unit.chunks
        self._scored.frames += len(scored)
        self._scored.seconds += seconds
        return Committed(
            f"Scored {counted(len(scored), 'frame')} of {counted(unit.chunks, 'chunk')}, {seconds:.1f}s",
            unit.chunks,
        )

    def _require_unchanged_input(self) -> None:
        for path, stamp in zip(self._options.inputs, self._checked.stamps, strict=True):
            require_unchanged(path, stamp)

    def write_tables(self) -> None:
        """Write the result and what made it; then the work folder is no longer needed.

        Raises
        ------
        DataError, StoreError
            A unit cannot be read, or a file cannot be written.
        """
        units = self._work.units(self._units)
        self._write_record(*write_tables(self._folder, units, self._checked.facts, self._rules))
        self._work.remove()

    def write_outputs(self) -> tuple[Path, ...]:
        """Write the requested outputs besides the tables, and return their files.

        Raises
        ------
        PreflightError
            Files that no prediction wrote have their names.
        """
        record, asked = read_record(self._folder.record), asked_for(self._options)
        made: list[str] = record.get("made", [])
        new = [output for output in asked if output.option not in made]
        others = [path for output in new for path in output.files(self._folder)]
        if problems := replacing_problems(others, lambda _: False, replace=self._options.replace):
            raise PreflightError(problems)
        if new:
            # First: a run that is killed in between resumes with its own files.
            write_record(self._folder.record, {**record, "made": [*made, *(one.option for one in new)]})
        written = (output.write(self._folder, self._options) for output in asked)
        return tuple(path for paths in written for path in paths)

    def report(self, outputs: tuple[Path, ...]) -> PredictionReport:
        """Sum the run up."""
        return PredictionReport(
            folder=self._folder.root,
            counts=read_record(self._folder.record)["counts"],
            scored_chunks=self._scored.chunks,
            scored_frames=self._scored.frames,
            seconds=self._scored.seconds,
            splits=self._scored.splits,
            files=(*self._folder.tables, *outputs),
        )


def _read_if_there(path: Path) -> dict[str, Any] | None:
    return read_record(path) if path.exists() else None


_ANY_LENGTH = 300
"""Length of chunks that the input is read with where no other is known: its problems do not depend on it."""


@dataclass(frozen=True)
class Checked:
    """A prediction that passed all checks.

    Parameters
    ----------
    options : PredictionOptions
        Options of the prediction.
    models : Models
        The classifier and its encoders, which are not loaded yet.
    facts : InputFacts
        What is in the input.
    length : int
        Bases of a full chunk.
    rules : Rules
        Of the verdicts.
    name : str
        What the input is called.
    stamps : list of Fingerprint or None
        Fingerprints that show whether its files have changed.
    """

    options: PredictionOptions
    models: Models
    facts: InputFacts
    length: int
    rules: Rules
    name: str
    stamps: list[Fingerprint | None]


def check(options: PredictionOptions, engine: Engine, spool: Callable[[Path], Path]) -> Checked:
    """Read input and models, and try whether the output can be written.

    Parameters
    ----------
    options : PredictionOptions
        Options of the prediction.
    engine : Engine
        Where it will be done.
    spool : callable
        Gives a regular file with the content of a pipe, and any other name back; see
        :func:`nucpro.formats.opening.spooled`.

    Raises
    ------
    PreflightError
        Names every problem.
    """
    models, problems = find_models(options)
    problems += engine.problems()
    length = options.length or (models.card.chunk_length if models else None)
    if models and length is None:
        problems.append(f"{options.model}: has no chunk length in its card; give it with --length")
    problems += _output_problems(options)
    problems += [problem for output in asked_for(options) for problem in output.problems()]
    if problems and any(map(is_pipe, options.inputs)):
        # Who writes into a pipe may take hours.
        raise PreflightError(problems)
    given = copies = options.inputs
    try:
        name = _name_of(options)
        first, *more = copies = tuple(map(spool, given))
        options = replace(options, input=first, also=tuple(more), output=options.folder)
        stamps = [Fingerprint.of(path) for path in options.inputs]
        facts = inspect(options.inputs, length or _ANY_LENGTH)
    except FastaError as error:
        raise PreflightError([*problems, _as_given(str(error), copies, given)]) from error
    problems += [_as_given(problem, copies, given) for problem in facts.problems]
    if problems or models is None or length is None:
        raise PreflightError(problems)
    _warn_of_other_length(length, models)
    if not facts.records:
        logger.warning("%s: holds no sequence; the tables have their headers only", name)
    rules = _rules_of(options, models, length)
    logger.debug(
        "%s: %s of %d bases in %s of up to %d bases; %s",
        name,
        counted(facts.records, "record"),
        facts.bases,
        counted(facts.chunks, "chunk"),
        length,
        rules,
    )
    return Checked(options, models, facts, length, rules, name, stamps)


def _as_given(problem: str, copies: Sequence[Path], given: Sequence[Path]) -> str:
    """Name inputs as they were given, not the files that keep the content of pipes."""
    for copy, path in zip(copies, given, strict=True):
        problem = problem.replace(str(copy), str(path))
    return problem


def _name_of(options: PredictionOptions) -> str:
    """Name of the input for people; that of a pipe is that of the file it is kept in."""
    first, *others = (f"pipe_{path.name}" if is_pipe(path) else path.name for path in options.inputs)
    if options.input == STANDARD_INPUT:
        first = "standard_input"
    return f"{first} and {len(others)} more" if others else first


def _rules_of(options: PredictionOptions, models: Models, length: int) -> Rules:
    threshold = models.card.calibration["threshold"] if options.threshold is None else options.threshold
    return Rules(threshold, length // 2 if options.min_length is None else options.min_length)


def _output_problems(options: PredictionOptions) -> list[str]:
    too_long = name_problem(options.folder)
    if too_long:
        return [f"{options.folder}: {too_long}; name a folder with --output"]
    if options.output is None and os.path.lexists(options.folder) and not options.folder.is_dir():
        return [f"{options.folder}: is a file; name a folder with --output"]
    # The folder beside the input is of this command, wherever the input is.
    misplaced = place_problems(options.folder, "prediction") if options.output else []
    return misplaced + writing_problems([options.folder])


def _warn_of_other_length(length: int, models: Models) -> None:
    """Warn if chunks are longer or shorter than those the classifier was trained on or evaluated at."""
    card = models.card
    tested = sorted({*map(int, card.lengths), *([card.chunk_length] if card.chunk_length else [])})
    if card.lengths and not tested[0] <= length <= tested[-1]:
        logger.warning(
            "chunks of %d bases; the classifier was tested at %d to %d (metrics in its card); scores are "
            "unreliable outside of that",
            length,
            tested[0],
            tested[-1],
        )
    elif not card.lengths and card.chunk_length not in (None, length):
        logger.warning(
            "chunks of %d bases are scored by a classifier of chunks of %d: scores are unreliable at another "
            "length; nucpro evaluate MODEL --lengths %d,%d measures how much",
            length,
            card.chunk_length,
            length,
            card.chunk_length,
        )
