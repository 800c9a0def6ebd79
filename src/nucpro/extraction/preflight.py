"""Pre-flight: all checks before a model is loaded or a file is changed.

Each check returns messages and changes nothing; :func:`check_all` collects them and raises one error.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from nucpro.errors import (
    FastaError,
    NucproError,
    PreflightError,
    StoreError,
    counted,
    first_few,
    human_size,
)
from nucpro.execution.workers import starting_problems
from nucpro.folder.paths import FilePair
from nucpro.formats import check_directory
from nucpro.formats.atomic import TEMPORARY_MARK
from nucpro.formats.fasta import FastaFacts, difference, read
from nucpro.formats.opening import remedy_of
from nucpro.formats.sequences import copied_sequences
from nucpro.options import precision_problem
from nucpro.state.recipe import Recipe

if TYPE_CHECKING:
    from nucpro.extraction.survey import Survey

__all__ = [
    "check_all",
    "dna_problems",
    "pairing_problems",
    "space_problems",
    "writing_problems",
]

logger = logging.getLogger(__name__)

_SHOWN = 5


def dna_problems(pairs: Iterable[FilePair], command: str, *, may_be_missing: bool = False) -> list[str]:
    """DNABERT-S files that are missing (all are listed) or are not archives.

    Only the archive directory is read: the merge workers read the contents, before the encoder gets there.

    Parameters
    ----------
    pairs : iterable of FilePair
        Selected files.
    command : str
        The command that makes missing files, for the message.
    may_be_missing : bool
        Whether the run makes missing files itself.

    Returns
    -------
    list of str
        Problems, each in one message.
    """
    missing, problems = [], []
    for pair in pairs:
        if not os.path.lexists(pair.dna_vectors):
            missing.append(pair.dna_vectors)
            continue
        try:
            check_directory(pair.dna_vectors)
        except StoreError as error:
            problems.append(f"{error}; recompute this file with: {command}")
    if missing and not may_be_missing:
        listed = "\n".join(f"      {path}" for path in missing)
        problems.insert(
            0, f"{counted(len(missing), 'DNABERT-S file')} missing; make them with: {command}\n{listed}"
        )
    return problems


def pairing_problems(
    pairs: Sequence[FilePair],
    nucleotide: Mapping[FilePair, FastaFacts],
    protein: Mapping[FilePair, FastaFacts],
) -> list[str]:
    """Protein files that are missing or have other ids, and unusable records of both sequence types.

    Parameters
    ----------
    pairs : sequence of FilePair
        Selected files with both split folders.
    nucleotide, protein : mapping of FilePair to FastaFacts
        Facts of all split files that could be read.

    Returns
    -------
    list of str
        Problems, each in one message.
    """
    problems: list[str] = []
    for pair in pairs:
        left, right = nucleotide.get(pair), protein.get(pair)
        problems += left.problems if left else ()
        problems += right.problems if right else ()
        if not os.path.lexists(pair.protein_fasta):
            problems.append(
                f"{pair.protein_fasta}: missing; {pair.nucleotide_fasta} has no protein sequences; restore it, or move "
                f"{pair.protein_fasta.parent} away: it is split again"
            )
        elif left and right and left.ids_digest != right.ids_digest:
            problems.append(_different_ids(pair.nucleotide_fasta, pair.protein_fasta))
        elif left and right:
            problems += _copied(pair, left, right)
    return problems


def _copied(pair: FilePair, left: FastaFacts, right: FastaFacts) -> list[str]:
    problem = copied_sequences(
        pair.nucleotide_fasta,
        left.letters,
        pair.protein_fasta,
        right.letters,
        is_nucleotide=right.nucleotide,
    )
    return [problem] if problem else []


def _different_ids(nucleotide: Path, protein: Path) -> str:
    try:
        only_left, only_right = difference(read(nucleotide).ids, read(protein).ids)
    except FastaError as error:
        return str(error)
    return (
        f"{nucleotide} and {protein} hold different ids: "
        f"{_some(only_left)} only in the nucleotide file, {_some(only_right)} only in the protein file; "
        "split both again from the same run of the data set preparation"
    )


def _some(ids: list[str]) -> str:
    return first_few(ids, _SHOWN) or "none"


def writing_problems(folders: Iterable[Path], *, probe: bool = True) -> list[str]:
    """Folders that cannot be written; for a folder that does not exist yet, its nearest parent is checked.

    Parameters
    ----------
    folders : iterable of Path
        Output folders.
    probe : bool
        Create a file to test it; else check only permissions and mount options, which changes nothing.

    Returns
    -------
    list of str
        Problems, each in one message.
    """
    problems = []
    for folder in sorted({_nearest_existing(folder) for folder in folders}):
        error = _tried(folder) if probe else _asked(folder)
        if error:
            remedy = remedy_of(folder, error) or "check owner, rights and mount options"
            problems.append(f"{folder}: cannot be written ({error.strerror}); {remedy}")
    return problems


def _tried(folder: Path) -> OSError | None:
    try:
        # Where the file system can, without a name, which a killed run would leave.
        with tempfile.TemporaryFile(dir=folder, prefix=f".probe{TEMPORARY_MARK}"):
            return None
    except OSError as error:
        return error


def _asked(folder: Path) -> OSError | None:
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return OSError(errno.EROFS, os.strerror(errno.EROFS))
    is_allowed = os.access(folder, os.W_OK | os.X_OK)
    return None if is_allowed else OSError(errno.EACCES, os.strerror(errno.EACCES))


def space_problems(needed: Mapping[Path, tuple[int, int]]) -> list[str]:
    """File systems with too little space.

    Parameters
    ----------
    needed : mapping of Path to (int, int)
        For each output folder: bytes to write, and bytes of replaced files.

    Returns
    -------
    list of str
        Problems, each in one message.
    """
    totals: dict[int, tuple[Path, int, int]] = {}
    for folder, (write, replaced) in needed.items():
        existing = _nearest_existing(folder)
        device = existing.stat().st_dev
        first, to_write, freed = totals.get(device, (existing, 0, 0))
        totals[device] = (first, to_write + write, freed + replaced)
    problems = []
    for folder, write, replaced in totals.values():
        free = shutil.disk_usage(folder).free
        logger.debug("%s: %s to write, %s free", folder, human_size(write), human_size(free))
        if write - replaced > free:
            problems.append(
                f"{folder}: too little disk space: {human_size(write)} to write, {human_size(replaced)} of them "
                f"replace files, {human_size(free)} free; make {human_size(write - replaced - free)} of space available"
            )
    return problems


def _nearest_existing(folder: Path) -> Path:
    while not folder.is_dir():
        folder = folder.parent
    return folder


class _Found(Protocol):
    """A model that was found, with the recipe of its vectors."""

    @property
    def recipe(self) -> Recipe: ...


Model = TypeVar("Model", bound=_Found)


def check_all(
    survey: Survey,
    identified: Callable[[bool], Model],
    device_problems: Callable[[], list[str]],
    *,
    probe: bool = True,
) -> Model:
    """Pre-flight: all checks before a model is loaded or a file is changed.

    Parameters
    ----------
    survey : Survey
        Survey of the data folder.
    identified : callable
        Finds the model; may use the network if its argument is true.
    device_problems : callable
        Problems of the device.
    probe : bool
        Whether files may be created to test whether folders can be written.

    Raises
    ------
    PreflightError
        All problems at once.
    """
    problems = survey.inputs() + writing_problems(survey.folders_written(), probe=probe) + starting_problems()
    needs_device = True
    try:
        model = identified(not problems)
    except NucproError as error:
        problems.append(str(error))
    else:
        plan = survey.compare(model.recipe)
        problems += survey.replacing_problems() + space_problems(plan.space)
        needs_device = bool(plan.to_extract or survey.options.audit)
    if not probe:
        problems += survey.dna_contents()
    if needs_device:
        problems += device_problems() + _precision_problems(survey)
    if problems:
        raise PreflightError(problems)
    return model


def _precision_problems(survey: Survey) -> list[str]:
    """Why the device cannot compute in the precision that the files of the folder have."""
    if not survey.is_compared:
        return []
    precision = survey.plan.recipe.made_by["precision"]
    if precision_problem(precision, survey.options.device) is None:
        return []
    return [
        f"{survey.folder.root}: its {survey.sequence_type.word} vectors are in {precision}, in which "
        f"{survey.options.device} does not compute, and {counted(len(survey.plan.to_extract), 'file')} still to be "
        "made; run where a GPU is, or recompute all of them with --precision fp32 --replace"
    ]
