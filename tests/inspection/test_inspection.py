"""What ``nucpro inspect`` says of files and folders: true numbers, on one screen, nothing that steers it."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from folders import Frame, pairs_of, write_fasta
from nucpro.cli import main
from nucpro.formats.fasta import read
from nucpro.formats.sequences import SequenceType
from nucpro.inspection.files import inspect
from nucpro.vectors.outputs import FORMATS, Content, write_tensor

GENOMES = Path(__file__).resolve().parents[2] / "demo" / "genomes"


def shown(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[list[str], dict[str, Any]]:
    """What is shown of a file, as lines and as JSON."""
    capsys.readouterr()
    assert main(["inspect", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert main(["inspect", str(path), "--json"]) == 0
    return lines, json.loads(capsys.readouterr().out)


def test_a_merged_file(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = next(pair for pair in pairs_of(finished) if pair.category == "viral")
    lines, facts = shown(pair.merged, capsys)
    truth = torch.load(pair.merged, weights_only=True)
    rows = truth["data"].numpy()
    assert (facts["what"], facts["rows"], facts["width"], facts["dtype"]) == (
        "merged vectors",
        4,
        784,
        "float32",
    )
    assert (facts["label"], facts["class"]) == (1, "viral")
    assert facts["ids"]["first"] == truth["ids"][:3]
    assert facts["ids"]["last"] == truth["ids"][-1:]
    assert facts["meta"] == truth["meta"]
    for name, part in (("dna", rows[:, :768]), ("protein", rows[:, 768:])):
        said = facts["values"][name]
        assert said["columns"] == part.shape[1]
        assert (said["least"], said["greatest"]) == (part.min(), part.max())
        assert said["deviation"] == pytest.approx(part.std(), rel=1e-5)
        assert said["norms"]["greatest"] == pytest.approx(np.linalg.norm(part, axis=1).max())
    assert any(line.split() == ["width", "784"] for line in lines)
    assert len(lines) <= 46
    assert max(map(len, lines)) < 140


def test_vectors_of_one_sequence_type_and_old_files(data: Path) -> None:
    dna = next(path for path in sorted(data.rglob("*_DNABERT_S.pt")))
    facts = inspect(dna)
    assert (facts["what"], facts["width"]) == ("DNABERT-S vectors", 768)
    assert facts["values"]["all"]["columns"] == 768
    old = next(path for path in data.rglob("*_ESM.pt"))
    assert inspect(old)["meta"] is None
    assert inspect(old)["what"] == "protein vectors"


def test_rows_that_are_zero_or_repeated_are_counted(finished: Path, tmp_path: Path) -> None:
    pair = pairs_of(finished)[0]
    content = torch.load(pair.protein_vectors, weights_only=True)
    content["data"][1] = torch.zeros(16)
    content["data"][3] = content["data"][2].clone()
    path = tmp_path / "output_1_ESM.pt"
    torch.save(content, path)
    values = inspect(path)["values"]
    assert (values["zero_rows"], values["repeated_rows"]) == (1, 1)


def test_reading_frames(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = pairs_of(finished)[0]
    _, protein = shown(pair.protein_fasta, capsys)
    _, nucleotide = shown(pair.nucleotide_fasta, capsys)
    assert (protein["what"], nucleotide["what"]) == ("protein sequences", "nucleotide sequences")
    records = read(pair.protein_fasta)
    lengths = sorted(map(len, records.sequences))
    assert protein["records"] == 4
    assert protein["lengths"] == {"least": lengths[0], "median": np.median(lengths), "greatest": lengths[-1]}
    assert sum(protein["composition"].values()) == protein["letters"] == sum(lengths)
    assert protein["ids"]["source_records"] == len({name.split("_chunk_")[0] for name in records.ids})
    # What a file of vectors says of its input is what is shown of the input.
    meta = torch.load(pair.protein_vectors, weights_only=True)["meta"]
    assert protein["input_sha256"] == meta["input"]["sha256"]


def test_genomes_and_reads_as_they_come(tmp_path: Path) -> None:
    genome = inspect(next(GENOMES.glob("viral*.fna.gz")))
    assert genome["what"] == "nucleotide sequences"
    assert genome["over_limit"]["records"] == 2
    assert "source_records" not in genome["ids"]
    reads = tmp_path / "reads.fq.gz"
    reads.write_bytes(gzip.compress(b"@a\nACGTN\n+\nIIIII\n@a\nACJT\n+\nIIII\n"))
    facts = inspect(reads)
    assert (facts["records"], facts["foreign_letters"], facts["ids"]["repeated"]) == (2, 1, 1)


def test_a_protein_of_few_kinds_of_characters_is_no_nucleotide(tmp_path: Path) -> None:
    write_fasta(tmp_path / "a.fa", [("x", "MGAGTCAGGACTGAAANNE")])
    assert inspect(tmp_path / "a.fa")["what"] == "protein sequences"


def test_genomes_of_a_data_folder(tmp_path: Path) -> None:
    for name in ("viral.1.1.genomic.fna.gz", "viral.1.genomic.gbff.gz", "plant.1.1.genomic.fna.gz", "x.fna"):
        (tmp_path / name).write_bytes(b"")
    assert inspect(tmp_path)["genomes"] == {"pairs": 1, "not_used": 2}


def test_a_data_folder(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    lines, facts = shown(finished, capsys)
    assert facts["what"] == "data folder"
    assert facts["genomes"] == {"pairs": 0, "not_used": 0}
    assert facts["files"]["viral"] == {"sources": 1, "split": 4, "dna": 3, "protein": 3, "merged": 3}
    assert facts["bytes"]["merged"] == sum(path.stat().st_size for path in finished.rglob("*_merged.pt"))
    assert facts["examples"]["protein"]["width"] == 16
    assert facts["selection"] == {"hosts": 3, "reason": "existing", "sequences_per_file": 4}
    assert facts["runs"]["last"]["ended"] == "done"
    assert facts["run"] == "none"
    counts = ["sources", "1,", "split", "4,", "dna", "3,", "protein", "3,", "merged", "3"]
    assert any(line.split() == ["viral", *counts] for line in lines)
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}


def test_vectors_in_other_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    content = Content(["a", "b"], vectors, {"kind": "protein"}, SequenceType.PROTEIN)
    for suffix in (".npz", ".safetensors", ".parquet"):
        path = tmp_path / f"x{suffix}"
        FORMATS[suffix].write(path, content)
        facts = shown(path, capsys)[1]
        assert (facts["what"], facts["rows"], facts["width"]) == ("protein vectors", 2, 3)
        assert facts["ids"]["first"] == ["a", "b"]
        assert (facts["values"]["all"]["greatest"], facts["meta"]) == (5.0, {"kind": "protein"})
        assert facts["read_with"] == "nucpro.read_vectors"


def test_files_of_other_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros((2, 3)), b=np.array(["x"]))
    facts = shown(tmp_path / "x.npz", capsys)[1]
    assert facts["what"] == "NumPy archive (.npz)"
    assert (facts["arrays"], facts["read_with"]) == ({"a": "float64 [2, 3]", "b": "<U1 [1]"}, "numpy.load")
    (tmp_path / "x.npz").rename(tmp_path / "x.pt")
    assert inspect(tmp_path / "x.pt")["what"] == "NumPy archive (.npz)"
    torch.save({"w": torch.zeros(2, 3)}, tmp_path / "w.bin")
    write_tensor(tmp_path / "w.safetensors", np.zeros((4, 2), np.float16), {})
    facts = inspect(tmp_path / "w.safetensors")
    assert (facts["what"], facts["tensors"], facts["values"]) == ("safetensors file", 1, 8)
    assert (facts["dtypes"], facts["first"]) == (["F16"], ["vector [4, 2]"])
    for start, what in (
        (b"PAR1", "Parquet file"),
        (b"\x89HDF\r\n", "HDF5 file"),
        (b"\x93NUMPY", "NumPy array"),
    ):
        (tmp_path / "x").write_bytes(start)
        assert inspect(tmp_path / "x")["what"] == what


@pytest.mark.parametrize("name", ["x.zip", "x.npz", "x.pt"])
def test_archives_that_hold_no_vectors(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello" * 200)
    assert main(["inspect", str(path)]) == 1
    error = capsys.readouterr().err
    assert f"{path}: is a zip archive of 1 file (notes.txt), and no file of vectors; unpack it first" in error
    path.write_bytes(path.read_bytes()[:100])
    assert main(["inspect", str(path)]) == 1
    error = capsys.readouterr().err
    assert ("is no archive of torch.save" if name == "x.pt" else f"{path}: is a damaged zip archive") in error


def test_encoders(model: Path, dna_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, facts = shown(model, capsys)
    assert (facts["what"], facts["model_type"]) == ("encoder", "esm")
    config = json.loads((model / "config.json").read_text())
    assert facts["hidden_size"] == config["hidden_size"]
    assert facts["num_hidden_layers"] == config["num_hidden_layers"]
    assert facts["weights"][0].startswith("model.safetensors (")
    assert inspect(dna_model)["model_type"] == "bert"
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "a/b", "r": 8}')
    facts = inspect(tmp_path)
    assert (facts["what"], facts["base_model"], facts["rank"]) == ("LoRA adapter", "a/b", 8)


def test_a_cache_of_models(tmp_path: Path) -> None:
    commit = tmp_path / "hub" / "models--a--b" / "snapshots" / "0123"
    commit.mkdir(parents=True)
    (tmp_path / "hub" / "models--a--b" / "refs").mkdir()
    for folder in (tmp_path / "hub", tmp_path / "hub" / "models--a--b"):
        facts = inspect(folder)
        assert (facts["what"], facts["models"]) == ("cache of models from the hub", [str(commit)])


def test_parts_of_a_data_folder(finished: Path) -> None:
    facts = inspect(finished / "data_merge")
    assert (facts["what"], facts["data_folder"]) == ("merged files", str(finished))
    folder = next(iter(sorted(finished.glob("viral*protein"))))
    facts = inspect(folder)
    assert (facts["what"], facts["data_folder"]) == ("split files and their vectors", str(finished))
    assert facts["files"] == len(list(folder.iterdir()))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "is empty, no data folder, classifier or encoder; name one of these, or a file in it"),
        (["a.txt"], "holds 1 entry (a.txt), no data folder, classifier or encoder"),
        (["config.json"], "holds 1 entry (config.json), no data folder, classifier or encoder"),
        (
            [".training.safetensors"],
            "contains an unfinished training, without a model; finish it with nucpro train DATA -o",
        ),
    ],
)
def test_a_folder_that_holds_nothing_known(
    names: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in names:
        (tmp_path / name).write_text("{}")
    assert main(["inspect", str(tmp_path)]) == 3
    assert f"{tmp_path}: {message}" in capsys.readouterr().err


def test_a_damaged_file_in_a_folder_is_reported_and_does_not_hide_the_rest(data: Path) -> None:
    next(iter(sorted(data.rglob("*_DNABERT_S.pt")))).write_bytes(b"damaged")
    (data / ".extraction_selection.json").write_text("{")
    facts = inspect(data)
    assert "is no archive" in facts["examples"]["dna"]["problem"] or "dna" in facts["examples"]
    assert "the recorded selection is damaged" in facts["selection"]["problem"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.pt", b"damaged", "x.pt: "),
        ("x.fa", b"", "x.fa: the file is empty"),
        ("x.txt", b"hello", "x.txt: cannot be read as FASTA or FASTQ"),
        (
            None,
            b"",
            "no such file or folder; name a file of vectors or sequences, a data folder or a model",
        ),
    ],
)
def test_what_cannot_be_shown(
    name: str | None, content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["inspect", str(tmp_path / (name or "none"))]) == (1 if name else 3)
    assert message in capsys.readouterr().err


def test_names_that_could_steer_the_terminal_are_written_as_escapes(
    tmp_path: Path, frames: dict[str, list[Frame]], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "output_1_ESM.pt"
    meta = {"a\x1b[2Jb": "line\nfake              line\x9b", "nested": {"\u202e\nfake": ["\x07"]}}
    torch.save({"proteins": ["x"], "data": [torch.ones(4)], "meta": meta}, path)
    lines, facts = shown(path, capsys)
    text = "\n".join(lines)
    assert facts["meta"] == meta
    assert not any(sign in text for sign in "\x1b\x9b\x07\u202e")
    assert "a\\x1b[2Jb" in text
    assert not any(line.startswith("fake") for line in lines)
    capsys.readouterr()
    assert main(["inspect", str(path), "--json"]) == 0
    assert capsys.readouterr().out.isascii()


def test_long_meta_is_cut_on_the_screen_and_whole_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "output_1_ESM.pt"
    meta = {f"key {number}": "x" * 500 for number in range(100)}
    torch.save({"proteins": ["x"], "data": [torch.ones(4)], "meta": meta}, path)
    lines, facts = shown(path, capsys)
    assert facts["meta"] == meta
    assert len(lines) == 46
    assert lines[-1].endswith(" more lines: --json")
    assert max(map(len, lines)) <= 130
