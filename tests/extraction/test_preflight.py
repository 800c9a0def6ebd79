"""Everything that is wrong with a data folder is told at once, with exit code 3, before anything is touched."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from folders import arguments, copied, edited, pairs_of
from nucpro.cli import main
from nucpro.errors import PreflightError
from nucpro.extraction.preflight import space_problems
from nucpro.state import lock

VIRAL = "viral.1.1.identified_nucleotide"
PROTEIN = "viral.1.1.identified_protein"


def state(data: Path) -> dict[Path, tuple[int, int]]:
    """Every file that a user or a run made; the log, the lock and the journal of facts are the program's own."""
    own = {"extraction.log", ".extraction.lock", ".extraction_journal.jsonl", ".extraction_checkpoint.json"}
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_size)
        for path in data.rglob("*")
        if path.is_file() and path.name not in own
    }


@pytest.fixture
def refused(model: Path, capsys: pytest.CaptureFixture[str]):
    """Run the job on a folder that it must refuse; returns what was said."""

    def run(data: Path, *more: str, model: Path = model) -> str:
        before = state(data)
        assert main(["extract", *arguments(data, model, *more)]) == 3
        assert state(data) == before
        return capsys.readouterr().err

    return run


def test_missing_dna_files_are_all_listed(data: Path, refused) -> None:
    gone = [data / VIRAL / "output_1_DNABERT_S.pt", data / VIRAL / "output_3_DNABERT_S.pt"]
    for path in gone:
        path.unlink()
    said = refused(data)
    assert "2 DNABERT-S files missing" in said
    assert all(str(path) in said for path in gone)


def not_a_number(content: dict[str, Any]) -> None:
    content["data"][1]["mean_representation"][3] = float("nan")


def an_id_twice(content: dict[str, Any]) -> None:
    content["nucleotide"][0] = content["data"][0]["label"] = content["nucleotide"][1]


def whole_numbers(content: dict[str, Any]) -> None:
    for row in content["data"]:
        row["mean_representation"] = torch.ones(768, dtype=torch.int64)


def another_width(content: dict[str, Any]) -> None:
    for row in content["data"]:
        row["mean_representation"] = row["mean_representation"][:700]


def half_precision(content: dict[str, Any]) -> None:
    for row in content["data"]:
        row["mean_representation"] = torch.tensor(row["mean_representation"]).half()[None]


BAD = {
    "output_1_DNABERT_S.pt": (not_a_number, "holds nan at column 3"),
    "output_2_DNABERT_S.pt": (an_id_twice, "1 of its ids are duplicates"),
    "output_3_DNABERT_S.pt": (whole_numbers, "is an int64 tensor of shape (768,)"),
}


@pytest.fixture
def with_bad_dna(data: Path) -> Path:
    """A folder with four DNABERT-S files whose contents cannot be used, and one in half precision."""
    for name, (spoil, _) in BAD.items():
        with edited(data / VIRAL / name) as content:
            spoil(content)
    hosts = data / "bacteria.1.1.identified_nucleotide"
    for number, change in ((1, another_width), (2, half_precision)):
        with edited(hosts / f"output_{number}_DNABERT_S.pt") as content:
            change(content)
    return data


def require_all_bad(said: str, data: Path) -> None:
    for name, (_, what) in BAD.items():
        (line,) = [line for line in said.splitlines() if f"{data / VIRAL / name}: " in line]
        assert what in line
        assert line.endswith(
            f"; recompute this file with: nucpro embed-dna {data} --device cpu --sequences-per-file 4"
        )
    assert (
        f"{data}/bacteria.1.1.identified_nucleotide/output_1_DNABERT_S.pt: width of the DNABERT-S vectors"
        in said
    )
    assert said.count("DNABERT_S.pt: ") == 4


def test_a_dry_run_lists_every_dna_file_that_cannot_be_used(
    with_bad_dna: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (with_bad_dna / PROTEIN / "output_2.fa").unlink()  # another problem, told with them
    before = state(with_bad_dna)
    assert main(["extract", *arguments(with_bad_dna, model, "--dry-run", "--progress", "lines")]) == 3
    output = capsys.readouterr()
    require_all_bad(output.err, with_bad_dna)
    assert "5 problems found" in output.err
    assert "Reading DNABERT-S files: 6 of 6 files" in output.out
    assert state(with_bad_dna) == before


def test_a_run_lists_every_dna_file_that_cannot_be_used_at_the_first(
    with_bad_dna: Path, model: Path, dna_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["extract", *arguments(with_bad_dna, model)]) == 1
    require_all_bad(capsys.readouterr().err, with_bad_dna)
    assert not any(
        (with_bad_dna / "data_merge" / "viral.1.1_merged" / f"output_{k}_merged.pt").exists() for k in (1, 3)
    )
    # The remedy that every line names, then the same command again.
    options = ["--sequences-per-file", "4", "--device", "cpu"]
    assert main(["embed-dna", str(with_bad_dna), *options, "--dna-model", str(dna_model)]) == 0
    assert main(["extract", *arguments(with_bad_dna, model)]) == 0


def test_dna_files_that_are_known_are_not_read_again_by_a_dry_run(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["extract", *arguments(data, model)]) == 0
    pairs = pairs_of(data)
    pairs[0].protein_vectors.unlink()
    capsys.readouterr()
    assert main(["extract", *arguments(data, model, "--dry-run", "--progress", "lines")]) == 0
    assert "Reading DNABERT-S files" not in capsys.readouterr().out
    with edited(pairs[0].dna_vectors) as content:
        not_a_number(content)
    assert main(["extract", *arguments(data, model, "--dry-run", "--progress", "lines")]) == 3
    output = capsys.readouterr()
    assert "Reading DNABERT-S files: 1 of 1 file" in output.out
    assert f"{pairs[0].dna_vectors}: row 1 (" in output.err


def test_all_problems_are_reported_at_once(data: Path, refused, tmp_path: Path) -> None:
    (data / VIRAL / "output_1_DNABERT_S.pt").unlink()
    (data / PROTEIN / "output_2.fa").unlink()
    path = data / PROTEIN / "output_3.fa"
    header, sequence, rest = path.read_text().split("\n", 2)
    path.write_text(f"{header}\n{sequence}*\n{rest}")
    said = refused(data, model=tmp_path / "no model")
    assert "4 problems found; nothing was changed:" in said
    assert "1 DNABERT-S file missing" in said
    assert f"{data / PROTEIN / 'output_2.fa'}: missing" in said
    assert f"restore it, or move {data / PROTEIN} away: it is split again" in said
    assert "characters outside" in said
    assert "has '*' at position" in said
    assert "no model" in said


def test_ids_in_one_file_only_are_named(data: Path, refused) -> None:
    path = data / PROTEIN / "output_1.fa"
    path.write_text(path.read_text().replace("_chunk_2F3", "_chunk_9001", 1))
    said = refused(data)
    assert "hold different ids" in said
    assert "_chunk_9001" in said
    assert "only in the protein file" in said


def test_a_shorter_protein_file_is_an_error_not_a_skip(data: Path, refused) -> None:
    path = data / PROTEIN / "output_1.fa"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    assert "only in the nucleotide file, none only in the protein file" in refused(data)


def test_duplicate_ids_and_empty_sequences(data: Path, refused) -> None:
    path = data / PROTEIN / "output_1.fa"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], lines[0], lines[1], *lines[4:6], lines[6], ""]) + "\n")
    said = refused(data)
    assert "1 duplicate id" in said
    assert "1 record without a sequence" in said


def test_a_damaged_dna_archive_is_found_from_its_directory(data: Path, refused) -> None:
    path = data / VIRAL / "output_1_DNABERT_S.pt"
    path.write_bytes(path.read_bytes()[:-200])
    assert str(path) in refused(data)


def test_a_hostile_pickle_as_dna_file_runs_nothing(data: Path, refused, tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    path = data / VIRAL / "output_1_DNABERT_S.pt"
    path.write_bytes(pickle.dumps(Evil()))
    assert str(path) in refused(data)
    assert not (tmp_path / "ran").exists()


def test_a_hostile_pickle_as_checkpoint_is_no_checkpoint(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / ".extraction_checkpoint.json").write_bytes(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00exit\x85R.")
    assert main(["extract", *arguments(data, model)]) == 0
    assert "was not written by nucpro: all files are checked by their contents" in capsys.readouterr().err


def test_no_cuda_is_reported_and_nothing_else_is_used(data: Path, model: Path, capsys) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    options = arguments(data, model)
    options[options.index("cpu")] = "cuda"
    assert main(["extract", *options]) == 3
    said = capsys.readouterr().err
    assert "finds no CUDA device" in said
    assert "compute on the CPU with --device cpu" in said


def test_two_sources_that_would_share_their_merged_files_are_named(data: Path, refused) -> None:
    for sequence_type in ("nucleotide", "protein"):
        name = f"viral.1.1.identified_{sequence_type}"
        shutil.copytree(data / name, data / f"viral.1.1identified_{sequence_type}")
        shutil.copy(data / f"{name}.fa", data / f"viral.1.1identified_{sequence_type}.fa")
    assert "would overwrite those of viral.1.1.identified_nucleotide.fa; rename" in refused(data)


def test_a_half_made_split_folder_is_named(data: Path, refused) -> None:
    for name in ("output_3.fa", "output_4.fa"):
        (data / VIRAL / name).unlink()
    said = refused(data)
    assert f"{data / VIRAL}: half-made split: ends at output_2.fa; its files hold 8 records in all" in said


def test_a_gap_in_a_split_folder_is_named(data: Path, refused) -> None:
    (data / VIRAL / "output_2.fa").unlink()
    assert "half-made split: output_2.fa missing" in refused(data)


def test_leftovers_of_an_older_split_are_named(data: Path, refused) -> None:
    for number in (5, 6):
        shutil.copy(data / VIRAL / "output_1.fa", data / VIRAL / f"output_{number}.fa")
    said = refused(data)
    assert "leftovers of an older split: output_5.fa to output_6.fa" in said


def test_another_size_of_split_files_is_suggested(data: Path, refused) -> None:
    said = refused(data, "--sequences-per-file", "10")
    assert "no full viral split file was found" in said
    assert "3 viral files hold 4 records; to use such files: --sequences-per-file 4" in said


def test_files_below_a_folder_that_names_no_category_are_reported(data: Path, refused) -> None:
    # The name of the file decides, so only files of another name belong to no category.
    for path in sorted(data.glob("*.identified_*")):
        path.rename(path.with_name(f"refseq_{path.name}"))
    said = refused(data)
    assert "no full viral split file was found" in said
    first = "refseq_bacteria.1.1.identified_nucleotide/output_1.fa"
    assert f"6 full files of no category, not used (first: {first}): its class is unknown" in said
    assert (
        "its name must begin with viral, vertebrate, protozoa, plant, invertebrate, fungi, bacteria or archaea"
        in said
    )


def test_strict_sampling_refuses_fewer_hosts_than_viral_files(data: Path, refused) -> None:
    (data / "bacteria.1.1.identified_nucleotide" / "output_1_DNABERT_S.pt").unlink()
    said = refused(data, "--strict-sampling")
    assert (
        "refused by --strict-sampling: only 2 host files for 3 viral files: the classes are unbalanced"
        in said
    )


def test_no_such_folder(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", *arguments(tmp_path / "nowhere", model)]) == 3
    assert "nowhere: no such folder; give the path of the data folder" in capsys.readouterr().err


def test_too_little_disk_is_reported_with_what_is_missing(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    assert space_problems({tmp_path: (free - 10**9, 0), tmp_path / "x": (0, 0)}) == []
    (problem,) = space_problems({tmp_path / "x": (free, 0), tmp_path / "y": (10**12, 0)})
    assert "too little disk space" in problem
    assert "make 1,000 GB of space available" in problem
    assert space_problems({tmp_path: (free + 10**12, 2 * 10**12)}) == []


def _hold(path: Path, ready, done) -> None:
    with lock.hold(path):
        ready.set()
        done.wait()


def test_a_second_run_on_a_folder_is_refused_with_the_holder(data: Path, refused) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(data / ".extraction.lock", ready, done))
    process.start()
    ready.wait()
    try:
        assert f"in use by process {process.pid} on host {os.uname().nodename}" in refused(data)
        process.kill()
        process.join()
        with lock.hold(data / ".extraction.lock"):  # the lock of a dead process is free
            pass
    finally:
        process.kill()
        process.join()


def test_a_folder_without_locks_is_reported(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="cannot be written"), lock.hold(tmp_path / "no" / "lock"):
        pass


# Another user may not be able to read this Python installation, so everything is imported before, and
# the folder is small enough for a run without worker processes.
UNPRIVILEGED = """
import os, sys
import nucpro.embedding.encoder, nucpro.extraction.run
from nucpro.cli import main
os.setgid(65534); os.setuid(65534)
sys.exit(main(sys.argv[1:]))
"""


def test_a_folder_that_cannot_be_written_is_reported_to_a_user_who_is_not_root(
    pristine: Path, model: Path, tmp_path: Path
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    readable = Path(tempfile.mkdtemp(prefix="nucpro-", dir="/tmp"))
    data = copied(pristine, readable / "data")
    shutil.copytree(model, readable / "model")
    for path in (*data.glob("bacteria*"), *data.glob("invertebrate*")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    try:
        for path in (readable, *readable.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        command = [sys.executable, "-c", UNPRIVILEGED, "extract"]
        command += arguments(data, readable / "model", "--dry-run")
        result = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
        assert result.returncode == 3, result.stderr
        for folder in ("viral.1.1.identified_protein", "data_merge/viral.1.1_merged"):
            assert f"{data / folder}" in result.stderr
        assert "cannot be written (Permission denied); check owner, rights" in result.stderr
    finally:
        shutil.rmtree(readable)
