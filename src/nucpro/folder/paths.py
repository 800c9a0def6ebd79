"""Layout of a data folder: every path, suffix, category and constant.

Paths are built only here. A derived path changes only in the component that carries the meaning, so folders
may have any name (``my.family``, ``ESM_runs``, names with spaces).

The folder, for a RefSeq file called ``X`` (``viral.1.1.genomic``)::

    data/
      X.identified_nucleotide.fa                     one record per reading frame
      X.identified_protein.fa                        the same ids, translated
      X.identified_nucleotide/output_K.fa            split; K counts from 1
      X.identified_nucleotide/output_K_DNABERT_S.pt
      X.identified_protein/output_K.fa
      X.identified_protein/output_K_ESM.pt
      data_merge/X_merged/output_K_merged.pt
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import count
from pathlib import Path, PurePosixPath

from nucpro.errors import DataError, PreflightError, UsageError, is_plain
from nucpro.formats.opening import is_litter
from nucpro.formats.sequences import SequenceType

__all__ = [
    "CATEGORIES",
    "CLASS_NAMES",
    "HOST_CATEGORIES",
    "NO_CATEGORY",
    "NO_SOURCES",
    "SEED",
    "VIRAL",
    "DataFolder",
    "ExportFolder",
    "FilePair",
    "Source",
    "below",
    "category_of",
    "contradiction_in",
    "natural_key",
    "split_number",
    "walk",
    "walk_failed",
]

SEED = 42
"""Seed for sampling host files."""

VIRAL = "viral"
"""The positive class."""
HOST_CATEGORIES = ("vertebrate", "protozoa", "plant", "invertebrate", "fungi", "bacteria", "archaea")
"""The negative class, in the order in which files are sampled."""
CLASS_NAMES = ("host", "viral")
"""Name of each class, by label: 0 for hosts, 1 for viruses."""
CATEGORIES = (VIRAL, *HOST_CATEGORIES)

_NUCLEOTIDE = "identified_nucleotide"
_PROTEIN = "identified_protein"
_MERGE_ROOT = "data_merge"
_DIVISIONS = {"vertebrate_mammalian": "vertebrate", "vertebrate_other": "vertebrate"}
_FOLDERS = {name: name for name in CATEGORIES} | _DIVISIONS
"""Folder names that imply a category; RefSeq's other divisions (plasmid, plastid, complete …) imply none."""
_CATEGORY_NAME = re.compile(rf"({'|'.join(CATEGORIES)})(?=[._]|\Z)")
_OF_SPLIT = re.compile(r"output_[1-9][0-9]*(?:_DNABERT_S|_ESM|_merged)?\.(?:fa|pt)")
_SPLIT_NAME = re.compile(r"output_([1-9][0-9]*)\.fa")
_VECTORS_END = re.compile(r"_(DNABERT_S|ESM)\.pt$")
_DIGITS = re.compile(r"[0-9]+")


def natural_key(name: str) -> str:
    """Sort key that puts ``output_2`` before ``output_10``, and numbers before letters."""
    # Text, since thousands of keys are in memory while names are sorted.
    return _DIGITS.sub(_counted, name)


def _counted(number: re.Match[str]) -> str:
    digits = number[0].lstrip("0")
    return f"\0{chr(len(digits))}{digits}"


NO_SOURCES = (
    "no *identified_nucleotide.fa with records was found below the data folder; name the folder that holds them, "
    "or make them with nucpro dataset DATA --length N (nucpro embed reads any other FASTA file)"
)
"""Message for a folder without sources."""
NO_CATEGORY = (
    f"its class is unknown: its name must begin with {', '.join(CATEGORIES[:-1])} or {CATEGORIES[-1]}, up to '.' "
    "or '_', or it must be in a folder with such a name; rename or move it"
)
"""Message for a file for which :func:`category_of` is None."""


@lru_cache(maxsize=256)
def category_of(relative_path: str) -> str | None:
    """Category of a file by its path below the data folder; None if the path names none.

    The file's name decides: ``viral.1.1.identified_nucleotide.fa`` is viral, ``vertebrate_other.2.1…`` is
    vertebrate. If it names no category, the nearest folder counts whose whole name is a category or a
    division of RefSeq. For split files, vectors and merged files, the name of their folder is used in place
    of the file name.

    Parameters
    ----------
    relative_path : str
        Path below the data folder or below ``data_merge``, with ``/`` between components.

    Returns
    -------
    str or None
        One of :data:`CATEGORIES`.
    """
    return next((category for _, category in _named_categories(relative_path)), None)


def contradiction_in(relative_path: str) -> str | None:
    """Message for a path that names more than one category; None for other paths."""
    found = _named_categories(relative_path)
    for name, category in found[1:]:
        if category != found[0][1]:
            return (
                f"{found[0][0]} means {found[0][1]}, but its folder {name} means {category}, "
                "so its class is in doubt; move it, or rename the folder"
            )
    return None


def _named_categories(relative_path: str) -> list[tuple[str, str]]:
    """Components of a path that name a category, with that category: the file first, then the nearest folder."""
    *folders, name = PurePosixPath(relative_path).parts or ("",)
    if folders and (_OF_SPLIT.fullmatch(name) or _is_merged(folders[-1], name)):
        name = folders.pop()
    match = _CATEGORY_NAME.match(name)
    found = [(name, match[1])] if match else []
    return found + [(part, _FOLDERS[part]) for part in reversed(folders) if part in _FOLDERS]


def _is_merged(folder: str, name: str) -> bool:
    return folder.endswith("_merged") and name.endswith(".pt")


def split_number(name: str) -> int | None:
    """K of a file called ``output_K.fa``; None for any other name."""
    match = _SPLIT_NAME.fullmatch(name)
    return int(match[1]) if match else None


@dataclass(frozen=True, slots=True)
class Source:
    """One RefSeq file's reading frames: the two unsplit FASTA files and the folders made from them.

    Parameters
    ----------
    data_dir : Path
        The data folder, as the user named it.
    relative : str
        Path of the nucleotide FASTA below it, with ``/`` between components.
    """

    # A folder may hold thousands of sources: what follows from the two is cached for the latest ones only.
    data_dir: Path
    relative: str

    def __reduce__(self) -> tuple[Callable[[Path, str], Source], tuple[Path, str]]:
        # Workers return thousands of pairs: of one source in memory.
        return _shared_source, (self.data_dir, self.relative)

    @property
    def category(self) -> str | None:
        """Category of all files of this source; None if its path names none."""
        return category_of(self.relative)

    @property
    def name(self) -> str:
        """``X``: the file name before ``.identified_nucleotide.fa``."""
        return _stem(self.relative).rstrip(".")

    @property
    def nucleotide_fasta(self) -> Path:
        """``X.identified_nucleotide.fa``."""
        return _beside(self, f"{_NUCLEOTIDE}.fa")

    @property
    def protein_fasta(self) -> Path:
        """``X.identified_protein.fa``."""
        return _beside(self, f"{_PROTEIN}.fa")

    @property
    def nucleotide_folder(self) -> Path:
        """Folder of the split nucleotide files and the DNABERT-S files."""
        return _beside(self, _NUCLEOTIDE)

    @property
    def protein_folder(self) -> Path:
        """Folder of the split protein files and the ESM files."""
        return _beside(self, _PROTEIN)

    @property
    def merged_folder(self) -> Path:
        """Folder of the merged files; sub-folders of data/ are kept, so equal names cannot collide."""
        return _merged_folder(self)

    @property
    def order(self) -> str:
        """Natural sort key of the keys of all pairs, up to their numbers."""
        return _order(self.relative)

    def pair(self, number: int) -> FilePair:
        """Split file ``number`` (counted from 1) and the files made from it.

        Parameters
        ----------
        number : int
            Number of the split file, from 1.

        Returns
        -------
        FilePair
            The pair, whether or not its files exist.
        """
        return FilePair(self, number)


@lru_cache(maxsize=64)
def _shared_source(data_dir: Path, relative: str) -> Source:
    return Source(data_dir, relative)


@lru_cache(maxsize=256)
def _beside(source: Source, end: str) -> Path:
    """Path beside the nucleotide FASTA of a source, with another end of its name."""
    parent = PurePosixPath(source.relative).parent
    return source.data_dir.joinpath(*parent.parts, f"{_stem(source.relative)}{end}")


@lru_cache(maxsize=256)
def _merged_folder(source: Source) -> Path:
    parent = PurePosixPath(source.relative).parent
    return source.data_dir.joinpath(_MERGE_ROOT, *parent.parts, f"{source.name}_merged")


@lru_cache(maxsize=256)
def _order(relative: str) -> str:
    return natural_key(f"{relative.removesuffix('.fa')}/output_")


def _stem(relative: str) -> str:
    return PurePosixPath(relative).name.removesuffix(f"{_NUCLEOTIDE}.fa")


@dataclass(frozen=True, slots=True)
class FilePair:
    """The unit of work: one split nucleotide file, its protein file, and the files made from them.

    Parameters
    ----------
    source : Source
        The source that the pair was split from.
    number : int
        K of ``output_K.fa``, counted from 1.
    """

    source: Source
    number: int

    @property
    def category(self) -> str | None:
        """Category of the source."""
        return self.source.category

    @property
    def label(self) -> int:
        """1 for viral, 0 for a host.

        Raises
        ------
        DataError
            The path names no category, so the class is unknown.
        """
        if self.category is None:
            raise DataError(f"{self.nucleotide_fasta}: {NO_CATEGORY}")
        return int(self.category == VIRAL)

    @property
    def key(self) -> str:
        """Path of the nucleotide FASTA below the data folder: the name of this pair in every record."""
        return self.relative(self.nucleotide_fasta)

    @property
    def order(self) -> str:
        """Natural sort key of :attr:`key`."""
        return self.source.order + natural_key(f"{self.number}.fa")

    @property
    def nucleotide_fasta(self) -> Path:
        """Split nucleotide file."""
        return self.source.nucleotide_folder / f"output_{self.number}.fa"

    @property
    def protein_fasta(self) -> Path:
        """Split protein file."""
        return self.source.protein_folder / f"output_{self.number}.fa"

    @property
    def dna_vectors(self) -> Path:
        """``_DNABERT_S.pt``."""
        return self.source.nucleotide_folder / f"output_{self.number}_DNABERT_S.pt"

    @property
    def protein_vectors(self) -> Path:
        """``_ESM.pt``."""
        return self.source.protein_folder / f"output_{self.number}_ESM.pt"

    def fasta(self, sequence_type: SequenceType) -> Path:
        """Split FASTA file of a sequence type.

        Parameters
        ----------
        sequence_type : SequenceType
            DNA or protein.

        Returns
        -------
        Path
            ``output_K.fa``.
        """
        return self.nucleotide_fasta if sequence_type is SequenceType.DNA else self.protein_fasta

    def vectors(self, sequence_type: SequenceType) -> Path:
        """Vectors of a sequence type.

        Parameters
        ----------
        sequence_type : SequenceType
            DNA or protein.

        Returns
        -------
        Path
            ``output_K_DNABERT_S.pt`` or ``output_K_ESM.pt``.
        """
        return self.dna_vectors if sequence_type is SequenceType.DNA else self.protein_vectors

    @property
    def merged(self) -> Path:
        """``_merged.pt``."""
        return self.source.merged_folder / f"output_{self.number}_merged.pt"

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the pair, whether or not they exist."""
        both = (self.nucleotide_fasta, self.protein_fasta)
        return (*both, self.dna_vectors, self.protein_vectors, self.merged)

    def relative(self, path: Path) -> str:
        """Path below the data folder, with ``/`` between components on every system.

        Parameters
        ----------
        path : Path
            A path within the data folder.

        Returns
        -------
        str
            The path relative to the data folder.
        """
        return path.relative_to(self.source.data_dir).as_posix()


def below(name: str) -> cached_property[Path]:
    """Path of a file or folder in the ``root`` of the folder whose attribute it is."""
    return cached_property(lambda folder: folder.root / name)


@dataclass(frozen=True)
class DataFolder:
    """A VirNucPro data folder.

    Parameters
    ----------
    root : Path
        Relative, absolute, with or without a trailing slash, or a symbolic link: kept as the user named it.
    """

    root: Path

    checkpoint = below(".extraction_checkpoint.json")
    journal = below(".extraction_journal.jsonl")
    selection = below(".extraction_selection.json")
    lock = below(".extraction.lock")
    log = below("extraction.log")
    history = below(".extraction_history.jsonl")
    report = below("report")
    exports = below("export")
    model = below("model")
    merge_root = below(_MERGE_ROOT)

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> DataFolder:
        """Folder that contains a checkpoint file.

        Parameters
        ----------
        checkpoint : Path
            The checkpoint file.

        Returns
        -------
        DataFolder
            The folder that it is in.

        Raises
        ------
        UsageError
            The file has another name: a folder has one checkpoint, and no other file is read or written.
        """
        folder = cls(checkpoint.parent)
        if checkpoint.name != folder.checkpoint.name:
            raise UsageError(
                f"the checkpoint is {checkpoint}; it must be called {folder.checkpoint.name} and be in the data "
                f"folder, as {folder.checkpoint}"
            )
        return folder

    @classmethod
    def around(cls, path: Path) -> DataFolder:
        """Folder that a split file belongs to.

        The nearest folder above that holds merged files or the records of a run; if there is none, ``data``
        in the working directory if it contains the file, else the parent of the split folder.

        Parameters
        ----------
        path : Path
            A split FASTA file.

        Returns
        -------
        DataFolder
            The data folder of its source.
        """
        above = path.parent.parents
        for folder in map(cls, above):
            if any(known.exists() for known in (folder.merge_root, folder.checkpoint, folder.selection)):
                return folder
        usual = Path("data")
        return cls(usual if usual in above else path.parent.parent)

    def free_checkpoint_copy(self) -> Path:
        """Unused name for a checkpoint of another program.

        Returns
        -------
        Path
            A path that does not exist.
        """
        stem = self.checkpoint.name.removesuffix(".json")
        names = (self.root / f"{stem}.kept-{number}.json" for number in count(1))
        return next(path for path in names if not os.path.lexists(path))

    def source_of(self, nucleotide_fasta: Path) -> Source | None:
        """Source of an unsplit nucleotide FASTA; None for a file of another name.

        Parameters
        ----------
        nucleotide_fasta : Path
            Parent nucleotide FASTA file.

        Returns
        -------
        Source or None
            The source.
        """
        if not nucleotide_fasta.name.endswith(f"{_NUCLEOTIDE}.fa"):
            return None
        return Source(self.root, nucleotide_fasta.relative_to(self.root).as_posix())

    def pair_of(self, path: Path) -> FilePair | None:
        """Pair that a split FASTA of either sequence type belongs to; None for any other path.

        Parameters
        ----------
        path : Path
            Split FASTA file.

        Returns
        -------
        FilePair or None
            The pair.
        """
        number = split_number(path.name)
        folder = path.parent
        for end in (_NUCLEOTIDE, _PROTEIN):
            if number is not None and folder.name.endswith(end):
                stem = folder.name.removesuffix(end)
                source = self.source_of(folder.with_name(f"{stem}{_NUCLEOTIDE}.fa"))
                return source.pair(number) if source else None
        return None

    def pair_named(self, name: str | Path) -> FilePair | None:
        """Pair of any of its files, given by any path: FASTA, vectors or merged file.

        Parameters
        ----------
        name : str or Path
            Absolute, or relative to the working directory or to this folder.

        Returns
        -------
        FilePair or None
            The pair; None for any other path.
        """
        for path in self._meant_by(Path(name)):
            if self.merge_root in path.parents:
                pair = self.pair_of_merged(path)
            else:
                pair = self.pair_of(path.with_name(_VECTORS_END.sub(".fa", path.name)))
            if pair is not None and path in pair.files:
                return pair
        return None

    def _meant_by(self, name: Path) -> list[Path]:
        """Paths below this folder that a name can mean, those that exist first."""
        absolute = Path(os.path.normpath(name.absolute()))
        real = name.parent.resolve() / name.name
        roots = (Path(os.path.normpath(self.root.absolute())), self.root.resolve())
        found = [
            self.root / path.relative_to(root)
            for path, root in zip((absolute, real), roots, strict=True)
            if path.is_relative_to(root)
        ]
        if not name.is_absolute() and not os.path.normpath(name).startswith(os.pardir):
            found.append(self.root / os.path.normpath(name))
        return sorted(found, key=lambda path: not path.exists())

    def pair_of_key(self, key: str) -> FilePair | None:
        """Pair of a recorded key (:attr:`FilePair.key`); None for a key that names no split file of the folder.

        Parameters
        ----------
        key : str
            Recorded key.

        Returns
        -------
        FilePair or None
            The pair.
        """
        parts = PurePosixPath(key).parts
        is_below = len(parts) > 1 and parts[0] != "/" and ".." not in parts
        return self.pair_of(self.root.joinpath(*parts)) if is_below else None

    def vectors_key(self, key: str) -> str:
        """Key of the protein vectors of a split file of any kind, given its own; other keys stay as they are.

        Parameters
        ----------
        key : str
            Path of a split file, relative to the data folder.

        Returns
        -------
        str
            Path of its protein vectors, relative to the data folder.
        """
        pair = self.pair_of_key(key)
        return key if pair is None else pair.relative(pair.protein_vectors)

    def pair_of_merged(self, path: Path) -> FilePair | None:
        """Pair that a merged file was made from, whether or not it still exists; None for any other path.

        Parameters
        ----------
        path : Path
            Merged file.

        Returns
        -------
        FilePair or None
            The pair.
        """
        stem = path.name.removesuffix("_merged.pt")
        number = split_number(f"{stem}.fa")
        folder = PurePosixPath(path.parent.relative_to(self.merge_root))
        if number is None or stem == path.name or not folder.name.endswith("_merged"):
            return None
        source = folder.with_name(f"{folder.name.removesuffix('_merged')}.{_NUCLEOTIDE}.fa")
        return Source(self.root, source.as_posix()).pair(number)

    def walk_sources(self, steps: Iterable[Step] | None = None) -> list[Source]:
        """All ``*identified_nucleotide.fa`` below the folder, naturally sorted by relative path.

        Split folders hold no sources, and ``data_merge`` is never input.

        Parameters
        ----------
        steps : iterable, optional
            See :func:`walk`.

        Returns
        -------
        list of Source
            The sources.

        Raises
        ------
        PreflightError
            Paths that name two categories, or that cannot be shown in messages and written into records: all at once.
        """
        files = (folder / name for folder, names in walk(self.root, self._is_output, steps) for name in names)
        found = [source for source in map(self.source_of, files) if source is not None]
        odd = [str(source.nucleotide_fasta) for source in found if not is_plain(source.relative)]
        if odd:
            what = "the path holds control characters or is not UTF-8"
            raise PreflightError([f"{path}: {what}; rename the file or its folder" for path in odd])
        found.sort(key=lambda source: natural_key(source.relative))
        doubts = [(source, contradiction_in(source.relative)) for source in found]
        problems = [f"{source.nucleotide_fasta}: {doubt}" for source, doubt in doubts if doubt]
        if problems:
            raise PreflightError(problems)
        return found

    def merged_files(self) -> list[Path]:
        """All merged files below ``data_merge``, whether or not their pair still exists, naturally sorted.

        Returns
        -------
        list of Path
            The files.
        """
        return sorted(self.walk_merged(), key=lambda path: natural_key(path.as_posix()))

    def walk_merged(self) -> Iterator[Path]:
        """Find all merged files below ``data_merge``, folder by folder.

        Yields
        ------
        Path
            A merged file.
        """
        if self.merge_root.is_dir():
            for folder, names in walk(self.merge_root):
                yield from (folder / name for name in names if name.endswith("_merged.pt"))

    def _is_output(self, folder: Path, name: str, siblings: Sequence[str]) -> bool:
        """Distinguish merged and split folders from folders with similar names."""
        fasta = f"{name}.fa"
        place = bisect_left(siblings, fasta)
        is_split = name.endswith((_NUCLEOTIDE, _PROTEIN)) and fasta in siblings[place : place + 1]
        return is_split or folder / name == self.merge_root


@dataclass(frozen=True)
class ExportFolder:
    """A folder of exported rows: one shard per merged file, and its manifest.

    Parameters
    ----------
    root : Path
        The folder.
    """

    root: Path

    # Readers of a folder of Parquet files skip names with an underscore. Polars does not, and requires
    # one suffix for all files in a folder: the manifest of such shards is a Parquet file without rows.
    manifest = below("_manifest.json")
    parquet_manifest = below("_manifest.parquet")
    checksums = below("_SHA256SUMS")
    journal = below(".export_journal.jsonl")
    lock = below(".export.lock")

    @property
    def documents(self) -> tuple[Path, ...]:
        """Files that mark an export as complete, one for each version of the format."""
        return self.manifest, self.checksums, self.parquet_manifest, *self.former

    @property
    def former(self) -> tuple[Path, Path]:
        """Documents of the first format."""
        return self.root / "manifest.json", self.root / "SHA256SUMS"

    def shard_of(self, pair: FilePair, suffix: str) -> str:
        """Path of a pair's shard below the folder: that of its merged file, with another suffix.

        It depends only on the pair, so a shard keeps its name when others are added or removed.
        """
        merged = PurePosixPath(pair.relative(pair.merged)).relative_to(_MERGE_ROOT)
        return str(merged.with_suffix(suffix))

    def path_of(self, shard: str) -> Path:
        """Path of a shard."""
        return self.root.joinpath(*PurePosixPath(shard).parts)


Step = tuple[str, list[str], list[str]]
"""What ``os.walk`` yields: a folder, the names of its folders, and those of its files."""


def walk_failed(error: OSError) -> None:
    """Raise for a folder that ``os.walk`` could not read: its files would silently be left out.

    Raises
    ------
    PreflightError
        Names the folder.
    """
    raise PreflightError(
        [f"{error.filename}: cannot be read ({error.strerror}); check owner and rights"]
    ) from error


_OF_FILES = (f"{_NUCLEOTIDE}.fa", f"{_PROTEIN}.fa", "_merged.pt")
"""Ends of names that only files have."""


def walk(
    root: Path,
    is_left_out: Callable[[Path, str, Sequence[str]], bool] = lambda folder, name, siblings: False,
    steps: Iterable[Step] | None = None,
) -> Iterator[tuple[Path, list[str]]]:
    """Walk a folder: symbolic links to folders are followed, each folder is entered once, litter is skipped.

    Parameters
    ----------
    root : Path
        The folder.
    is_left_out : callable
        Whether a folder is not entered: called with its parent folder, its name, and the names of the files
        in the parent folder, sorted.
    steps : iterable, optional
        Steps of ``os.walk`` from the top with ``followlinks``, for a caller that walks the folder itself.

    Yields
    ------
    folder : Path
        A folder, before its sub-folders.
    names : list of str
        Names of its files, sorted.

    Raises
    ------
    PreflightError
        A folder cannot be read, or has the name of a file.
    """
    seen: set[tuple[int, int]] = set()
    walked = os.walk(root, followlinks=True, onerror=walk_failed) if steps is None else steps
    for top, subfolders, files in walked:
        folder = Path(top)
        facts = folder.stat()
        is_new = (facts.st_dev, facts.st_ino) not in seen
        seen.add((facts.st_dev, facts.st_ino))
        names = [file for file in sorted(files) if not is_litter(file)]
        entered = [name for name in subfolders if is_new and not is_litter(name)]
        if odd := [str(folder / name) for name in sorted(entered) if name.endswith(_OF_FILES)]:
            raise PreflightError([f"{path}: is a folder, expected a file; move it away" for path in odd])
        subfolders[:] = sorted(name for name in entered if not is_left_out(folder, name, names))
        if is_new:
            yield folder, names
