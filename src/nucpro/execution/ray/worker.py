"""The encoder's process on a node: it loads the models once, then processes one item after the other.

The driver specifies what to load and what to do. To make vectors it sends paths; FASTA files are read and
vectors written here. Each answer returns the result, counts and log lines.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from nucpro import __version__
from nucpro.errors import ModelError, WorkerError
from nucpro.state.history import Loaded, Totals

if TYPE_CHECKING:
    from nucpro.embedding.encoder import FastaEncoder
    from nucpro.embedding.identification import Identified
    from nucpro.options import Options

__all__ = ["EncoderWorker", "Report", "load_same"]

_LOGGED = "nucpro"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Report(Generic[Result]):
    """Answer of a worker.

    Parameters
    ----------
    place : str
        Host and process.
    lines : tuple of (int, str)
        Level and text of what was logged since the last answer.
    totals : Totals
        Counts since the model was loaded.
    result : object
        Result of the work; None after loading.
    """

    place: str
    lines: tuple[tuple[int, str], ...]
    totals: Totals
    result: Result


class _Lines(logging.Handler):
    """Keeps log lines until they are fetched."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: deque[tuple[int, str]] = deque()

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append((record.levelno, self.format(record)))

    def fetch(self) -> tuple[tuple[int, str], ...]:
        """Return and clear all lines; called in several threads."""
        lines: list[tuple[int, str]] = []
        with suppress(IndexError):
            while True:
                lines.append(self._kept.popleft())
        return tuple(lines)


class EncoderWorker:
    """A process with an encoder; Ray makes it an actor whose calls run in a few threads."""

    def __init__(self) -> None:
        self._loaded: Loaded
        self._work: Callable[..., Any]
        self._lines = _Lines()
        logger = logging.getLogger(_LOGGED)
        logger.addHandler(self._lines)
        logger.setLevel(logging.INFO)
        # Ray shows what reaches the root logger in files of its own.
        logger.propagate = False

    def load(self, load: Callable[[], Loaded], work: Callable[..., Any], version: str) -> Report[None]:
        """Load the models that the work needs.

        Parameters
        ----------
        load : callable
            Loads them.
        work : callable
            Processes an item with the loaded models, its first argument.
        version : str
            Version of nucpro in the driver.

        Raises
        ------
        WorkerError
            Another version of nucpro is installed here.
        ModelError
            The model is missing here, or differs.
        """
        if version != __version__:
            raise WorkerError(
                f"host {socket.gethostname()} has nucpro {__version__}, the driver {version}; "
                "install the same version on all nodes"
            )
        self._loaded, self._work = load(), work
        return self._report(None)

    def work(self, item: Any) -> Report[Any]:
        """Do the work of an item.

        Raises
        ------
        Exception
            The exception of the work.
        """
        return self._report(self._work(self._loaded, item))

    def _report(self, result: Result) -> Report[Result]:
        place = f"{socket.gethostname()}, process {os.getpid()}"
        return Report(place, self._lines.fetch(), self._loaded.totals, result)


def load_same(identified: Identified, options: Options) -> FastaEncoder:
    """Load the model that the driver identified from the files of this node.

    Raises
    ------
    ModelError
        The files are missing here, or contain other weights.
    """
    from nucpro.embedding import encoder as encoders  # noqa: PLC0415 - imports torch

    host, expected = socket.gethostname(), identified.recipe.made_by["weights_sha256"]
    files = identified.files
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
