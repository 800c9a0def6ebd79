"""Jobs of ``nucpro embed`` on ten proteins in parts of three."""

from __future__ import annotations

from pathlib import Path

import pytest

from nucpro.options import Options
from nucpro.progress import Progress, Show, silent
from nucpro.vectors.inputs import PartSize
from nucpro.vectors.job import EmbedOptions, EmbedReport, embed_file

LENGTHS = (30, 7, 99, 100, 1, 30, 12, 250, 8, 8)
SMALL = PartSize(3, 10_000)


def run(fasta: Path, output: Path, model: Path, *, show: Show = silent, **changes) -> EmbedReport:
    machines = Options(protein_model=str(model), device="cpu")
    return embed_file(EmbedOptions(fasta, output, machines, **({"part": SMALL} | changes)), show)


def stopped_after(parts: int, fasta: Path, output: Path, model: Path, **changes) -> None:
    """Run that a person interrupts when so many parts are done."""
    seen: list[Progress] = []

    def interrupt(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) > parts:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(fasta, output, model, show=interrupt, **changes)
