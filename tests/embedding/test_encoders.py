"""The unit of work of an encoder, one FASTA file: the time that it says a file took."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

import random_esm
from folders import Frame, write_fasta
from nucpro.embedding.encoder import FastaEncoder
from nucpro.execution.engine import LocalEngine
from nucpro.formats.fasta import Records
from nucpro.options import Options


@pytest.fixture
def encoder(model: Path) -> FastaEncoder:
    return random_esm.encoder_of(model)


@pytest.fixture
def fasta(tmp_path: Path, frames: dict[str, list[Frame]]) -> Path:
    path = tmp_path / "output_1.fa"
    write_fasta(path, [(frame.name, frame.residues) for frame in frames["viral.1.1"][:4]])
    return path


def test_waiting_for_the_device_is_no_part_of_a_files_time(
    encoder: FastaEncoder, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_read = threading.Event()
    encode = encoder.tokenizer.encode
    monkeypatch.setattr(encoder.tokenizer, "encode", lambda *given: (encode(*given), is_read.set())[0])
    output = tmp_path / "output_1_ESM.pt"
    work = threading.Thread(target=encoder.extract, args=(fasta, output))
    with encoder._device_lock:  # as while another file is put on the device
        work.start()
        is_read.wait()
        free = time.perf_counter()
    work.join()
    assert 0 < encoder.took(output) <= time.perf_counter() - free


def test_a_time_is_reported_once_whichever_encoder_of_the_model_is_asked(
    encoder: FastaEncoder, fasta: Path, tmp_path: Path
) -> None:
    output = tmp_path / "output_1_ESM.pt"
    encoder.limited(50, None).extract(fasta, output)
    assert encoder.took(tmp_path / "other.pt") == 0
    assert encoder.took(output) > 0
    assert encoder.took(output) == 0


def test_equal_sequences_are_computed_once_where_asked(encoder: FastaEncoder) -> None:
    """Rows stay in the order of the records, cut ones are counted each, and other records are as before."""
    parts = [b"MKVLAT", b"MA", b"MKVLATW" * 200, b"MKVLATG" * 9]
    sequences = [parts[place] for place in (0, 1, 0, 2, 3, 2, 2, 1)]
    records = Records(Path("frames.fa"), [f"p{row}" for row in range(len(sequences))], sequences)
    once = FastaEncoder(encoder.embedder, encoder.tokenizer, encoder.recipe, repeats_once=True)
    expected, found = encoder.embed(records), once.embed(records)
    assert found.names == expected.names
    np.testing.assert_allclose(found.matrix, expected.matrix, rtol=0, atol=1e-5)
    assert found.truncated == expected.truncated == 3
    assert once.totals.repeated == 4
    assert once.totals.tokens < encoder.totals.tokens
    assert encoder.totals.repeated == 0
    assert once.embed(_only(records, 4)).matrix.shape == (4, expected.matrix.shape[1])


def _only(records: Records, count: int) -> Records:
    return Records(records.path, records.ids[-count:], records.sequences[-count:])


def test_a_file_that_is_still_computed_when_a_run_has_ended_is_not_written(
    encoder: FastaEncoder, fasta: Path, tmp_path: Path
) -> None:
    """A person interrupts a call in Python: its threads go on, and the folder may belong to another run by then."""
    outputs = [tmp_path / f"output_{number}_ESM.pt" for number in (1, 2)]
    has_begun, has_ended = threading.Event(), threading.Event()

    def work(limited: FastaEncoder, output: Path) -> None:
        if output == outputs[0]:
            has_begun.wait()
            raise KeyboardInterrupt
        has_begun.set()
        try:
            limited.extract(fasta, output)
        finally:
            has_ended.set()

    def run() -> None:
        with LocalEngine(Options(device="cpu")) as engine:
            engine.load(lambda _: encoder)
            list(engine.run(work, outputs, len(outputs)))

    before = sorted(tmp_path.iterdir())
    with encoder._device_lock, pytest.raises(KeyboardInterrupt):
        run()
    has_ended.wait()
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(RuntimeError, match="has ended"):
        encoder.limited(50, None).extract(fasta, outputs[0])
