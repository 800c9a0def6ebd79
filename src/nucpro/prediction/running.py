"""The order of a prediction: check everything, score what is not scored, write the tables, then what is made of them.

A sequence file and a trained classifier come in; the folder of :mod:`nucpro.prediction.paths` goes out. A run that
was stopped at any moment and is started again goes on with the unit it was at, and ends with the same bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nucpro.checkpoint import Stamp
from nucpro.dataset.manifest import digest_of
from nucpro.engine import Engine
from nucpro.errors import DataError, FastaError, PreflightError
from nucpro.fasta import stream
from nucpro.job import engine_of
from nucpro.lock import hold
from nucpro.opening import spooled
from nucpro.prediction.checking import Checked, check
from nucpro.prediction.contigs import Unit, units_of
from nucpro.prediction.exports import write_document, write_original
from nucpro.prediction.options import PredictionOptions
from nucpro.prediction.paths import OutputFolder
from nucpro.prediction.plot import write_plots
from nucpro.prediction.record import difference, make_record
from nucpro.prediction.scoring import ScoredUnit, Scorer
from nucpro.prediction.tables import write_tables
from nucpro.prediction.work import Work, read_record, write_record
from nucpro.store import remove_temporaries

__all__ = ["PredictionProgress", "PredictionReport", "predict"]

logger = logging.getLogger(__name__)

_CHUNKS_PER_UNIT = {"cuda": 8_192, "cpu": 256}
"""By class of device: seconds of a GPU, and seconds to minutes of a CPU."""
_ELSEWHERE = "name another folder with --output, or throw it away with --replace"


@dataclass(frozen=True)
class PredictionProgress:
    """Where a run is.

    Parameters
    ----------
    chunks, total : int
        Chunks that are scored, and all chunks.
    """

    chunks: int
    total: int


@dataclass(frozen=True)
class PredictionReport:
    """What a run gave.

    Parameters
    ----------
    folder : Path
        Where the result lies.
    counts : dict of str to int
        See :class:`nucpro.prediction.tables.Counts`.
    scored_chunks, scored_frames : int
        Those that this run scored; the others were scored by an earlier one.
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


def predict(
    options: PredictionOptions, progress: Callable[[PredictionProgress], object] = lambda _: None
) -> PredictionReport:
    """Tell viral sequences from others.

    Parameters
    ----------
    options : PredictionOptions
        Input, classifier and output.
    progress : callable, optional
        Called before the first unit and after each.

    Raises
    ------
    PreflightError
        Found before anything was touched: problems of input, models, device or output folder, all at once.
    ExtractionError
        An encoder or the classifier failed on a frame.
    DataError, StoreError
        The input changed meanwhile, or a file cannot be read or written.
    """
    folder = OutputFolder(options.folder)
    with engine_of(options.machines) as engine, ExitStack() as stack:
        checked = check(options, engine, lambda path: stack.enter_context(spooled(path, FastaError)))
        with _held(folder):
            return _predict(_Run(checked, folder, engine), progress)


def _predict(run: _Run, progress: Callable[[PredictionProgress], object]) -> PredictionReport:
    if not run.is_done():
        run.score(progress)
        run.write_tables()
    return run.report(run.write_exports())


@contextmanager
def _held(folder: OutputFolder) -> Iterator[None]:
    """Make the output folder and hold it, so that one run writes there at a time."""
    try:
        folder.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PreflightError(
            [f"{folder.root}: cannot be made ({error.strerror}); name another folder with --output"]
        ) from error
    with hold(folder.lock):
        remove_temporaries(folder.root)
        yield


class _Run:
    """One prediction that was checked, in a folder that is held."""

    def __init__(self, checked: Checked, folder: OutputFolder, engine: Engine) -> None:
        self._checked = checked
        self._engine = engine
        self._options = checked.options
        self._folder = folder
        self._work = Work(folder)
        self._record = make_record(checked.options.input, checked.facts, checked.models, checked.length)
        self._chunks_per_unit = checked.options.chunks_per_unit or 0
        self._scored = _Scored()

    def is_done(self) -> bool:
        """Whether the folder holds what this run would make; anything that it cannot go on with is refused or removed.

        Raises
        ------
        PreflightError
            The folder holds another prediction.
        """
        there, unfinished = self._recorded()
        if there is None and unfinished is None and any(self._folder.results()):
            self._replace("holds files of a prediction's names that nothing is recorded about")
        elif there is not None and (other := difference(there, self._record)):
            self._replace(f"holds a prediction that {other}")
        elif there is not None and (changed := self._changed_tables(there)):
            self._replace(f"holds other tables than were written there ({', '.join(changed)})")
        elif there is not None and not all(path.exists() for path in self._folder.tables):
            logger.info("%s: some of its tables were removed since; predicting again", self._folder.root)
            self._clear()
        elif there is not None:
            self._work.remove()
            logger.info("%s holds this prediction already", self._folder.root)
            return True
        elif unfinished is not None:
            self._take_over(unfinished)
        self._chunks_per_unit = self._chunks_per_unit or self._default_chunks()
        return False

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
        logger.info("%s: %s; it is thrown away", self._folder.root, problem)
        self._clear()

    def _clear(self) -> None:
        # The record goes first: tables without one are never taken for finished ones.
        for path in list(self._folder.results()):
            path.unlink()
        with suppress(OSError):
            # Pictures of somebody else stay, and their folder with them.
            self._folder.plots.rmdir()
        self._work.remove()

    def _changed_tables(self, record: Mapping[str, Any]) -> list[str]:
        """Names of the tables that are there but are not those that a record was written for."""
        outputs = record.get("outputs")
        expected = outputs if isinstance(outputs, dict) else {}
        there = (path for path in self._folder.tables if path.exists())
        return [path.name for path in there if digest_of(path) != expected.get(path.name)]

    def _default_chunks(self) -> int:
        return _CHUNKS_PER_UNIT[self._options.device.partition(":")[0]]

    @property
    def _units(self) -> int:
        return max(1, -(-self._checked.facts.chunks // self._chunks_per_unit))

    def score(self, progress: Callable[[PredictionProgress], object]) -> None:
        """Score all units that are not scored.

        Raises
        ------
        NucproError
            The first fault, at once; units that are done stay.
        """
        done = self._work.start({**self._record, "chunks_per_unit": self._chunks_per_unit})
        total = self._checked.facts.chunks
        finished = sum(self._chunks_of(number) for number in done)
        if done:
            logger.info("Going on: %d of %d units are done", len(done), self._units)
        progress(PredictionProgress(finished, total))
        if len(done) < self._units:
            for number, (unit, seconds, scored) in enumerate(self._score_units(done), len(done) + 1):
                self._keep(unit, seconds, scored)
                finished += unit.chunks
                line = "[%d/%d] Scored %d frames of %d chunks, %.1fs"
                logger.info(line, number, self._units, len(scored), unit.chunks, seconds)
                progress(PredictionProgress(finished, total))
            self._scored.splits = self._engine.totals.splits

    def _chunks_of(self, number: int) -> int:
        before = (number - 1) * self._chunks_per_unit
        return min(self._chunks_per_unit, self._checked.facts.chunks - before)

    def _score_units(self, done: set[int]) -> Iterator[tuple[Unit, float, ScoredUnit]]:
        """Score units where the engine does it; nothing is written there."""
        load = partial(self._checked.models.load_scorer, self._options.input)
        return self._engine.each(load, Scorer.score, self._units_left(done), self._units - len(done))

    def _units_left(self, done: set[int]) -> Iterator[Unit]:
        records = stream(self._options.input, fastq=True)
        units = units_of(records, self._checked.length, self._chunks_per_unit)
        yield from (unit for unit in units if unit.number not in done)
        # A shorter input would leave an engine waiting for units that never come.
        self._require_unchanged_input()

    def _keep(self, unit: Unit, seconds: float, scored: ScoredUnit) -> None:
        self._require_unchanged_input()
        self._work.commit(unit, scored)
        self._scored.chunks += unit.chunks
        self._scored.frames += len(scored)
        self._scored.seconds += seconds

    def _require_unchanged_input(self) -> None:
        if Stamp.of(self._options.input) != self._checked.stamp:
            raise DataError(
                f"{self._options.input}: was changed while it was read; run again when nobody writes it"
            )

    def write_tables(self) -> None:
        """Write the result and what made it; then the work folder is no longer needed.

        Raises
        ------
        DataError, StoreError
            A unit cannot be read, or a file cannot be written.
        """
        counts, digests = write_tables(self._folder, self._work.units(self._units), self._checked.facts)
        write_record(self._folder.record, {**self._record, "counts": asdict(counts), "outputs": digests})
        self._work.remove()

    def write_exports(self) -> tuple[Path, ...]:
        """Write what is asked for beside the tables, and give its files."""
        written: list[Path] = []
        if self._options.json:
            write_document(self._folder, read_record(self._folder.record))
            written.append(self._folder.document)
        if self._options.original_names:
            write_original(self._folder)
            written += [self._folder.original_frames, self._folder.original_chunks]
        if self._options.plots:
            written += write_plots(self._folder, self._options.plots)
        return tuple(written)

    def report(self, exports: tuple[Path, ...]) -> PredictionReport:
        """Sum the run up."""
        return PredictionReport(
            folder=self._folder.root,
            counts=read_record(self._folder.record)["counts"],
            scored_chunks=self._scored.chunks,
            scored_frames=self._scored.frames,
            seconds=self._scored.seconds,
            splits=self._scored.splits,
            files=(*self._folder.tables, *exports),
        )


def _read_if_there(path: Path) -> dict[str, Any] | None:
    return read_record(path) if path.exists() else None
