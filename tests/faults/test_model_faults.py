"""Faults of the encoder: too little memory at any batch, and values that are not numbers or say nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scenarios import Baseline, copied, state

from folders import PER_FILE, arguments
from nucpro.cli import main
from nucpro.embedding.encoder import identify, load
from nucpro.errors import ExtractionError
from nucpro.extraction.run import Run
from nucpro.formats import read_vectors
from nucpro.formats.fasta import Records
from nucpro.formats.sequences import SequenceType
from nucpro.models.config import Config, Readout
from nucpro.models.encoder import PackedEncoder
from nucpro.options import Options

BATCHES = 12
"""Of a whole run: two records each."""
Fault = Callable[[torch.Tensor], torch.Tensor]


def out_of_device_memory(_: torch.Tensor) -> torch.Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def out_of_host_memory(_: torch.Tensor) -> torch.Tensor:
    raise RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"
    )


class Faulty:
    """An encoder that fails at one of its batches, or at all from there on."""

    def __init__(self, encoder: PackedEncoder, fault: Fault, at: int, *, always: bool = False) -> None:
        self.encoder = encoder
        self.fault = fault
        self.at = at
        self.always = always
        self.calls = 0

    @property
    def width(self) -> int:
        return self.encoder.width

    @property
    def device(self) -> torch.device:
        return self.encoder.device

    @property
    def dtype(self) -> torch.dtype:
        return self.encoder.dtype

    def pool(self, hidden: torch.Tensor, lengths: Sequence[int], /) -> torch.Tensor:
        return self.encoder.pool(hidden, lengths)

    def __call__(self, tokens: torch.Tensor, lengths: Sequence[int], /) -> torch.Tensor:
        return self._struck(self.encoder(tokens, lengths), lengths)

    @property
    def config(self) -> Config:
        return self.encoder.config

    def read(self, tokens: torch.Tensor, lengths: Sequence[int], readout: Readout) -> torch.Tensor:
        return self._struck(self.encoder.read(tokens, lengths, readout), lengths)

    def _struck(self, hidden: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        self.calls += 1
        strikes = self.calls == self.at or (self.always and self.calls > self.at and len(lengths) > 1)
        return self.fault(hidden) if strikes else hidden


def run_with(data: Path, model: Path, faulty: Callable[[PackedEncoder], Faulty]) -> Run:
    options = Options(
        data,
        protein_model=str(model),
        device="cpu",
        sequences_per_file=PER_FILE,
        tokens_per_batch=230,
    )
    with Run(options) as job:
        job.discover()
        job.check()
        job.prepare()
        encoder = job.load()
        assert encoder is not None
        encoder.embedder.encoder = faulty(encoder.embedder.encoder)
        for _ in job.making():
            pass
        job.finish()
        job.validate()
    return job


def vectors(data: Path) -> dict[str, np.ndarray]:
    return {
        str(path.relative_to(data)): read_vectors(path, SequenceType.PROTEIN).vectors
        for path in sorted(data.rglob("*_ESM.pt"))
    }


@pytest.fixture(scope="module")
def undisturbed(pristine: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = copied(pristine, tmp_path_factory.mktemp("undisturbed") / "data")
    encoders: list[Faulty] = []

    def counted(encoder: PackedEncoder) -> Faulty:
        encoders.append(Faulty(encoder, out_of_host_memory, 0))
        return encoders[0]

    run_with(data, model, counted)
    assert encoders[0].calls == BATCHES
    return data


@pytest.mark.points(1, BATCHES)
@pytest.mark.parametrize("fault", [out_of_device_memory, out_of_host_memory])
def test_too_little_memory_at_a_batch(
    part: int, parts: int, fault: Fault, undisturbed: Path, data: Path, model: Path
) -> None:
    job = run_with(data, model, lambda encoder: Faulty(encoder, fault, part + 1))
    assert job.statistics.splits == 1
    require_close(data, undisturbed)


def test_too_little_memory_for_more_than_one_record(undisturbed: Path, data: Path, model: Path) -> None:
    job = run_with(data, model, lambda encoder: Faulty(encoder, out_of_host_memory, 1, always=True))
    assert job.statistics.splits == BATCHES
    require_close(data, undisturbed)


def test_windows_that_do_not_fit_into_memory_are_counted(model: Path) -> None:
    options = Options(protein_model=str(model), device="cpu", tokens_per_batch=4096)
    identified = identify(options, SequenceType.PROTEIN).reading(Readout(windows=True))
    encoder = load(identified, options)
    encoder.embedder.encoder = Faulty(encoder.embedder.encoder, out_of_host_memory, 1)
    long = "MKVL" * 300
    encoder.embed(Records(Path("memory"), ["a", "b"], [long.encode(), long[:1100].encode()]))
    assert encoder.totals.splits == 1


def require_close(data: Path, undisturbed: Path) -> None:
    found, expected = vectors(data), vectors(undisturbed)
    assert found.keys() == expected.keys()
    for name, matrix in expected.items():
        np.testing.assert_allclose(found[name], matrix, rtol=1e-5, atol=1e-6)


def with_value(value: float) -> Fault:
    def fault(hidden: torch.Tensor) -> torch.Tensor:
        changed = hidden.clone()
        changed[len(hidden) // 3, 5] = value
        return changed

    return fault


VALUES = {"NaN": float("nan"), "infinity": float("inf"), "minus infinity": float("-inf")}


@pytest.mark.points(1, BATCHES)
@pytest.mark.parametrize("value", VALUES)
def test_values_that_are_no_numbers(
    part: int, parts: int, value: str, extracting: Baseline, data: Path, model: Path
) -> None:
    before = state(data)
    with pytest.raises(
        ExtractionError, match=r"output_\d+\.fa: record '.+' \(\d+ tokens\): .* NaN or infinite"
    ):
        run_with(data, model, lambda encoder: Faulty(encoder, with_value(VALUES[value]), part + 1))
    # What was finished before is right, and nothing else has changed.
    final = extracting.final
    for name, content in state(data).items():
        assert content in (before.get(name), final.get(name)), name
    extracting.require_recovery(data)


@pytest.fixture
def constant_model(model: Path, tmp_path: Path) -> Path:
    """Weights whose last normalisation forgets what it normalises: every vector is its bias."""
    broken = Path(shutil.copytree(model, tmp_path / "constant"))
    tensors = load_file(broken / "model.safetensors")
    tensors["encoder.emb_layer_norm_after.weight"].zero_()
    save_file(tensors, broken / "model.safetensors")
    return broken


def test_a_model_that_gives_every_record_the_same_vector(
    constant_model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state(data)
    assert main(["extract", *arguments(data, constant_model)]) == 1
    told = capsys.readouterr().err
    assert "all 4 records, from 'NC_" in told
    assert "have the same vector of width 16; check model and device, then run again" in told
    # Only the choice of hosts was recorded.
    assert {name: content for name, content in state(data).items() if not name.startswith(".")} == before


def test_a_model_that_gives_zeros(
    constant_model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = load_file(constant_model / "model.safetensors")
    tensors["encoder.emb_layer_norm_after.bias"].zero_()
    save_file(tensors, constant_model / "model.safetensors")
    assert main(["extract", *arguments(data, constant_model)]) == 1
    assert "is all zero (4 of 4 are); check model and device, then run again" in capsys.readouterr().err
    assert not list(data.rglob("bacteria*/*_ESM.pt"))
