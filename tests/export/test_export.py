"""Exported rows: bit for bit those of the merged files, whole or not there, and opened by other programs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from folders import Frame, add_dna, add_source, arguments, copied, pairs_of, write_fasta
from nucpro.cli import main
from nucpro.execution.workers import Workers
from nucpro.export.exporting import export
from nucpro.export.formats import FORMATS, text_of_parquet
from nucpro.folder.paths import DataFolder
from nucpro.formats.records import document, unsealed
from nucpro.genomes.frames import place_of
from nucpro.state import lock

WIDTH = 768 + 16


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, frames: dict[str, list[Frame]], model: Path) -> Path:
    """A data folder after a run: two viral and two host files of four records."""
    data = tmp_path_factory.mktemp("finished") / "data"
    data.mkdir()
    for name, count in (("viral.1.1", 8), ("bacteria.1.1", 4), ("invertebrate.1.1", 4)):
        source = add_source(data, name, frames[name][:count])
        add_dna(source, range(1, count // 4 + 1))
    assert main(["extract", *arguments(data, model)]) == 0
    return data


@pytest.fixture
def done(tmp_path: Path, finished: Path) -> Path:
    return copied(finished, tmp_path / "data")


def run(data: Path, kind: str, *more: str) -> int:
    return main(["export", str(data), "--to", kind, "--sequences-per-file", "4", *more])


def truth(data: Path) -> tuple[list[str], np.ndarray, list[int]]:
    """Ids, rows and labels as torch reads them, viral files first."""
    pairs = sorted(pairs_of(data), key=lambda pair: -pair.label)
    files = [torch.load(p.merged, weights_only=True) for p in pairs if p.merged.exists()]
    ids = [name for file in files for name in file["ids"]]
    vectors = torch.cat([file["data"] for file in files]).numpy()
    return ids, vectors, [file["labels"][0] for file in files for _ in file["ids"]]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".export.lock"
    }


def bits(matrix: np.ndarray) -> np.ndarray:
    assert matrix.dtype == np.float32
    return np.ascontiguousarray(matrix).view(np.uint32)


def in_order(data: Path, ids: list[str], vectors: np.ndarray, labels: list[int]) -> None:
    """Compare rows in any order with the truth."""
    expected_ids, expected, expected_labels = truth(data)
    assert sorted(ids) == sorted(expected_ids)
    order = [ids.index(name) for name in expected_ids]
    assert (bits(vectors[order]) == bits(expected)).all()
    assert [labels[index] for index in order] == expected_labels


def test_parquet_opens_in_pyarrow_with_all_columns(done: Path) -> None:
    import pyarrow.dataset
    import pyarrow.parquet

    assert run(done, "parquet") == 0
    table = pyarrow.dataset.dataset(done / "export" / "parquet", exclude_invalid_files=True).to_table()
    vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, WIDTH)
    ids = table["id"].to_pylist()
    in_order(done, ids, vectors, table["label"].to_pylist())
    assert str(table.schema.field("vector").type) == f"fixed_size_list<element: float>[{WIDTH}]"
    for row in table.drop_columns("vector").to_pylist():
        assert (row["record"], row["chunk"], row["frame"]) == place_of(row["id"])
        merged = torch.load(done / row["source"], weights_only=True)
        assert merged["ids"][row["row"]] == row["id"]
        assert row["source"].startswith(f"data_merge/{row['category']}.")
    assert set(table["category"].to_pylist()) == {"viral", "bacteria", "invertebrate"}


@pytest.mark.usefixtures("offline")
def test_parquet_opens_in_datasets(done: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    assert run(done, "parquet", "-o", str(tmp_path / "out")) == 0
    rows = datasets.load_dataset(
        "parquet", data_files=f"{tmp_path}/out/**/*.parquet", split="train", cache_dir=str(tmp_path / "cache")
    ).with_format("numpy")
    in_order(done, list(rows["id"]), np.stack(list(rows["vector"])), [int(x) for x in rows["label"]])


def test_parquet_opens_in_polars(done: Path) -> None:
    polars = pytest.importorskip("polars")
    assert run(done, "parquet") == 0
    frame = polars.scan_parquet(f"{done}/export/parquet/**/*.parquet").collect()
    in_order(done, frame["id"].to_list(), frame["vector"].to_numpy(), frame["label"].to_list())
    assert frame.filter(polars.col("category") == "viral").height == 8


def test_parquet_opens_in_duckdb(done: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    assert run(done, "parquet") == 0
    with duckdb.connect() as connection:
        rows = connection.sql(
            f"SELECT id, vector, label FROM read_parquet('{done}/export/parquet/**/*.parquet')"
        ).fetchall()
        ids, vectors, labels = zip(*rows, strict=True)
        in_order(done, list(ids), np.array(vectors, np.float32), list(labels))
        assert connection.sql(
            f"SELECT category, count(*) FROM '{done}/export/parquet/**/*.parquet' GROUP BY 1 ORDER BY 1"
        ).fetchall() == [("bacteria", 4), ("invertebrate", 4), ("viral", 8)]


def test_safetensors_open_in_numpy_and_torch(done: Path) -> None:
    import safetensors
    import safetensors.torch

    assert run(done, "safetensors") == 0
    ids, vectors, labels = [], [], []
    for path in sorted((done / "export" / "safetensors").rglob("*.safetensors")):
        with safetensors.safe_open(path, "np") as file:
            text = json.loads(file.metadata()["nucpro"])
            chunks = file.get_tensor("chunk").tolist()
            labels += file.get_tensor("label").tolist()
        ids += text["id"]
        vectors.append(safetensors.torch.load_file(path)["vector"].numpy())
        assert list(zip(text["record"], chunks, text["frame"], strict=True)) == list(
            map(place_of, text["id"])
        )
    in_order(done, ids, np.concatenate(vectors), labels)


def test_npz_opens_in_numpy_and_trains_a_classifier(done: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    assert run(done, "npz") == 0
    files = [np.load(path) for path in sorted((done / "export" / "npz").rglob("*.npz"))]
    rows = {name: np.concatenate([file[name] for file in files]) for name in files[0].files}
    in_order(done, rows["id"].tolist(), rows["vector"], rows["label"].tolist())
    places = zip(rows["record"].tolist(), rows["chunk"].tolist(), rows["frame"].tolist(), strict=True)
    assert list(places) == list(map(place_of, rows["id"].tolist()))
    classifier = LogisticRegression(max_iter=50).fit(rows["vector"], rows["label"])
    assert classifier.coef_.shape == (1, WIDTH)
    for file in files:
        file.close()


@pytest.fixture
def own_ids(tmp_path: Path, frames: dict[str, list[Frame]], model: Path) -> Path:
    """A finished folder whose ids were given by somebody, with signs that other formats use."""
    data = tmp_path / "given ids"
    data.mkdir()
    names = ["plain", 'quo"te,comma', "back\\slash", "ünïcode_chunk_1F1"]
    given = [Frame(name, f.bases, f.residues) for name, f in zip(names, frames["viral.1.1"], strict=False)]
    add_dna(add_source(data, "viral.1.1", given), [1])
    assert main(["extract", *arguments(data, model)]) == 0
    return data


def test_ids_of_another_form_have_no_place(own_ids: Path) -> None:
    import pyarrow.parquet

    assert [run(own_ids, kind) for kind in FORMATS] == [0, 0, 0]
    out = own_ids / "export"
    table = pyarrow.parquet.read_table(out / "parquet" / "viral.1.1_merged" / "output_1_merged.parquet")
    assert table["id"].to_pylist() == ["plain", 'quo"te,comma', "back\\slash", "ünïcode_chunk_1F1"]
    assert table["record"].to_pylist() == [None, None, None, "ünïcode"]
    assert table["chunk"].to_pylist() == [None, None, None, 1]
    with np.load(out / "npz" / "viral.1.1_merged" / "output_1_merged.npz") as file:
        assert file["record"].tolist() == ["", "", "", "ünïcode"]
        assert file["chunk"].tolist() == [0, 0, 0, 1]
        assert file["id"].tolist() == table["id"].to_pylist()


def test_an_id_too_long_for_arrays_is_refused_there_and_only_there(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = pairs_of(done)[0]
    content = torch.load(pair.merged, weights_only=True)
    content["ids"][0] = "x" * 2000
    torch.save(content, pair.merged)
    assert run(done, "npz") == 1
    assert "an id of 2000 characters, where npz takes 1000; export to parquet" in capsys.readouterr().err
    assert run(done, "parquet") == 0


@pytest.mark.parametrize("kind", FORMATS)
def test_manifest_and_checksums_are_true_and_equal_work_gives_equal_bytes(
    done: Path, tmp_path: Path, kind: str
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert [run(done, kind, "-o", str(out)) for out in (first, second)] == [0, 0]
    assert contents(first) == contents(second)
    if kind == "parquet":
        manifest = json.loads(text_of_parquet(first / "_manifest.parquet"))
    else:
        command = ["sha256sum", "--strict", "-c", "_SHA256SUMS"]
        check = subprocess.run(command, cwd=first, check=False, capture_output=True, text=True)
        assert (check.returncode, check.stderr) == (0, "")
        assert check.stdout.count(": OK") == 5
        manifest = json.loads((first / "_manifest.json").read_text())
    assert (manifest["rows"], manifest["width"], manifest["to"]) == (16, WIDTH, kind)
    assert manifest["classes"] == {"host": 8, "viral": 8}
    for shard in manifest["shards"]:
        source = (done / shard["source"]).read_bytes()
        assert shard["source_sha256"] == hashlib.sha256(source).hexdigest()
        assert shard["sha256"] == hashlib.sha256((first / shard["shard"]).read_bytes()).hexdigest()
    assert not (first / ".export_journal.jsonl").exists()


def test_readers_take_a_folder_of_parquet_as_it_is(done: Path) -> None:
    import pandas
    import polars
    import pyarrow.dataset
    import pyarrow.parquet

    assert run(done, "parquet") == 0
    out = done / "export" / "parquet"
    ids = sorted(_read(out)[0])
    assert sorted(pandas.read_parquet(out)["id"]) == ids
    assert sorted(pyarrow.parquet.read_table(out)["id"].to_pylist()) == ids
    assert sorted(pyarrow.dataset.dataset(out).to_table()["id"].to_pylist()) == ids
    assert sorted(polars.read_parquet(out)["id"]) == ids
    assert sorted(polars.scan_parquet(out / "**" / "*.parquet").collect()["id"]) == ids


@pytest.mark.parametrize("kind", ["parquet", "npz"])
def test_an_export_of_former_names_is_known_and_its_shards_stay(
    done: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(done, kind) == 0
    out = done / "export" / kind
    whole = contents(out)
    manifest = out / "_manifest.parquet"
    text = text_of_parquet(manifest) if kind == "parquet" else (out / "_manifest.json").read_bytes()
    for path in out.glob("_*"):
        path.unlink()
    (out / "manifest.json").write_bytes(text)
    (out / "SHA256SUMS").write_text("sums\n")
    capsys.readouterr()
    assert run(done, kind) == 0
    assert capsys.readouterr().out.endswith("; 0 written now\n")
    assert contents(out) == whole
    assert {path.name for path in out.iterdir() if path.is_file()} == {
        ".export.lock",
        *(["_manifest.parquet"] if kind == "parquet" else ["_manifest.json", "_SHA256SUMS"]),
    }
    assert run(done, "safetensors", "-o", str(out)) == 3
    assert f"holds an export to {kind}; name another folder with -o" in capsys.readouterr().err


def test_a_finished_export_is_left_as_it_is(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(done, "npz") == 0
    out = done / "export" / "npz"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != ".export.lock"}
    capsys.readouterr()
    assert run(done, "npz") == 0
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != ".export.lock"}
    size = sum(path.stat().st_size for path in out.rglob("*.npz"))
    assert capsys.readouterr().out.splitlines() == [
        f"{out}: 16 rows of width {WIDTH} in 4 files, {size / 1000:.1f} kB; 0 written now"
    ]


def test_what_was_damaged_or_outdated_is_written_again(done: Path) -> None:
    assert run(done, "parquet") == 0
    out = done / "export" / "parquet"
    good = contents(out)
    shards = sorted(out.rglob("output_*.parquet"))
    shards[0].write_bytes(b"PAR1 cut")
    shards[1].unlink()
    assert run(done, "parquet") == 0
    assert contents(out) == good
    pair = pairs_of(done)[0]
    changed = torch.load(pair.merged, weights_only=True)
    changed["data"] = changed["data"] + 1
    torch.save(changed, pair.merged)
    assert run(done, "parquet") == 0
    in_order(done, *_read(out))


def _read(out: Path) -> tuple[list[str], np.ndarray, list[int]]:
    import pyarrow.parquet

    tables = [pyarrow.parquet.read_table(path) for path in sorted(out.rglob("output_*.parquet"))]
    vectors = [t["vector"].combine_chunks().flatten().to_numpy().reshape(-1, WIDTH) for t in tables]
    ids = [name for table in tables for name in table["id"].to_pylist()]
    return ids, np.concatenate(vectors), [label for table in tables for label in table["label"].to_pylist()]


def test_shards_of_files_that_left_the_selection_go(done: Path) -> None:
    assert run(done, "npz", "--host-selection", "all") == 0
    out = done / "export" / "npz"
    gone = next(pair for pair in pairs_of(done) if pair.category == "invertebrate")
    shard = out / "invertebrate.1.1_merged" / "output_1_merged.npz"
    assert shard.exists()
    for path in (gone.dna_vectors, gone.protein_vectors, gone.merged):
        path.unlink()
    assert run(done, "npz", "--host-selection", "existing") == 0
    assert not shard.exists()
    assert "invertebrate" not in (out / "_manifest.json").read_text()


@pytest.mark.parametrize("shard", ["../../victim.npz", "/victim.npz", "a/../../victim.npz", 3, None])
@pytest.mark.parametrize("is_sealed", [True, False])
def test_a_manifest_that_points_out_of_the_folder_removes_nothing(
    shard: object, is_sealed: bool, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(done, "npz") == 0
    out = done / "export" / "npz"
    victim = done / "victim.npz"
    victim.write_bytes(b"precious")
    path = out / "_manifest.json"
    manifest, _ = unsealed(path.read_bytes())
    manifest["shards"].append({**manifest["shards"][0], "shard": shard})
    path.write_bytes(document(manifest) if is_sealed else json.dumps(manifest).encode())
    next(out.rglob("*.npz")).unlink()
    assert run(done, "npz") == 1
    assert f"{path}: the record of an export is damaged (shards[4].shard is " in capsys.readouterr().err
    assert victim.read_bytes() == b"precious"


def test_an_export_of_an_earlier_version_is_verified_once_and_sealed(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(done, "npz") == 0
    out = done / "export" / "npz"
    path = out / "_manifest.json"
    sealed = path.read_bytes()
    manifest, _ = unsealed(sealed)
    shards = {path: path.stat().st_mtime_ns for path in out.rglob("*.npz")}
    path.write_text(json.dumps(manifest))
    assert run(done, "npz") == 0
    assert "0 written now" in capsys.readouterr().out
    assert path.read_bytes() == sealed
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.npz")} == shards
    # What such a record says wrong of a shard is found, though the shard itself is as it was.
    manifest["shards"][0]["rows"] += 1
    path.write_text(json.dumps(manifest))
    assert run(done, "npz") == 0
    assert "1 written now" in capsys.readouterr().out
    assert path.read_bytes() == sealed


def test_a_file_of_somebody_else_under_the_name_of_a_shard_is_not_replaced(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(done, "npz", "--host-selection", "existing") == 0
    out = done / "export" / "npz"
    manifest, _ = unsealed((out / "_manifest.json").read_bytes())
    one = manifest["shards"].pop()
    (out / "_manifest.json").write_bytes(document(manifest))
    own = out / one["shard"]
    own.write_bytes(b"mine")
    assert run(done, "npz") == 3
    assert f"{own}: exists, and there is no record that this command wrote it" in capsys.readouterr().err
    assert own.read_bytes() == b"mine"
    assert run(done, "npz", "--replace") == 0
    assert own.read_bytes() != b"mine"


def killed_exports(data: Path, out: Path) -> Iterator[int]:
    """Exports that SIGKILL ends after one of their renames: journal, four shards, checksums, manifest."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "replace, left = Path.replace, [int(sys.argv[1])]\n"
        "def struck(self, target):\n"
        "    done = replace(self, target)\n"
        "    left[0] -= 1\n"
        "    if not left[0]:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return done\n"
        "Path.replace = struck\n"
        "from nucpro.cli import main\n"
        "sys.exit(main(sys.argv[2:]))\n"
    )
    for strike in range(1, 8):
        shutil.rmtree(out, ignore_errors=True)
        command = ["export", str(data), "--to", "npz", "--sequences-per-file", "4", "-o", str(out)]
        ended = subprocess.run(
            [sys.executable, "-c", code, str(strike), *command], check=False, capture_output=True
        )
        assert ended.returncode == -signal.SIGKILL
        yield strike


def test_an_export_that_was_killed_goes_on_and_ends_with_the_same_bytes(done: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(done, "npz", "-o", str(whole)) == 0
    for strike in killed_exports(done, broken):
        complete = (broken / "_manifest.json").exists()
        assert complete == (strike == 7)
        kept = {path: path.stat().st_ino for path in broken.rglob("*.npz")}
        assert run(done, "npz", "-o", str(broken)) == 0
        assert contents(broken) == contents(whole)
        again = [path for path, inode in kept.items() if path.stat().st_ino != inode]
        assert len(again) <= 1, "only the shard that was being recorded may be made again"


def test_missing_merged_files_are_listed_and_nothing_is_written(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, "parquet") == 3
    said = capsys.readouterr().err
    assert f"5 merged files missing; make them with nucpro extract {data}: " in said
    assert str(pairs_of(data)[0].merged) in said
    assert not (data / "export").exists()


def test_files_of_another_width_stop_the_export(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = next(pair for pair in pairs_of(done) if pair.category == "bacteria")
    content = torch.load(pair.merged, weights_only=True)
    torch.save({**content, "data": content["data"][:, :-1].clone()}, pair.merged)
    assert run(done, "npz") == 1
    said = capsys.readouterr().err
    assert "width of its vectors" in said
    assert f"expected {WIDTH}, found {WIDTH - 1}" in said
    assert not (done / "export" / "npz" / "_manifest.json").exists()


def test_a_damaged_merged_file_stops_the_export(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = pairs_of(done)[0]
    raw = bytearray(pair.merged.read_bytes())
    raw[len(raw) // 2] ^= 1
    pair.merged.write_bytes(raw)
    assert run(done, "npz") == 1
    assert str(pair.merged) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("notes.txt", "holds files that are not part of an export; name a new or an empty folder with -o"),
        (None, "holds an export to npz; name another folder with -o"),
    ],
)
def test_folders_of_something_else_are_not_touched(
    done: Path, tmp_path: Path, name: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    if name is None:
        assert run(done, "npz", "-o", str(out)) == 0
    else:
        write_fasta(out / name, [("a", "ACGT")])
    before = contents(out)
    assert run(done, "parquet", "-o", str(out)) == 3
    assert message in capsys.readouterr().err
    assert contents(out) == before


def test_worker_processes_make_the_same_bytes(done: Path, tmp_path: Path) -> None:
    alone, several = tmp_path / "alone", tmp_path / "several"
    pairs = pairs_of(done)
    with Workers(2) as workers:
        export(pairs, alone, "parquet", workers)
        assert not workers.is_running
        workers.submit(os.getpid).result()
        assert export(pairs, several, "parquet", workers).made == 4
    assert contents(alone) == contents(several)


def test_two_exports_to_one_folder_exclude_each_other(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with lock.hold(out / ".export.lock"):
        assert run(done, "npz", "-o", str(out)) == 3
    assert f"{out}: in use by process {os.getpid()}" in capsys.readouterr().err


def test_an_export_works_while_a_run_holds_the_data_folder(done: Path) -> None:
    with lock.hold(DataFolder(done).lock):
        assert run(done, "npz") == 0


def test_shards_keep_sub_folders_apart(tmp_path: Path, frames: dict[str, list[Frame]], model: Path) -> None:
    data = tmp_path / "data"
    for folder in ("viral_a", "viral b"):
        (data / folder).mkdir(parents=True)
        add_dna(add_source(data, f"{folder}/viral.1.1", frames["viral.1.1"][:4]), [1])
    assert main(["extract", *arguments(data, model)]) == 0
    assert run(data, "npz") == 0
    shards = [path.relative_to(data / "export" / "npz") for path in (data / "export" / "npz").rglob("*.npz")]
    assert sorted(map(str, shards)) == [
        "viral b/viral.1.1_merged/output_1_merged.npz",
        "viral_a/viral.1.1_merged/output_1_merged.npz",
    ]
