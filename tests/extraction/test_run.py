"""Runs and looks: who writes what, which precision a file says, and that script and command are one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from folders import PER_FILE, arguments, contents, copied, pairs_of
from nucpro.cli import main
from nucpro.embedding.encoder import identify, load
from nucpro.errors import DataError, ModelError, PreflightError
from nucpro.extraction.run import Run
from nucpro.formats.sequences import SequenceType
from nucpro.options import Options
from nucpro.state.checkpoint import journal_entries

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
import extract_training_data as script


def options(data: Path, model: Path, **more: object) -> Options:
    plain = {"device": "cpu", "sequences_per_file": PER_FILE, "report": False}
    return Options(data, protein_model=str(model), **(plain | more))  # type: ignore[arg-type]


def test_an_encoder_in_another_precision_than_its_meta_writes_nothing(data: Path, model: Path) -> None:
    asked = options(data, model, precision="fp32")
    encoder = load(identify(asked, SequenceType.PROTEIN), asked)
    encoder.recipe = replace(encoder.recipe, made_by={**encoder.recipe.made_by, "precision": "fp16"})
    output = data / "vectors.pt"
    with pytest.raises(
        ModelError, match="is loaded in float32, but its files would record fp16; load it in fp16"
    ):
        encoder.extract(pairs_of(data)[0].protein_fasta, output)
    assert not output.exists()


def test_auto_keeps_the_precision_of_the_folder(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["extract", *arguments(data, model, "--precision", "bf16")]) == 0
    before = contents(data)
    capsys.readouterr()
    assert main(["extract", *arguments(data, model)]) == 0
    assert "Extracted" not in capsys.readouterr().out
    assert contents(data) == before
    assert main(["extract", *arguments(data, model, "--precision", "fp32", "--replace")]) == 0
    assert "was made with precision = bf16, not fp32" in capsys.readouterr().out


def test_a_machine_that_lacks_the_precision_of_the_folder_stops_before_the_start(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run on a login node recomputes nothing of what a GPU made."""
    assert main(["extract", *arguments(data, model)]) == 0
    with Run(options(data, model)) as run:
        run.discover()
        recipe = run.check().recipe
        run.runner.records.remember_recipe(replace(recipe, made_by={**recipe.made_by, "precision": "fp16"}))
    before = contents(data)
    capsys.readouterr()
    assert main(["extract", *arguments(data, model)]) == 3
    error = capsys.readouterr().err
    assert (
        "its protein vectors are in fp16, in which cpu does not compute, and 6 files still to be made"
        in error
    )
    assert contents(data) == before


LOOKS = (
    "status DATA --sequences-per-file 4",
    "validate DATA --sequences-per-file 4",
    "inspect DATA",
    "doctor DATA --device cpu --protein-model MODEL",
    "extract --data-dir DATA --protein-model MODEL --device cpu --sequences-per-file 4 --dry-run",
)


@pytest.mark.parametrize("command", LOOKS)
def test_who_only_looks_needs_no_writable_folder(command: str, finished: Path, model: Path) -> None:
    words = command.replace("DATA", str(finished)).replace("MODEL", str(model)).split()
    mount = f'mount --bind {finished} {finished} && mount -o remount,bind,ro {finished} && exec "$@"'
    shell = ["unshare", "--mount", "sh", "-c", mount, "sh"]
    if shutil.which("unshare") is None or subprocess.run([*shell, "true"], check=False).returncode:
        pytest.skip("needs the right to mount (root), for a data folder that cannot be written")
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    done = subprocess.run(
        [*shell, sys.executable, "-m", "nucpro", *words], capture_output=True, text=True, check=False
    )
    expected = (0, 3) if "--dry-run" in command or words[0] == "doctor" else (0,)
    assert done.returncode in expected, done.stderr
    if "--dry-run" in command:
        assert "cannot be written (Read-only file system)" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_who_only_looks_waits_for_no_run(finished: Path, model: Path, tmp_path: Path) -> None:
    data = copied(finished, tmp_path / "data")
    with Run(options(data, model)):
        assert main(["status", str(data), "--sequences-per-file", str(PER_FILE)]) == 0
        assert main(["validate", str(data), "--sequences-per-file", str(PER_FILE)]) == 0
        assert main(["extract", *arguments(data, model, "--dry-run")]) == 0
        assert main(["extract", *arguments(data, model)]) == 3


def test_the_script_makes_what_its_lists_say(data: Path, model: Path) -> None:
    for outdated in [*data.rglob("*_ESM.pt"), *data.rglob("*_merged.pt")]:
        outdated.unlink()
    with Run(options(data, model)) as run:
        viral, hosts = script.discover_training_data(data, run=run)
        script.validate_prerequisites(viral[:1], hosts[:1], run=run)
        run.prepare()
        run.load()
        proteins = [str(pair.protein_fasta) for pair in run.survey.pairs]
        assert script.extract_all(proteins[:1], proteins[1:], None, None, "", run=run) == 2
        assert script.merge_all(viral[:1], hosts[:1], run=run) == 2
        script.validate_all(data, run=run)
        with pytest.raises(DataError, match=re.escape("was not checked before the start")):
            script.extract_all([viral[1].replace("nucleotide", "protein")], [], None, None, "", run=run)
    assert len(list(data.rglob("*_ESM.pt"))) == len(list(data.rglob("*_merged.pt"))) == 2


def test_a_path_that_is_not_there_is_an_error(data: Path, model: Path) -> None:
    with Run(options(data, model)) as run:
        viral, hosts = script.discover_training_data(data, run=run)
        gone = viral[0].replace("output_1", "output_99")
        with pytest.raises(PreflightError, match=r"output_99\.fa: no such file"):
            script.validate_prerequisites([*viral, gone], hosts, run=run)


def recorded(data: Path) -> dict[str, object]:
    """What a run leaves beside its files, without times, inodes and process numbers."""
    checkpoint = json.loads((data / ".extraction_checkpoint.json").read_text())
    for fact in checkpoint["facts"].values():
        fact.pop("stamp", None)
        fact.pop("sources", None)
        fact.pop("of", None)
    history = journal_entries((data / ".extraction_history.jsonl").read_bytes().splitlines())
    log = re.sub(
        r"[\d.]+(?= ?(s|ms|sequences/s|residues/s|tokens/s)\b)|[\d,]+(?= (seq|res|tok)\w+/s)", "N", _log(data)
    )
    return {
        "completed": sorted(checkpoint["completed_files"]),
        "facts": checkpoint["facts"],
        "events": [(line["event"], line.get("name"), line.get("file")) for line in history],
        "selection": (data / ".extraction_selection.json").read_bytes(),
        "log": [line for line in log.splitlines() if not line.startswith("Time: ")],
        "others": sorted(path.name for path in data.iterdir()),
    }


def _log(data: Path) -> str:
    text = (data / "extraction.log").read_text().replace(str(data), "DATA")
    return re.sub(r"^\d{4}-\S+ \S+ ", "", text, flags=re.MULTILINE)


def test_script_and_command_leave_the_same(
    finished: Path, pristine: Path, model: Path, tmp_path: Path
) -> None:
    data = copied(pristine, tmp_path / "data")
    command = [sys.executable, str(Path(script.__file__)), *arguments(data, model)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr
    assert contents(data) == contents(finished)
    assert recorded(data) == recorded(finished)
