"""The record of a download, ``.download.json`` in the data folder.

It contains the choice and, for each verified file, a fingerprint: a later run trusts unchanged fingerprints
and reads only files that changed.
"""

from __future__ import annotations

import logging
import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from nucpro.errors import DataError, PreflightError, counted, human_size
from nucpro.folder.kinds import Kind, require_place
from nucpro.folder.paths import DataFolder
from nucpro.formats import made_first, remove_temporaries, replacing_problems
from nucpro.formats.records import Count, Within, read_record, write_record
from nucpro.formats.transfer import Connection, Expected, StoppedError, part_of
from nucpro.genomes.catalogue import Md5, RemoteFile, choose, parse_catalogue
from nucpro.genomes.options import DownloadOptions
from nucpro.genomes.taxonomy import DUMP_NAME
from nucpro.progress import BYTES, Meter, Show, silent
from nucpro.state.checkpoint import Fingerprint
from nucpro.state.lock import hold

__all__ = ["DownloadRecord", "DownloadReport", "download", "download_taxonomy", "read_choice"]

Result = TypeVar("Result")

_NAME = ".download.json"
_TAXONOMY_NAME = ".taxonomy.json"
_RELEASE = re.compile(r"[0-9]{1,9}")
_RECORDED_SHARE = 32
"""Of the files that are there, the part of which a run that is killed leaves the next one to read and compare."""
_LARGEST_NUMBER = 1 << 12
_LARGEST_CATALOGUE = 1 << 28
"""Bytes of the list of installed files; a million lines have a third of that."""


@dataclass
class DownloadRecord:
    """The chosen files, and those already downloaded.

    Parameters
    ----------
    release : int
        Number of the RefSeq release.
    seed : int
        Seed of the draw.
    counts : mapping of str to int
        Requested pairs, by group.
    files : sequence of RemoteFile
        The choice.
    verified : dict of str to list of int
        Size in bytes, time of the last change in nanoseconds and inode of verified files, by name.
    """

    release: Count
    seed: int
    counts: Mapping[str, Count]
    files: Sequence[RemoteFile]
    verified: dict[str, list[int]] = field(default_factory=dict)

    def fits(self, options: DownloadOptions) -> bool:
        """Whether the choice matches these options."""
        return (self.seed, dict(self.counts)) == (options.seed, dict(options.counts))

    def is_there(self, data_dir: Path, file: RemoteFile) -> bool:
        """Whether a file is present and valid; a changed one is read and compared."""
        path = data_dir / file.name
        if not path.is_file():
            return False
        if self.verified.get(file.name) != _fingerprint(path):
            if _expected(file).problem_of(path):
                return False
            self.note(data_dir, file)
        return True

    def note(self, data_dir: Path, file: RemoteFile) -> None:
        """Note the facts of a file that was verified just now."""
        self.verified[file.name] = _fingerprint(data_dir / file.name)

    def write(self, data_dir: Path) -> None:
        """Write the record whole or not at all."""
        write_record(data_dir / _NAME, self, sort_keys=True)


def _expected(file: RemoteFile, size: int | None = None) -> Expected:
    return Expected("the release", size, file.md5, "MD5 sum")


def _fingerprint(path: Path) -> list[int]:
    found = Fingerprint.of(path)
    return found.as_list() if found else []


def read_choice(data_dir: Path) -> DownloadRecord | None:
    """Read the record of an earlier run; None where there is none.

    One without a checksum is of an earlier version: its files are compared with its sums once more.

    Raises
    ------
    RecordError
        The file is no such record.
    """
    kept = read_record(data_dir / _NAME, DownloadRecord, "the record of a download", _REMEDY)
    if kept is not None and not kept.is_sealed:
        for fingerprint in kept.content.verified.values():
            fingerprint.clear()
    return kept.content if kept else None


_REMEDY = "remove it, then run again: existing files are verified and kept"


@dataclass(frozen=True)
class _TaxonomyRecord:
    """MD5 sums of taxonomies that were fetched into a folder: the one that is there, and the one under way."""

    sums: Annotated[list[Md5], Within(1, 2)]


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DownloadReport:
    """Result of a run.

    Parameters
    ----------
    release : int
        Number of the RefSeq release.
    files : tuple of RemoteFile
        All that was chosen, in the order of the choice; after a run every one of them is there and verified.
    fetched : tuple of RemoteFile
        Those that this run fetched, or that a dry run would fetch.
    short : dict of str to (int, int)
        Groups of which the release has fewer pairs than asked for: how many were asked for, how many there are.
    """

    release: int
    files: tuple[RemoteFile, ...]
    fetched: tuple[RemoteFile, ...]
    short: dict[str, tuple[int, int]]


def download(
    data_dir: Path, options: DownloadOptions | None = None, show: Show = silent, *, dry_run: bool = False
) -> DownloadReport:
    """Fetch a sample of RefSeq's genomes into a data folder.

    Parameters
    ----------
    data_dir : Path
        Created if missing.
    options : DownloadOptions, optional
        Choices; the defaults draw as VirNucPro's script did.
    show : callable, optional
        Called with the progress, in bytes; it is called by one thread at a time.
    dry_run : bool
        Only ask the server what would be fetched, and log it; nothing is written.

    Returns
    -------
    DownloadReport
        Release, files, and files that were downloaded now.

    Raises
    ------
    PreflightError
        The folder is of another kind, another run holds the lock, or the disk has too little space.
    DataError
        The server does not give a file; or it has another release by now than the one that the folder holds
        a part of.
    StoreError
        A file cannot be written.
    """
    require_place(data_dir, "genomes", {Kind.DATA})
    options = options or DownloadOptions()
    run = _Run(data_dir, options, show)
    if dry_run:
        record = run.record()
        missing = run.missing(record)
    else:
        with made_first(data_dir), hold(DataFolder(data_dir).lock):
            remove_temporaries(data_dir)
            record = run.record()
            missing = run.missing(record)
            run.fetch(record, missing)
    short = _short(record.files, options.counts)
    for group, (asked, present) in short.items():
        logger.warning("%s: %d pairs asked for, the release has %d", group, asked, present)
    return DownloadReport(record.release, tuple(record.files), tuple(missing), short)


def download_taxonomy(
    data_dir: Path, options: DownloadOptions | None = None, show: Show = silent, *, dry_run: bool = False
) -> bool:
    """Fetch NCBI's taxonomy into a data folder.

    Parameters
    ----------
    data_dir : Path
        Created if missing.
    options : DownloadOptions, optional
        ``taxonomy_server`` and how to ask it.
    show : callable, optional
        Called with the progress, in bytes.
    dry_run : bool
        Only ask whether there is a newer one; nothing is written.

    Returns
    -------
    bool
        False where the newest one was there.

    Raises
    ------
    PreflightError
        Another run holds the folder, or it holds a file of that name that was not downloaded.
    DataError
        The server does not give it.
    StoreError
        It cannot be written.
    """
    require_place(data_dir, "genomes", {Kind.DATA})
    options = options or DownloadOptions()
    connection = Connection(options.attempts, options.wait_s, options.timeout_s)
    address = f"{options.taxonomy_server.rstrip('/')}/{DUMP_NAME}"
    path = data_dir / DUMP_NAME
    md5 = connection.text(f"{address}.md5", _LARGEST_NUMBER).partition(" ")[0].strip()
    if not re.fullmatch(r"[0-9a-f]{32}", md5):
        raise DataError(f"{address}.md5: holds {md5[:40]!r}, not an MD5 sum; check the address of the server")
    expected = Expected("the server", connection.size(address), md5, "MD5 sum")
    if path.is_file() and expected.problem_of(path) is None:
        return False
    own = _own_sums(path)
    if problems := replacing_problems([path], lambda _: bool(own), replace=options.replace):
        raise PreflightError(problems)
    if not dry_run:
        with made_first(data_dir), hold(DataFolder(data_dir).lock):
            remove_temporaries(data_dir)
            # First: a file that a killed run leaves is known by its sum.
            write_record(data_dir / _TAXONOMY_NAME, _TaxonomyRecord([*own, md5]))
            meter = Meter(show, "Downloading", expected.size, BYTES)
            connection.fetch(address, path, expected, meter.advance)
    return True


def _own_sums(path: Path) -> list[str]:
    """MD5 sum of a taxonomy, if it was fetched before."""
    kept = read_record(
        path.with_name(_TAXONOMY_NAME),
        _TaxonomyRecord,
        "the record of a download",
        "remove it, then run again",
    )
    if kept is None or not path.is_file():
        return []
    return [md5 for md5 in kept.content.sums if Expected("", None, md5, "MD5 sum").problem_of(path) is None]


class _Run:
    """The state of one run that its threads share."""

    def __init__(self, data_dir: Path, options: DownloadOptions, show: Show) -> None:
        self._data_dir = data_dir
        self._options = options
        self._server = options.server.rstrip("/")
        self._connection = Connection(options.attempts, options.wait_s, options.timeout_s)
        self._show = show
        self._unrecorded = 0
        self._sizes: dict[str, int | None] = {}
        self._turn = threading.Lock()

    def record(self) -> DownloadRecord:
        """Use the choice of an earlier run, or make and record a new one."""
        options, earlier = self._options, read_choice(self._data_dir)
        if earlier and earlier.fits(options) and not self._missing(earlier):
            return earlier
        release = self._release()
        if earlier and earlier.release != release and not options.replace:
            raise DataError(
                f"{self._data_dir}: holds files of RefSeq release {earlier.release}, the server has release {release} "
                "by now; one data folder holds one release: use another folder, or replace the files with "
                "--replace"
            )
        address = f"{self._server}/release-catalog/release{release}.files.installed"
        catalogue = parse_catalogue(self._connection.text(address, _LARGEST_CATALOGUE), address)
        files = choose(catalogue, options.counts, options.seed)
        verified = earlier.verified if earlier else {}
        return DownloadRecord(release, options.seed, options.counts, files, verified)

    def missing(self, record: DownloadRecord) -> list[RemoteFile]:
        """Find what must be downloaded, and check the disk space; nothing is written."""
        missing = self._missing(record)
        paths = [self._data_dir / file.name for file in missing]
        problems = replacing_problems(
            paths, lambda path: path.name in record.verified, replace=self._options.replace
        )
        if problems:
            raise PreflightError(problems)
        sizes = self._each(self._connection.size, [(self._address(file),) for file in missing])
        self._sizes = {file.name: size for file, size in zip(missing, sizes, strict=True)}
        _tell_choice(record, self._sizes)
        self._require_room(self._sizes)
        return missing

    def fetch(self, record: DownloadRecord, missing: Sequence[RemoteFile]) -> None:
        """Fetch files, and record each that is complete."""
        record.write(self._data_dir)
        known = [size for size in self._sizes.values() if size is not None]
        meter = Meter(self._show, "Downloading", sum(known) if len(known) == len(missing) else None, BYTES)
        try:
            self._each(self._fetch, [(record, file, meter) for file in missing])
        finally:
            record.write(self._data_dir)

    def _missing(self, record: DownloadRecord) -> list[RemoteFile]:
        return [file for file in record.files if not record.is_there(self._data_dir, file)]

    def _release(self) -> int:
        address = f"{self._server}/RELEASE_NUMBER"
        text = self._connection.text(address, _LARGEST_NUMBER).strip()
        if not _RELEASE.fullmatch(text):
            raise DataError(
                f"{address}: holds {text[:40]!r}, not a release number; check the address of the server"
            )
        return int(text)

    def _address(self, file: RemoteFile) -> str:
        return f"{self._server}/{file.group}/{file.name}"

    def _require_room(self, sizes: Mapping[str, int | None]) -> None:
        parts = (part_of(self._data_dir / name) for name in sizes)
        needed = sum(size or 0 for size in sizes.values()) - sum(
            part.stat().st_size for part in parts if part.exists()
        )
        there = next(
            folder for folder in (self._data_dir, *self._data_dir.absolute().parents) if folder.is_dir()
        )
        free = shutil.disk_usage(there).free
        if needed > free:
            problem = (
                f"{self._data_dir}: {human_size(needed)} to download, the disk has {human_size(free)} free; "
                "free space there"
            )
            raise PreflightError([problem])

    def _fetch(self, record: DownloadRecord, file: RemoteFile, meter: Meter) -> None:
        with ExitStack() as unless_done:
            # Here, in the thread that would begin the next file before anybody hears of this one.
            unless_done.callback(self._connection.give_up)
            expected = _expected(file, self._sizes[file.name])
            self._connection.fetch(self._address(file), self._data_dir / file.name, expected, meter.advance)
            unless_done.pop_all()
        with self._turn:
            record.note(self._data_dir, file)
            self._unrecorded += 1
            # The record is written whole: once for each of many files, that would grow with their square.
            if self._unrecorded > len(record.verified) // _RECORDED_SHARE:
                record.write(self._data_dir)
                self._unrecorded = 0

    def _each(self, call: Callable[..., Result], arguments: Sequence[tuple[Any, ...]]) -> list[Result]:
        """Make calls, several at a time; the first error, or an interrupt, ends all of them."""
        with ThreadPoolExecutor(self._options.connections) as pool:
            futures = [pool.submit(call, *one) for one in arguments]
            try:
                for future in as_completed(futures):
                    # Cancelled downloads follow the failure of another one, which has the reason.
                    if not isinstance(future.exception(), StoppedError):
                        future.result()
            finally:
                if not all(future.done() for future in futures):
                    self._connection.give_up()
                    for future in futures:
                        future.cancel()
        return [future.result() for future in futures]


def _tell_choice(record: DownloadRecord, sizes: Mapping[str, int | None]) -> None:
    """Log the files of the choice, with the sizes of those that are not there yet."""
    known = [size for size in sizes.values() if size is not None]
    logger.info(
        "RefSeq release %d: %s chosen, %d to download (%s%s)",
        record.release,
        counted(len(record.files), "file"),
        len(sizes),
        human_size(sum(known)),
        "" if len(known) == len(sizes) else ", and files whose size the server does not report",
    )
    for file in record.files:
        size = sizes.get(file.name)
        state = "there" if file.name not in sizes else "size unknown" if size is None else human_size(size)
        logger.info("  %s/%s: %s", file.group, file.name, state)


def _short(files: Sequence[RemoteFile], counts: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    present = {group: sum(file.group == group for file in files) // 2 for group in counts}
    return {group: (count, present[group]) for group, count in counts.items() if present[group] < count}
