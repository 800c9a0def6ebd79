"""Small VirNucPro data folders for tests, made of real reading frames."""

from __future__ import annotations

import inspect
import os
import resource
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import stand_ins
from nucpro.folder.paths import DataFolder, FilePair, Source
from nucpro.folder.splitting import split_source
from nucpro.formats.fasta import read
from nucpro.options import Options

PER_FILE = 4
WIDTH = 16
"""Width of the tiny protein model of most tests."""


@dataclass(frozen=True)
class Frame:
    """One reading frame: its id, bases and residues."""

    name: str
    bases: str
    residues: str


def read_frames(source: Source) -> list[Frame]:
    nucleotide, protein = read(source.nucleotide_fasta), read(source.protein_fasta)
    return [
        Frame(name, bases.decode(), residues.decode())
        for name, bases, residues in zip(nucleotide.ids, nucleotide.sequences, protein.sequences, strict=True)
    ]


def write_fasta(path: Path, records: Sequence[tuple[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in records), encoding="utf-8")


def add_source(
    data: Path, name: str, frames: Sequence[Frame], *, per_file: int = PER_FILE, split: bool = True
) -> Source:
    """Write both FASTA files of a source, and its split folders."""
    write_fasta(data / f"{name}.identified_nucleotide.fa", [(f.name, f.bases) for f in frames])
    write_fasta(data / f"{name}.identified_protein.fa", [(f.name, f.residues) for f in frames])
    source = DataFolder(data).source_of(data / f"{name}.identified_nucleotide.fa")
    assert source is not None
    if split:
        split_source(source, per_file)
    return source


def add_dna(source: Source, numbers: Sequence[int]) -> None:
    """Write stand-ins for the DNABERT-S files of some split files."""
    for number in numbers:
        pair = source.pair(number)
        stand_ins.write_dna_stand_in(pair.dna_vectors, read(pair.nucleotide_fasta).ids)


def pairs_of(data: Path) -> list[FilePair]:
    """All split files of a data folder."""
    found = DataFolder(data).walk_sources()
    return [s.pair(k) for s in found for k in range(1, 100) if s.pair(k).nucleotide_fasta.exists()]


def contents(data: Path) -> dict[str, bytes]:
    """Every output below a data folder: what must be equal after equal work."""
    return {path.relative_to(data).as_posix(): path.read_bytes() for path in sorted(data.rglob("*.pt"))}


def leftovers(data: Path) -> list[Path]:
    """Temporary files or folders of unfinished writes."""
    return [path for path in data.rglob("*") if "nucpro-tmp" in path.name]


def arguments(data: Path, model: Path, *more: str) -> list[str]:
    """Arguments of ``nucpro extract`` for a small folder on the CPU."""
    options: Mapping[str, str] = {
        "--data-dir": str(data),
        "--protein-model": str(model),
        "--device": "cpu",
        "--sequences-per-file": str(PER_FILE),
    }
    return [*(part for pair in options.items() for part in pair), "--no-report", *more]


def options_with(monkeypatch: pytest.MonkeyPatch, **values: Any) -> None:
    """Change defaults of :class:`Options`, for functions that open a folder with the usual ones."""
    by_place = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = inspect.signature(Options).parameters.values()
    defaults = {p.name: values.get(p.name, p.default) for p in parameters if p.default is not p.empty}
    for name, value in values.items():
        monkeypatch.setattr(Options.__dataclass_fields__[name], "default", value)
    placed = [p.name for p in parameters if p.name in defaults and p.kind is by_place]
    monkeypatch.setattr(Options.__init__, "__defaults__", tuple(defaults.pop(name) for name in placed))
    monkeypatch.setattr(Options.__init__, "__kwdefaults__", defaults)


@contextmanager
def edited(path: Path) -> Iterator[dict[str, Any]]:
    """Content of a ``.pt`` file to be changed; written back at the end."""
    import torch

    content = torch.load(path, weights_only=True)
    yield content
    torch.save(content, path)


def copied(source: Path, target: Path) -> Path:
    """Copy a data folder for a test that changes it."""
    return Path(shutil.copytree(source, target, symlinks=True))


def as_pipe(path: Path) -> None:
    os.mkfifo(path)


def as_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def as_folder(path: Path) -> None:
    path.mkdir()


def as_dangling(path: Path) -> None:
    path.symlink_to("../../.git/annex/objects/gone")


@contextmanager
def no_more_files() -> Iterator[None]:
    """Let this process open no further file: its limit of open files is reached."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """End what waits for a pipe or reads a device without end."""

    def late(number: int, frame: FrameType | None) -> None:
        raise AssertionError("waits for something that never comes")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
