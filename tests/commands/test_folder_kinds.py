"""Commands that write keep out of the folders of others, and leave nothing behind where they refuse."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from test_slips import said

from nucpro.folder.kinds import Kind, known_folder
from pairs import make_pair

SPLIT = "data/viral.1.1.identified_protein"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None) -> Path:
    """A working directory with a data folder, a classifier, encoders and sequences."""
    monkeypatch.chdir(tmp_path)
    for source in ("viral.1.1", "bacteria.1.1"):
        make_pair(tmp_path / "data", source, [f"{source}_chunk_{number}F1" for number in range(1, 4)])
    files = {
        "model/model.json": "{}",
        "model/model.safetensors": "",
        "stopped/.training.safetensors": "",
        "esm/config.json": '{"model_type": "esm"}',
        "esm/pytorch_model.bin": "",
        "adapter/adapter_config.json": "{}",
        "hub/models--owner--name/refs/main": "0",
        "hub/models--owner--name/snapshots/0/config.json": "{}",
        "exported/_manifest.json": "{}",
        "exported_before/manifest.json": "{}",
        "exported_before/SHA256SUMS": "",
        "settings/config.json": '{"samples": []}',
        "proteins.fa": ">a\nMKVLAA\n",
        "contigs.fa": ">a\nACGTACGTACGTACGTACGT\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "empty").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "data_merge").rename(tmp_path / "elsewhere" / "merged")
    (tmp_path / "data" / "data_merge").symlink_to(tmp_path / "elsewhere" / "merged")
    return tmp_path


def everything(place: Path) -> set[Path]:
    """All files and folders, hidden ones too; what a data folder keeps of its runs is its own."""
    own = (".extraction", "extraction.log")
    return {
        path for path in place.rglob("*") if not (path.parent == place / "data" and path.name.startswith(own))
    }


OF_FOLDERS = (
    "predict contigs.fa --model model --device cpu -o",
    "train data --device cpu -o",
    "export data --to npz --sequences-per-file 3 -o",
    "report data -o",
)
OF_FILES = ("embed proteins.fa --device cpu -o {}/x.npz", "embed proteins.fa --device cpu --format npz -o {}")


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("data", "data: is a data folder, which takes no other files; name another folder, such as "),
        ("data/.", "data: is a data folder"),
        (SPLIT, f"{SPLIT}: is a folder of split files and vectors of data"),
        (f"{SPLIT}/new", f"{SPLIT}/new: is within a folder of split files and vectors of data"),
        ("data/data_merge", "data/data_merge: is the folder of merged files of data"),
        ("data/data_merge/x/y", "data/data_merge/x/y: is within the folder of merged files of data"),
        (
            "elsewhere/merged/viral.1.1_merged",
            "elsewhere/merged/viral.1.1_merged: is the folder of merged files",
        ),
        ("model", "model: is the folder of a classifier"),
        ("stopped", "stopped: is the folder of a classifier"),
        ("esm", "esm: is the folder of an encoder"),
        ("adapter", "adapter: is the folder of an encoder"),
        ("exported", "exported: is the folder of an export, which takes no other files"),
        ("exported_before", "exported_before: is the folder of an export"),
        ("hub", "hub: is a cache of models from the hub"),
        ("hub/models--owner--name", "hub/models--owner--name: is a cache of models from the hub"),
    ],
)
@pytest.mark.parametrize("words", [*(f"{words} {{}}" for words in OF_FOLDERS), *OF_FILES])
def test_folders_of_others_take_no_files(
    words: str, folder: str, message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = (words.startswith("train") and folder in ("model", "stopped")) or (
        words.startswith("export") and folder.startswith("exported")
    )
    if own or (words in OF_FILES and message.startswith("data: ")):
        return  # these write to their own folders, and files with names of their own may lie in a data folder
    before = everything(place)
    code, error = said(words.format(folder), capsys)
    assert code == 3
    assert f"- {message}" in error
    assert everything(place) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("fetch-models data", "data: is a data folder"),
        ("fetch-models model", "model: is the folder of a classifier"),
        ("download model", "model: is the folder of a classifier"),
        ("download data/data_merge --taxonomy", "data/data_merge: is the folder of merged files of data"),
        ("download esm", "esm: is the folder of an encoder, which takes no other files"),
    ],
)
def test_downloads_keep_out_of_folders_of_others(
    words: str, message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(place)
    code, error = said(words, capsys)
    assert code == 3
    assert message in error
    assert everything(place) == before


@pytest.mark.parametrize(
    "command",
    [
        "extract {} --device cpu",
        "embed-dna {} --device cpu",
        "train {} --device cpu",
        "dataset {} --length 300",
        "split {}",
        "status {}",
        "status {} --watch",
        "validate {}",
        "report {}",
        "export {} --to npz",
    ],
)
@pytest.mark.parametrize(
    ("folder", "message"),
    [
        (SPLIT, f"{SPLIT}: is a folder of split files and vectors of data, not a data folder; name data"),
        (
            "data/data_merge",
            "data/data_merge: is the folder of merged files of data, not a data folder; name data",
        ),
        (
            "model",
            "model: is the folder of a classifier, not a data folder; give the path of the data folder",
        ),
        ("esm", "esm: is the folder of an encoder, not a data folder"),
        ("exported", "exported: is the folder of an export, not a data folder"),
        ("proteins.fa", "proteins.fa: is a file, not a data folder; give the path of the data folder"),
        ("data/viral.1.1.identified_protein.fa", "is a file, not a data folder; name data"),
        (f"{SPLIT}/output_1.fa", "is a file, not a data folder; name data"),
    ],
)
def test_what_is_no_data_folder_is_reported(
    command: str, folder: str, message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = said(command.format(folder), capsys)
    assert code == 3
    assert message in error


@pytest.mark.parametrize("folder", ["empty", "settings", "nosuch", "data/report", "data/export/npz", "."])
def test_other_folders_are_of_nobody(folder: str, place: Path) -> None:
    assert known_folder(Path(folder)) is None


def test_a_data_folder_below_a_folder_called_like_its_parts(place: Path) -> None:
    above = place / "data_merge" / "x.identified_protein"
    os.renames(place / "data", above / "data")
    known = known_folder(above / "data")
    assert known is not None
    assert known.kind is Kind.DATA
    assert known_folder(above / "results") is None


@pytest.mark.parametrize("folder", ["empty", "settings", "only/new/folder"])
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("extract {} --device cpu", 3, "no *identified_nucleotide.fa with records was found"),
        ("extract {} --with-dna --device cpu", 3, "no *identified_nucleotide.fa with records was found"),
        ("embed-dna {} --device cpu", 3, "no *identified_nucleotide.fa with records was found"),
        ("split {}", 3, "no *identified_nucleotide.fa with records was found"),
        ("dataset {} --length 300", 3, "no genomes found"),
        ("train {} --device cpu", 3, "data_merge: no merged files"),
        ("train {} --device cpu --epochs 0", 2, "--epochs is 0"),
        ("export {} --to npz", 3, "no *identified_nucleotide.fa with records was found"),
        ("report {}", 3, "no *identified_nucleotide.fa with records was found"),
        ("download {} --count viral=1 --server http://localhost:1", 2, "group 'viral' does not exist"),
        ("download {} --server http://localhost:1 --connections 1", 1, "http://localhost:1/"),
        (
            "fetch-models {} --model esm",
            3,
            "esm: exists already; give it with --protein-model or --dna-model",
        ),
        ("fetch-models {} --model a/b", 1, "model 'a/b' (revision 'main'): the hub cannot be reached"),
        ("fetch-models {} --model a/b --endpoint foo", 2, "endpoint 'foo' is not allowed"),
        ("fetch-models {} --model a?b", 3, "model 'a?b' is neither a folder nor the id of a repository"),
        ("predict contigs.fa --model esm --device cpu -o {}", 3, "esm"),
        ("evaluate {} --lengths 150", 3, "{}"),
        ("compare {} model", 3, "{}"),
    ],
)
def test_a_command_that_is_refused_leaves_nothing(
    words: str,
    code: int,
    message: str,
    folder: str,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = everything(place)
    found, error = said(words.format(folder), capsys)
    is_data = words.startswith(("extract", "embed-dna", "split", "dataset", "train", "export", "report"))
    if folder == "only/new/folder" and is_data and code == 3:
        message = "only/new/folder: no such folder"
    assert (found, message.format(folder) in error) == (code, True), error
    assert everything(place) == before


COMMANDS = (
    *("extract {} --device cpu", "extract {} --with-dna --device cpu", "embed-dna {} --device cpu"),
    *("dataset {} --length 300", "split {}", "status {}", "validate {}", "report {}", "export {} --to npz"),
    "train {} --device cpu",
)


@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize("folder", [".", "above", "above/"])
@pytest.mark.parametrize("record", [".extraction_history.jsonl", ".extraction_checkpoint.json"])
def test_a_folder_above_a_data_folder(
    words: str,
    folder: str,
    record: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    offline: None,
    capsys,
) -> None:
    make_pair(tmp_path / "above" / "data")
    (tmp_path / "above" / "data" / record).touch()
    monkeypatch.chdir(tmp_path / "above" if folder == "." else tmp_path)
    before = set(tmp_path.rglob("*"))
    code, error = said(words.format(folder), capsys)
    data = Path(folder) / "data"
    assert code == 3
    assert f"{Path(folder)}: holds the data folder {data}, and is none itself; name {data}" in error
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize(
    "name", ["viral.1.1.identified_nucleotide.fa", "viral.1.1.identified_protein.fa", "x.fa"]
)
def test_a_folder_with_a_part_of_the_data_is_refused_and_left_as_it_was(
    words: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None, capsys
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_text(">a\nACG\n")
    monkeypatch.chdir(tmp_path)
    for folder in ("data", "."):
        code, error = said(words.format(folder), capsys)
        assert code == 3, error
        assert set(tmp_path.rglob("*")) == {tmp_path / "data", tmp_path / "data" / name}


@pytest.mark.parametrize("words", [*COMMANDS, *(f"{words} {{}}" for words in OF_FOLDERS)])
def test_a_link_that_leads_nowhere(words: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "link").symlink_to("nowhere")
    before = everything(place)
    code, error = said(words.format("link"), capsys)
    assert code == 3
    assert "link: is a link to nowhere, which does not exist, not a " in error
    assert everything(place) == before


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["viral.1.1.genomic.fna.gz"], "; found only viral.1.1.genomic.fna.gz; a pair has names like"),
        (["viral.1.genomic.gbff.gz"], "; found only viral.1.genomic.gbff.gz"),
        (
            ["x.fna", "x.gbff"],
            "; found only x.fna, x.gbff; a pair has names like viral.1.1.genomic.fna.gz and",
        ),
        (["notes.txt"], "\n"),
    ],
)
def test_genomes_of_no_pair_are_named(
    names: list[str], told: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in names:
        (place / "empty" / name).write_text("x")
    code, error = said("dataset empty --length 300", capsys)
    assert code == 3
    assert f"which nucpro download empty fetches{told}" in error


@pytest.mark.parametrize("table", ["nosuch.tsv", "proteins.fa", "few.tsv"])
@pytest.mark.parametrize("output", [[], ["-o", "new/model"]])
def test_a_bad_table_of_families_leaves_no_folder(
    table: str, output: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "few.tsv").write_text("a\tfamily\n")
    before = everything(place)
    words = ["train", "data", "--device", "cpu", "--split-by", "family", "--families", table, *output]
    code, error = said(" ".join(words), capsys)
    assert code == 3
    assert table in error
    assert everything(place) == before


@pytest.mark.parametrize(
    "words", [*OF_FOLDERS, "fetch-models", "embed proteins.fa --device cpu --format npz -o"]
)
@pytest.mark.parametrize("name", ["proteins.fa", "proteins.fa/below/it"])
def test_a_file_where_a_folder_is_expected(
    words: str, name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if words.startswith("embed") and name == "proteins.fa":
        return  # a contradiction of two options, which is wrong usage
    code, error = said(f"{words} {name}", capsys)
    assert code == 3
    assert "a file, not a folder; move it away, or name another folder" in error


@pytest.mark.parametrize("more", ["", " --replace"])
def test_sources_that_cannot_be_split(more: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (
        place / "data" / "fungi.1.1.identified_nucleotide.fa",
        place / "data" / "fungi.1.1.identified_protein.fa",
    )
    before[0].write_text(">a\nACG\n")
    code, error = said(f"split data{more}", capsys)
    assert code == 3
    assert f"{before[1].relative_to(place)}: missing; " in error
    assert not (place / "data" / "fungi.1.1.identified_nucleotide").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("compare nosuch model", 3, "nosuch: no such folder"),
        ("compare nosuch other", 3, "2 problems found"),
        ("compare nosuch", 2, "nosuch: one model is given, and two or more are compared; name another one"),
        ("compare model model", 2, "model is named twice; name different models"),
        ("evaluate nosuch --lengths 150", 3, "nosuch: no such folder"),
    ],
)
def test_models_that_are_not_there(
    words: str, code: int, message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, error = said(words, capsys)
    assert (found, message in error) == (code, True), error


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            "predict contigs.fa model",
            2,
            "model: is the folder of a classifier, not a file of sequences; give it with --model",
        ),
        ("predict contigs.fa model -o x", 2, "give it with --model"),
        (
            "predict stopped",
            2,
            "stopped: is the folder of a classifier, not a file of sequences; give it with --model",
        ),
        (
            "embed proteins.fa esm -o x.npz",
            2,
            "esm: is the folder of an encoder, not a file of sequences; give it with",
        ),
        ("predict data --model model", 3, "data: is a folder, not a regular file"),
        (
            "predict contigs.fa --model esm",
            3,
            "esm: is the folder of an encoder, not the folder of a classifier; train",
        ),
        (
            "predict contigs.fa --model data",
            3,
            "data: is a data folder, not the folder of a classifier; train a model",
        ),
        ("predict contigs.fa --model compared", 3, "compared: holds 2 models (both, dna); name one of them"),
        ("predict contigs.fa --model trained", 3, "trained: a data folder; its model is trained/model"),
        (
            "predict contigs.fa --model settings",
            3,
            "settings/model.json: cannot be read: No such file or directory",
        ),
        (
            "embed proteins.fa -o x.npz --protein-model model",
            3,
            "model: is the folder of a classifier, not the folder of",
        ),
        (
            "embed proteins.fa -o x.npz --protein-model data",
            3,
            "data: is a data folder, not the folder of an encoder",
        ),
        (
            "extract data --sequences-per-file 3 --protein-model data/data_merge",
            3,
            "data/data_merge: is the folder of merged files of data, not",
        ),
        (
            "embed-dna data --sequences-per-file 3 --dna-model model",
            3,
            "model: is the folder of a classifier, not the folder of an encoder",
        ),
    ],
)
def test_folders_in_the_wrong_place_are_told_with_the_right_one(
    words: str, code: int, message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("compared/dna", "compared/both", "trained/model"):
        (place / name).mkdir(parents=True)
        (place / name / "model.json").write_text("{}")
    found, error = said(f"{words} --device cpu" if "embed-dna" not in words else words, capsys)
    assert (found, message in error) == (code, True), error
