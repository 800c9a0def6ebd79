"""The same job on a cluster: equal bytes, errors and exit codes as they are, losses that lose nothing."""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from folders import PER_FILE, arguments, contents, copied, leftovers, pairs_of
from nucpro.cli import main
from nucpro.embedding.encoder import identify
from nucpro.errors import FastaError, ModelError
from nucpro.extraction.run import Run
from nucpro.formats.sequences import SequenceType
from nucpro.options import Options

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))

import extract_training_data as script

AddNode = Callable[[], Any]
RAY = ("--engine", "ray")

pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, pristine: Path, model: Path) -> Path:
    """A folder after a run on this process's own device."""
    data = copied(pristine, tmp_path_factory.mktemp("local") / "data")
    assert main(["extract", *arguments(data, model)]) == 0
    return data


@pytest.fixture
def two_nodes(add_node: AddNode) -> None:
    add_node()
    add_node()


def job_of(data: Path, model: Path, **more: Any) -> Run:
    options = {"device": "cpu", "sequences_per_file": PER_FILE, "engine": "ray", **more}
    return Run(Options(data, protein_model=str(model), **options))


def ready(job: Run) -> Iterator[object]:
    """Everything up to the extraction, of which each step is one file."""
    job.discover()
    job.check()
    job.prepare()
    job.load()
    return job.making()


@pytest.mark.usefixtures("two_nodes")
def test_a_run_on_a_cluster_leaves_the_same_bytes_and_counts(
    data: Path, model: Path, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["extract", *arguments(data, model, *RAY, "--audit", "3")]) == 0
    assert contents(data) == contents(local)
    assert leftovers(data) == []
    output = capsys.readouterr()
    assert output.out.splitlines()[-1] == "Validation passed: 6 files, 24 sequences, all dimensions correct"
    assert re.search(r"^Encoder \d \(.*, process \d+\): Loading ", output.out, re.MULTILINE)
    assert re.search(r"rate: .* sequences/s, .* residues/s, [1-9][\d,]* tokens/s", output.out)
    assert "Audit: 3 sequences recomputed" in output.out
    assert all(line.startswith("Warning: ") for line in output.err.splitlines()), output.err
    done = json.loads((data / ".extraction_checkpoint.json").read_text())["completed_files"]
    assert len(done) == 6


@pytest.mark.usefixtures("node")
def test_the_script_is_the_same_job(data: Path, model: Path, local: Path) -> None:
    assert script.main(arguments(data, model, *RAY)) == 0
    assert contents(data) == contents(local)


@pytest.mark.usefixtures("node")
def test_a_run_may_change_between_engines(data: Path, model: Path, local: Path, tmp_path: Path) -> None:
    other = copied(data, tmp_path / "other")
    with job_of(data, model) as job:
        work = ready(job)
        next(work), next(work)
        work.close()  # type: ignore[attr-defined]
    assert main(["extract", *arguments(data, model)]) == 0
    options = Options(other, protein_model=str(model), device="cpu", sequences_per_file=PER_FILE)
    with Run(options) as job:
        work = ready(job)
        next(work), next(work)
        work.close()  # type: ignore[attr-defined]
    assert main(["extract", *arguments(other, model, *RAY)]) == 0
    assert contents(data) == contents(other) == contents(local)


@pytest.mark.usefixtures("node")
def test_a_killed_encoder_loses_nothing(
    data: Path, model: Path, local: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "nucpro"), job_of(data, model, workers=1) as job:
        work = ready(job)
        next(work)
        [process] = re.findall(r"^Encoder 1 \(.*, process (\d+)\): Loading", caplog.text, re.MULTILINE) or [
            re.search(r"Encoder 1 \(.*process (\d+)\): Loading", caplog.text)[1]  # type: ignore[index]
        ]
        os.kill(int(process), signal.SIGKILL)
        assert len(list(work)) == 5
        job.finish()
        job.validate()
        assert job.runner.engine.lost == 1
    assert "was lost; work items to retry" in caplog.text
    assert contents(data) == contents(local)
    assert leftovers(data) == []


@pytest.mark.usefixtures("node")
def test_an_error_in_the_data_keeps_its_type(data: Path, model: Path) -> None:
    with job_of(data, model) as job:
        work = ready(job)
        spoilt = data / "viral.1.1.identified_protein" / "output_3.fa"
        spoilt.write_text(re.sub(r"\n[A-Z]", "\n!", spoilt.read_text(), count=1))
        with pytest.raises(FastaError, match=r"output_3\.fa.*'!'") as caught:
            list(work)
    assert "traceback of the worker" in str(caught.value.__cause__)
    assert caught.value.exit_code == 1


@pytest.mark.usefixtures("node")
def test_a_vector_that_is_not_finite_ends_with_the_traceback_of_the_worker(
    data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Path(shutil.copytree(model, tmp_path / "broken"))
    weights = load_file(broken / "model.safetensors")
    weights["encoder.emb_layer_norm_after.bias"][:] = np.finfo(np.float32).max  # their sum overflows
    save_file(weights, broken / "model.safetensors")
    assert main(["extract", *arguments(data, broken, *RAY)]) == 1
    errors = capsys.readouterr().err
    assert "traceback of the worker" in errors
    assert "batches.py" in errors
    assert "NaN or infinite" in errors


@pytest.mark.usefixtures("node")
def test_dna_vectors_and_validation_on_a_cluster(
    data: Path, dna_model: Path, local: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = copied(data, tmp_path / "other")
    for folder, engine in ((data, RAY), (other, ())):
        command = ["embed-dna", str(folder), "--dna-model", str(dna_model), "--device", "cpu"]
        assert main([*command, "--sequences-per-file", "4", "--replace", *engine]) == 0
    names = [pair.dna_vectors.relative_to(data).as_posix() for pair in pairs_of(data)]
    made, expected = contents(data), contents(other)
    assert [made[name] for name in names if name in made] == [
        expected[name] for name in names if name in made
    ]
    capsys.readouterr()
    assert main(["validate", str(local), "--sequences-per-file", "4", *RAY]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("Validation passed: 6 files")


def test_a_node_with_other_weights_is_refused(model: Path, tmp_path: Path) -> None:
    from nucpro.execution.ray.worker import load_same

    here = Path(shutil.copytree(model, tmp_path / "model"))
    options = Options(protein_model=str(here), device="cpu")
    identified = identify(options, SequenceType.PROTEIN)
    sent = pickle.dumps(identified)
    assert load_same(pickle.loads(sent), options).recipe == identified.recipe
    weights = load_file(here / "model.safetensors")
    weights["encoder.emb_layer_norm_after.bias"][:] = 0.5
    save_file(weights, here / "model.safetensors")
    with pytest.raises(
        ModelError, match=r"host .* holds weights .*…, the driver has .*…; give all nodes the same"
    ):
        load_same(pickle.loads(sent), options)
    (here / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors is not there; put the model on a file system"):
        load_same(pickle.loads(sent), options)


@pytest.mark.usefixtures("node")
def test_files_of_unknown_origin_are_verified_on_a_node(
    local: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = copied(local, tmp_path / "data")
    pairs = [pair for pair in pairs_of(data) if pair.protein_vectors.exists()]
    for pair in pairs:
        content = torch.load(pair.protein_vectors, weights_only=True)
        del content["meta"]
        if pair == pairs[-1]:
            content["data"] = [vector + 1 for vector in content["data"]]
        torch.save(content, pair.protein_vectors)
    alone = copied(data, tmp_path / "alone")
    before = [pair.protein_vectors.read_bytes() for pair in pairs]
    capsys.readouterr()

    assert main(["extract", *arguments(data, model, *RAY, "--verify-existing", "2")]) == 0
    output = capsys.readouterr().out
    assert output.count(f"2 records recomputed with {model.name}: ") == len(pairs)
    kept = [pair.protein_vectors.read_bytes() == old for pair, old in zip(pairs, before, strict=True)]
    assert kept == [True] * (len(pairs) - 1) + [False]
    assert (
        pairs[-1].protein_vectors.read_bytes()
        == (local / pairs[-1].relative(pairs[-1].protein_vectors)).read_bytes()
    )
    assert main(["extract", *arguments(alone, model, "--verify-existing", "2")]) == 0
    assert contents(data) == contents(alone)
