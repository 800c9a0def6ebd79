"""A prediction on a cluster: equal bytes, one may go on where another engine stopped, losses lose nothing."""

from __future__ import annotations

import logging
import os
import pickle
import re
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "prediction"))

from predictions import (
    GENOMES,
    Contig,
    arguments,
    card_of,
    contents,
    read_contigs,
    save_classifier,
    write_contigs,
)

from nucpro.classifier.card import ModelCard
from nucpro.classifier.model import load, save
from nucpro.cli import main
from nucpro.errors import DataError, ExtractionError, ModelError, UsageError
from nucpro.execution.ray.worker import load_same
from nucpro.prediction.models import find_models
from nucpro.prediction.options import PredictionOptions
from nucpro.prediction.running import predict
from nucpro.progress import Progress

PER_UNIT = 5
FORMS = ("--chunks-per-unit", str(PER_UNIT), "--json", "--original-names")


pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.usefixtures("node")]


class StoppedError(Exception):
    """The driver ended here."""


@pytest.fixture(scope="module")
def card(model: Path, dna_model: Path) -> ModelCard:
    return card_of(model, dna_model)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory, card: ModelCard) -> Path:
    return save_classifier(tmp_path_factory.mktemp("classifiers") / "both", card)


def write_input(folder: Path) -> Path:
    """Four real contigs."""
    found = read_contigs(GENOMES / "viral.1.1.genomic.fna.gz")[:4]
    return write_contigs(folder / "contigs.fasta", [Contig(c.name, c.bases[:2500]) for c in found])


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    return write_input(tmp_path)


@pytest.fixture(scope="module")
def local(
    tmp_path_factory: pytest.TempPathFactory, classifier: Path, model: Path, dna_model: Path
) -> dict[str, bytes]:
    """What this process's own device gives."""
    path = write_input(tmp_path_factory.mktemp("local"))
    assert main(arguments(path, classifier, (model, dna_model), *FORMS)) == 0
    return contents(path.with_name("contigs_prediction"))


@pytest.fixture
def options(fasta: Path, classifier: Path, model: Path, dna_model: Path) -> PredictionOptions:
    return PredictionOptions(
        fasta,
        classifier,
        protein_model=str(model),
        dna_model=str(dna_model),
        device="cpu",
        chunks_per_unit=PER_UNIT,
        json=True,
        original_names=True,
        engine="ray",
        workers=1,
    )


def on(options: PredictionOptions, engine: str) -> PredictionOptions:
    return replace(options, engine=engine, workers=1 if engine == "ray" else None)


def test_a_cluster_gives_the_same_bytes(
    fasta: Path,
    classifier: Path,
    model: Path,
    dna_model: Path,
    local: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Workers are in other folders: what is relative here must be found there.
    monkeypatch.chdir(model.parent)
    command = arguments(fasta, classifier, (Path(model.name), dna_model), *FORMS, "--engine", "ray")
    assert main(command) == 0
    assert contents(fasta.with_name("contigs_prediction")) == local
    shown = capsys.readouterr().out
    counts = [tuple(map(int, count)) for count in re.findall(r"\[(\d+)/(\d+)\] Scored", shown)]
    assert counts == [(number, len(counts)) for number in range(1, len(counts) + 1)]
    assert len(counts) >= 6
    loads = re.findall(r"^Encoder (\d) \(.*, process \d+\): Loading tiny", shown, re.MULTILINE)
    assert {loads.count(number) for number in loads} == {2}, "each worker loads both encoders, once"


@pytest.mark.parametrize(("first", "second"), [("local", "ray"), ("ray", "local")])
def test_a_run_may_change_between_engines(
    options: PredictionOptions, local: dict[str, bytes], first: str, second: str
) -> None:
    def stop(progress: Progress) -> None:
        if progress.done >= 2 * PER_UNIT:
            raise StoppedError

    with pytest.raises(StoppedError):
        predict(on(options, first), stop)
    kept = len(list((options.folder / "unfinished").glob("unit_*.json")))
    assert 2 <= kept <= 3
    report = predict(on(options, second))
    assert contents(options.folder) == local
    assert report.scored_chunks == report.counts["chunks"] - kept * PER_UNIT


def test_a_killed_worker_loses_nothing(
    options: PredictionOptions, local: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    killed: list[int] = []

    def strike(progress: Progress) -> None:
        if progress.done and not killed:
            [process, *_] = re.findall(r"Encoder 1 \(.*process (\d+)\): Loading", caplog.text)
            killed.append(int(process))
            os.kill(killed[0], signal.SIGKILL)

    with caplog.at_level(logging.INFO, "nucpro"):
        report = predict(options, strike)
    assert re.search(r"Encoder 1 \(.*\) was lost; work items to retry: [1-3]\.", caplog.text)
    assert contents(options.folder) == local
    assert report.scored_chunks == report.counts["chunks"]


def test_an_error_of_a_worker_keeps_its_type_and_exit_code(
    options: PredictionOptions, classifier: Path, tmp_path: Path
) -> None:
    network, known = load(classifier)
    with torch.no_grad():
        network.output.weight.fill_(3e38)
    save(tmp_path / "broken", network, known)
    with pytest.raises(ExtractionError, match=r"contigs\.fasta: frame .*: its score is nan") as caught:
        predict(replace(options, model=tmp_path / "broken"))
    assert type(caught.value) is ExtractionError
    assert caught.value.exit_code == 1
    assert "traceback of the worker" in str(caught.value.__cause__)
    assert list((options.folder / "unfinished").glob("unit_*.json")) == []


def test_an_input_that_changes_meanwhile_ends_the_run(
    options: PredictionOptions,
) -> None:
    def shorten(progress: Progress) -> None:
        write_contigs(options.input, [Contig("a", "ACGT" * 100)])

    with pytest.raises(DataError, match=r"contigs\.fasta: was changed while it was read"):
        predict(options, shorten)


def test_a_worker_with_other_weights_is_refused(
    options: PredictionOptions, model: Path, tmp_path: Path
) -> None:
    here = Path(shutil.copytree(model, tmp_path / model.name))
    models, problems = find_models(replace(options, protein_model=str(here)))
    assert models is not None, problems
    sent = pickle.dumps(models)
    scorer = pickle.loads(sent).load_scorer(options.input, load_same)
    assert [str(sequence_type) for sequence_type in scorer.encoders] == ["dna", "protein"]
    # A node's own copy of the same weights has other times.
    os.utime(here / "model.safetensors", ns=(0, 0))
    pickle.loads(sent).load_scorer(options.input, load_same)
    weights = load_file(here / "model.safetensors")
    weights["encoder.emb_layer_norm_after.bias"][:] = 0.5
    save_file(weights, here / "model.safetensors")
    with pytest.raises(
        ModelError, match=r"host .* holds weights .*…, the driver has .*…; give all nodes the same"
    ):
        pickle.loads(sent).load_scorer(options.input, load_same)


def test_a_cluster_without_room_is_reported_with_all_other_problems(
    fasta: Path, classifier: Path, model: Path, dna_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fasta.write_text(">a\nACGT\n>a\nACGT\n")
    command = arguments(fasta, classifier, (model, dna_model), "--engine", "ray", "--cpus-per-worker", "64")
    assert main(command) == 3
    shown = capsys.readouterr().err
    assert "no node of the cluster has the resources for an encoder, which takes 64 cpus, 0 gpus" in shown
    assert f"{fasta}: 1 duplicate id: a" in shown
    assert not fasta.with_name("contigs_prediction").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"workers": 2}, "--workers is 2; allowed: only with --engine ray"),
        ({"address": "auto"}, "--address is auto; allowed: only with --engine ray"),
        (
            {"engine": "ray", "device": "cuda:1"},
            "--device is cuda:1; allowed: auto, cuda or cpu with --engine ray",
        ),
    ],
)
def test_options_that_make_no_sense_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        PredictionOptions.of({"input": Path("a.fasta"), "model": Path("model"), **values})
    assert str(caught.value) == message
