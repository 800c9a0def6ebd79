"""Environment checks: resources of this machine, and reasons why runs will be slow.

Checks Python, torch, the device, the disk, the data folder and the models; changes nothing, downloads nothing, and
loads weights only where their answers are asked for. What comes out goes to ``nucpro doctor``.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

import torch

from nucpro import __version__
from nucpro.embedding.device import (
    CPU_SLOWER,
    PRECISIONS,
    choose_device,
    cpu_threads,
    device_problems,
    settled,
)
from nucpro.embedding.identification import precision_of
from nucpro.errors import ModelError, NucproError, counted, human_size
from nucpro.execution.workers import starting_problems
from nucpro.extraction.preflight import writing_problems
from nucpro.extraction.survey import with_recorded_models
from nucpro.folder.paths import DataFolder
from nucpro.formats.opening import path_of
from nucpro.formats.sequences import SequenceType
from nucpro.inspection.answers import compare
from nucpro.machine import cores, free_memory
from nucpro.models.architectures import architecture_of, way_of
from nucpro.models.kernels import Way
from nucpro.models.weights import ModelFiles, available, locate
from nucpro.options import Options
from nucpro.state import lock
from nucpro.state.checkpoint import Checkpoint

__all__ = ["Finding", "Verdict", "examine"]

_LABELS = {SequenceType.PROTEIN: "Protein", SequenceType.DNA: "DNA"}
_GROUPS = {"all", "dev", "docs"}
"""Extras that gather others, or are for those who work on the package."""
_FEW_CORES = 4
_LITTLE_MEMORY = 8e9
_LITTLE_GPU_MEMORY = 8e9
_LITTLE_DISK = 1e9
_BYTES_A_SEQUENCE = 14_000
"""What a sequence takes on disk in protein and merged file: 4 * (1280 + 2048) bytes, its id and some overhead."""
_NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "lustre", "beegfs"}


class Verdict(StrEnum):
    """Severity of a finding: none, a note, slow runs, or runs that would not start."""

    FINE = "fine"
    NOTE = "note"
    SLOW = "slow"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Parameters
    ----------
    name : str
        What it is.
    verdict : Verdict
        Severity for a run.
    text : str
        The finding; if it is not fine, also why it matters and what to do.
    """

    name: str
    verdict: Verdict
    text: str


def examine(options: Options, data_dir: Path | None, *, answers: bool = False) -> list[Finding]:
    """Check everything that a run needs.

    Parameters
    ----------
    options : Options
        The device, its precision, and the models.
    data_dir : Path or None
        The data folder; None where none is chosen yet.
    answers : bool
        Load the models that are here, and compare their vectors of fixed sequences with known ones.

    Returns
    -------
    list of Finding
        One finding per line of ``nucpro doctor``.
    """
    options = settled(options)
    if data_dir is not None and data_dir.is_dir():
        options = with_recorded_models(options, Checkpoint(DataFolder(data_dir), read_only=True))
    return [
        *_machine(),
        *_device(options),
        *_model(options, SequenceType.PROTEIN),
        *_model(options, SequenceType.DNA),
        *_data(data_dir),
        *_extras(),
        *(_answers(options) if answers else ()),
    ]


def _machine() -> Iterator[Finding]:
    yield Finding("nucpro", Verdict.FINE, __version__)
    yield Finding("Python", Verdict.FINE, f"{platform.python_version()} on {platform.platform()}")
    count = cores()
    if count < _FEW_CORES:
        why = f"fewer than {_FEW_CORES}: reading, merging and validating take turns with the encoder"
        yield Finding("CPU", Verdict.SLOW, f"{counted(count, 'core')}, {why}")
    else:
        yield Finding("CPU", Verdict.FINE, f"{counted(count, 'core')}")
    for problem in starting_problems():
        yield Finding("Workers", Verdict.PROBLEM, problem)
    memory = free_memory()
    if memory is not None:
        little = memory < _LITTLE_MEMORY
        why = "; a run needs the model's weights (about 3 GB) and 0.3 GB a worker" if little else ""
        verdict = Verdict.SLOW if little else Verdict.FINE
        yield Finding("Memory", verdict, f"{human_size(memory)} free{why}")


def _device(options: Options) -> Iterator[Finding]:
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "a build without CUDA"
    yield Finding("torch", Verdict.FINE, f"{torch.__version__}, {build}")
    problems = device_problems(options.device)
    if problems:
        yield Finding("Device", Verdict.PROBLEM, problems[0])
        return
    device = choose_device(options.device)
    if device.type == "cpu":
        why = f"with models of real size an H100 is about {CPU_SLOWER} times faster"
        yield Finding("Device", Verdict.SLOW, f"cpu, {counted(cpu_threads(), 'thread')}; {why}")
        return
    free, total = torch.cuda.mem_get_info(device)
    text = f"{device}: {torch.cuda.get_device_name(device)}, {human_size(free)} of {human_size(total)} free"
    little = free < _LITTLE_GPU_MEMORY
    why = "; batches will be split for lack of memory: end other programs there, or lower --tokens-per-batch"
    yield Finding("Device", Verdict.SLOW if little else Verdict.FINE, text + why * little)


def _model(options: Options, sequence_type: SequenceType) -> Iterator[Finding]:
    name, revision = options.model_of(sequence_type)
    label = _LABELS[sequence_type]
    try:
        files = locate(name, revision=revision, offline=True)
    except ModelError as error:
        yield _not_here(label, sequence_type, str(error), name, revision)
        return
    size = sum(path.stat().st_size for path in files.weights)
    path = path_of(name)
    here = "a folder" if path.is_dir() else "a file"
    where = here if path.exists() else f"in the cache, revision {files.revision}"
    yield Finding(f"{label} model", Verdict.FINE, f"{name}: {where}, {human_size(size)} of weights")
    yield from _kernels(options, sequence_type, files)


def _not_here(
    label: str, sequence_type: SequenceType, problem: str, name: str, revision: str | None
) -> Finding:
    """A model that is neither a good folder nor in the cache."""
    try:
        if not path_of(name).exists():
            commit = available(name, revision=revision)
            text = f"{name}: can be reached, and is downloaded by the first run (commit {commit})"
            return Finding(f"{label} model", Verdict.NOTE, text)
    except ModelError as error:
        problem = str(error)
    if sequence_type is SequenceType.PROTEIN:
        return Finding(f"{label} model", Verdict.PROBLEM, problem)
    # DNABERT-S files may have been made elsewhere: a run does not stop for want of this model.
    return Finding(f"{label} model", Verdict.NOTE, f"{problem}; only embed-dna and --with-dna need it")


def _kernels(options: Options, sequence_type: SequenceType, files: ModelFiles) -> Iterator[Finding]:
    label = f"{_LABELS[sequence_type]} kernels"
    if device_problems(options.device):
        return
    device = choose_device(options.device)
    try:
        architecture = architecture_of(files, sequence_type)
        config = architecture.config_of(files, options.token_dropout)
    except NucproError as error:
        yield Finding(label, Verdict.PROBLEM, str(error))
        return
    choice = way_of(config, device, PRECISIONS[precision_of(options)])
    if choice.way is Way.PLAIN:
        yield Finding(label, Verdict.SLOW, f"{choice.way.value} runs: {choice.reason}")
    else:
        built = "built at the first start, which takes some seconds"
        yield Finding(label, Verdict.FINE, f"{choice}; {built}")


def _answers(options: Options) -> Iterator[Finding]:
    """Output of the models here, compared with known answers; missing models are reported elsewhere."""
    for sequence_type, label in _LABELS.items():
        name, revision = options.model_of(sequence_type)
        try:
            locate(name, revision=revision, offline=True)
        except ModelError:
            continue
        try:
            found = compare(options, sequence_type)
        except NucproError as error:
            yield Finding(f"{label} vectors", Verdict.PROBLEM, str(error))
            continue
        yield Finding(f"{label} vectors", Verdict.FINE if found.agrees else Verdict.PROBLEM, str(found))


def _data(data_dir: Path | None) -> Iterator[Finding]:
    if data_dir is not None and not data_dir.is_dir():
        problem = f"{data_dir}: no such folder; create it, or mount it there"
        yield Finding("Data folder", Verdict.PROBLEM, problem)
        return
    folder = data_dir or Path()
    free = shutil.disk_usage(folder).free
    text = (
        f"{human_size(free)} free at {folder.absolute()}, enough for {free // _BYTES_A_SEQUENCE:,} sequences"
    )
    yield Finding("Disk", Verdict.PROBLEM if free < _LITTLE_DISK else Verdict.FINE, text)
    if data_dir is None:
        return
    problems = writing_problems([folder])
    kind = _file_system(folder)
    if problems:
        yield Finding("Data folder", Verdict.PROBLEM, problems[0])
    elif kind in _NETWORK_FILE_SYSTEMS:
        why = "on a network, which may be slower than the GPU; it must have locks"
        yield Finding(
            "Data folder", Verdict.SLOW, f"{folder}: can be written; its file system ({kind}) is {why}"
        )
    else:
        state = lock.state(DataFolder(folder).lock)
        yield Finding("Data folder", Verdict.FINE, f"{folder}: can be written; run: {state}")


def _extras() -> Iterator[Finding]:
    """Extras of the package and their requirements, from its metadata."""
    if _version("nucpro") is None:
        text = "unknown: nucpro runs from a folder that is not installed (pip install .)"
        yield Finding("Extras", Verdict.NOTE, text)
        return
    needed: dict[str, list[str]] = {}
    for line in metadata.requires("nucpro") or []:
        match = re.match(r"([A-Za-z0-9._-]+).*; extra == ['\"](\w+)['\"]", line)
        if match and match[1] != "nucpro" and match[2] not in _GROUPS:
            needed.setdefault(match[2], []).append(match[1])
    for extra, packages in needed.items():
        missing = [package for package in packages if _version(package) is None]
        if missing:
            text = f"lacks {', '.join(missing)}: pip install 'nucpro[{extra}]'"
            yield Finding(f"Extra {extra}", Verdict.NOTE, text)
        else:
            found = ", ".join(f"{package} {_version(package)}" for package in packages)
            yield Finding(f"Extra {extra}", Verdict.FINE, found)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _file_system(folder: Path) -> str:
    """Type of the file system of a folder; empty if unknown."""
    try:
        places = _mounts(Path("/proc/mounts").read_bytes())
    except OSError:
        return ""
    real = folder.resolve()
    # Of two mounts at one place the later one counts.
    above = [
        (len(place.parts), number, kind) for number, (place, kind) in enumerate(places) if _is_in(real, place)
    ]
    return max(above)[2] if above else ""


def _mounts(table: bytes) -> list[tuple[Path, str]]:
    """Places of a table of mounts, with the types of what is mounted there."""
    fields = [line.split() for line in table.splitlines()]
    # Spaces of paths are octal escapes; other bytes are as they are, in any encoding.
    places = [re.sub(rb"\\([0-3][0-7]{2})", lambda code: bytes([int(code[1], 8)]), one[1]) for one in fields]
    return [(Path(os.fsdecode(place)), one[2].decode()) for place, one in zip(places, fields, strict=True)]


def _is_in(path: Path, place: Path) -> bool:
    return path == place or place in path.parents
