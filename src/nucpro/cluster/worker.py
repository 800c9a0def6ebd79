"""What runs in an encoder's process on a node: the model, loaded once, and one file after the other.

The driver sends paths; FASTA files are read and vectors written here. What the driver must know goes back
with each answer: the stamp of the file, counts, and the lines that were logged.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nucpro import __version__
from nucpro.checkpoint import Stamp
from nucpro.errors import ModelError, WorkerError
from nucpro.totals import Totals

if TYPE_CHECKING:
    from nucpro.encoders import FastaEncoder, Identified
    from nucpro.options import Options

__all__ = ["EncoderWorker", "Extracts", "Report", "load_same"]

_LOGGED = "nucpro"


class Extracts(Protocol):
    """What a worker needs of an encoder."""

    @property
    def totals(self) -> Totals:
        """Counts since it was loaded."""
        ...

    def extract(self, fasta: Path, output: Path, /) -> object:
        """Make the file of vectors of a FASTA file."""
        ...


@dataclass(frozen=True)
class Report:
    """Answer of a worker.

    Parameters
    ----------
    place : str
        Host and process.
    lines : tuple of (int, str)
        Level and text of what was logged since the last answer.
    totals : Totals
        Counts since the model was loaded.
    stamp : Stamp or None
        Stamp of the file that was written.
    """

    place: str
    lines: tuple[tuple[int, str], ...]
    totals: Totals
    stamp: Stamp | None = None


class _Lines(logging.Handler):
    """Keeps what was logged until it is fetched."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: deque[tuple[int, str]] = deque()

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append((record.levelno, self.format(record)))

    def fetch(self) -> tuple[tuple[int, str], ...]:
        """Take all lines."""
        return tuple(self._kept.popleft() for _ in range(len(self._kept)))


class EncoderWorker:
    """A process with an encoder; Ray makes it an actor whose calls run in a few threads."""

    def __init__(self) -> None:
        self._encoder: Extracts
        self._lines = _Lines()
        logger = logging.getLogger(_LOGGED)
        logger.addHandler(self._lines)
        logger.setLevel(logging.INFO)
        # Ray shows what reaches the root logger in files of its own.
        logger.propagate = False

    def load(self, load: Callable[[], Extracts], version: str) -> Report:
        """Load the model.

        Raises
        ------
        WorkerError
            Another version of nucpro is installed here.
        ModelError
            The model is not here, or not the same.
        """
        if version != __version__:
            raise WorkerError(
                f"host {socket.gethostname()} has nucpro {__version__}, the driver {version}; "
                "install the same version on all nodes"
            )
        self._encoder = load()
        return self._report()

    def extract(self, fasta: Path, output: Path) -> Report:
        """Make the file of vectors of a FASTA file.

        Raises
        ------
        FastaError, ExtractionError, StoreError
            See :meth:`nucpro.encoders.FastaEncoder.extract`.
        """
        self._encoder.extract(fasta, output)
        return self._report(Stamp.of(output))

    def _report(self, stamp: Stamp | None = None) -> Report:
        place = f"{socket.gethostname()}, process {os.getpid()}"
        return Report(place, self._lines.fetch(), self._encoder.totals, stamp)


def load_same(identified: Identified, options: Options) -> FastaEncoder:
    """Load the model that the driver identified from the files of this node.

    Raises
    ------
    ModelError
        The files are not here, or hold other weights.
    """
    from nucpro import encoders  # noqa: PLC0415 - imports torch

    host, expected = socket.gethostname(), identified.recipe.made_by["weights_sha256"]
    # A copy, without the digest that the driver computed.
    files = replace(identified.files)
    absent = [str(path) for path in files.weights if not path.is_file()]
    if absent:
        raise ModelError(
            f"host {host}: {', '.join(absent)} is not there; put the model on a file system that all nodes have "
            "(nucpro fetch-models FOLDER, then --protein-model FOLDER or --dna-model FOLDER)"
        )
    if files.digest() != expected:
        raise ModelError(
            f"host {host}: {files.folder} holds weights {files.digest()[:12]}…, the driver has {expected[:12]}…; "
            "give all nodes the same files"
        )
    return encoders.load(identified, options)
