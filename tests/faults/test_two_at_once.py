"""A second run on a folder, and inputs that are replaced under a run, at any instant: real processes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from scenarios import Baseline, Scenario, copied, state

import stand_ins
from folders import arguments, leftovers
from nucpro.cli import main
from nucpro.folder.paths import DataFolder
from nucpro.formats.fasta import read


@dataclass
class Stopped:
    """A run that stands still; at the end of the ``with`` block it has run on to its end."""

    process: subprocess.Popen[str]
    told: str = field(default="", init=False)

    @property
    def code(self) -> int:
        return self.process.returncode


@contextmanager
def stopped(scenario: Scenario, data: Path, point: str) -> Iterator[Stopped]:
    """Start a run and have it stop itself (SIGSTOP) at a point; after the block it goes on."""
    process = subprocess.Popen(
        scenario.strike_command(data, f"{point}:SIGSTOP"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    run = Stopped(process)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    try:
        yield run
    finally:
        process.send_signal(signal.SIGCONT)
        _, run.told = process.communicate(timeout=300)


@pytest.mark.points(1, 6)
def test_a_second_run_is_refused(
    part: int,
    parts: int,
    extracting: Baseline,
    embed_dna: Scenario,
    data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The lock is taken within the first events.
    point = f"main:{10 + part * (extracting.events['main'] - 15) // parts}"
    with stopped(extracting.scenario, data, point) as first:
        others = (
            extracting.scenario.command(data),
            embed_dna.command(data),
            ["dataset", str(data), "--length", "300"],
        )
        for command in others:
            assert main(command) == 3
            told = capsys.readouterr().err
            assert f"{data}: in use by process {first.process.pid} on host" in told
            assert "wait until it ends, or stop it" in told
        assert main(["status", str(data), "--sequences-per-file", "4"]) == 0
        assert f"at work, process {first.process.pid}" in capsys.readouterr().out
    assert first.code == 0, first.told
    assert state(data) == extracting.final


def other_proteins(data: Path, model: Path) -> None:
    fasta = data / "viral.1.1.identified_protein" / "output_1.fa"
    replace(fasta, fasta.read_bytes().replace(b"A", b"G"))


def other_proteins_in_place(data: Path, model: Path) -> None:
    fasta = data / "bacteria.1.1.identified_protein" / "output_2.fa"
    fasta.write_bytes(fasta.read_bytes().replace(b"L", b"V"))


def other_ids(data: Path, model: Path) -> None:
    for sequence_type in ("nucleotide", "protein"):
        fasta = data / f"viral.1.1.identified_{sequence_type}" / "output_3.fa"
        replace(fasta, fasta.read_bytes().replace(b"chunk", b"piece"))
    fasta = data / "viral.1.1.identified_nucleotide" / "output_3.fa"
    stand_ins.write_dna_stand_in(fasta.with_name("output_3_DNABERT_S.pt"), read(fasta).ids)


def other_dna_vectors(data: Path, model: Path) -> None:
    fasta = data / "viral.1.1.identified_nucleotide" / "output_1.fa"
    other = fasta.with_name("new.pt")
    stand_ins.write_dna_stand_in(other, read(fasta).ids)
    other.rename(fasta.with_name("output_1_DNABERT_S.pt"))


def other_weights(data: Path, model: Path) -> None:
    file = model / "model.safetensors"
    tensors = load_file(file)
    tensors["encoder.layer.0.output.dense.weight"] *= 2
    save_file(tensors, model / "new.safetensors")
    (model / "new.safetensors").rename(file)


def replace(path: Path, content: bytes) -> None:
    new = path.with_name("new")
    new.write_bytes(content)
    new.rename(path)


REPLACED = (other_proteins, other_proteins_in_place, other_ids, other_dna_vectors, other_weights)


@pytest.fixture(scope="module")
def fresh(
    pristine: Path, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Callable[[Path, Path], None]], dict[str, bytes]]:
    """What a run makes that finds the replaced input from its start."""
    known: dict[str, dict[str, bytes]] = {}

    def of(change: Callable[[Path, Path], None]) -> dict[str, bytes]:
        if change.__name__ not in known:
            folder = tmp_path_factory.mktemp("fresh")
            data, weights = copied(pristine, folder / "data"), copied(model, folder / model.name)
            change(data, weights)
            assert main(["extract", *arguments(data, weights)]) == 0
            known[change.__name__] = state(data)
        return known[change.__name__]

    return of


@pytest.mark.points(0, 5)
@pytest.mark.parametrize("change", REPLACED)
def test_an_input_that_is_replaced_meanwhile(
    part: int,
    parts: int,
    change: Callable[[Path, Path], None],
    extracting: Baseline,
    fresh: Callable[[Callable[[Path, Path], None]], dict[str, bytes]],
    data: Path,
    model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Either the run tells that something changed, or it has made everything from the new input.

    After it has said that everything was validated, only the next run can notice.
    """
    weights = copied(model, data.with_name(model.name))
    scenario = Scenario(extracting.scenario.start, lambda folder: ["extract", *arguments(folder, weights)])
    with stopped(scenario, data, extracting.point("main", part, parts)) as run:
        was_over = "Validation passed" in DataFolder(data).log.read_text()
        change(data, weights)
    if run.code == 0 and not was_over and change is not other_weights:
        assert state(data) == fresh(change)
    elif run.code != 0:
        assert run.code in (1, 3), run.told
        assert "please report" not in run.told
    code = scenario.repeat(data)
    if code == 3 and change is other_weights:
        # Vectors of another model are never replaced unasked.
        assert "--replace" in capsys.readouterr().err
        code = main([*scenario.command(data), "--replace"])
    assert code == 0
    assert state(data) == fresh(change)
    assert leftovers(data) == []
