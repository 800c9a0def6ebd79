"""An encoder for tests of who encodes what: the content of a FASTA file says what to do with it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from pathlib import Path

from nucpro.errors import ExtractionError
from nucpro.state.checkpoint import Fingerprint
from nucpro.state.history import Totals

logger = logging.getLogger("nucpro.trial")


class TrialEncoder:
    """Copies files, and dies, fails or waits where a file says so."""

    def __init__(self) -> None:
        self.totals = Totals()
        self._lock = threading.Lock()
        logger.info("Trial encoder is ready")

    def extract(self, fasta: Path, output: Path) -> None:
        word, _, rest = fasta.read_text().partition(" ")
        if word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "fail":
            raise ExtractionError(f"{fasta}: record {rest}")
        if word == "wait":
            Path(rest).read_text()  # a pipe: until its other end is opened and closed
        output.write_text(f"{word} {os.getpid()}")
        with self._lock:
            self.totals = Totals(tokens=self.totals.tokens + 1)

    def took(self, output: Path) -> float:
        return output.stat().st_size / 1000


def extract_file(encoder: TrialEncoder, file: Path) -> tuple[float, Fingerprint | None]:
    output = file.with_suffix(".pt")
    encoder.extract(file, output)
    return encoder.took(output), Fingerprint.of(output)


class DyingEncoder:
    """Never gets ready."""

    totals = Totals()

    def __init__(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def extract(self, fasta: Path, output: Path) -> None: ...

    def took(self, output: Path) -> float: ...


class Unreadable:
    """Can be sent, and is understood by nobody."""

    def __reduce__(self) -> tuple[object, ...]:
        return double, (None,)


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(number: int) -> int:
    raise ExtractionError(f"record {number}")


def double(number: int) -> int:
    return 2 * number
