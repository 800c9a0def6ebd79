"""Commands that write keep out of the folders of others, and leave nothing behind where they refuse."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from folders import contents
from nucpro.cli import main
from nucpro.folder.kinds import Kind, known_folder
from pairs import make_pair

SPLIT = "data/viral.1.1.identified_protein"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a data folder, a classifier, encoders and sequences."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for source in ("viral.1.1", "bacteria.1.1"):
        make_pair(tmp_path / "data", source)
    files = {
        "model/model.json": "{}",
        "model/model.safetensors": "",
        "stopped/.training.safetensors": "",
        "esm/config.json": '{"model_type": "esm"}',
        "esm/pytorch_model.bin": "",
        "adapter/adapter_config.json": "{}",
        "hub/models--owner--name/refs/main": "0",
        "hub/models--owner--name/snapshots/0/config.json": "{}",
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


def said(words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and what standard error holds."""
    return main(words.split()), capsys.readouterr().err


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
        (f"{SPLIT}/new", f"{SPLIT}/new: lies in a folder of split files and vectors of data"),
        ("data/data_merge", "data/data_merge: is the folder of merged files of data"),
        ("data/data_merge/x/y", "data/data_merge/x/y: lies in the folder of merged files of data"),
        (
            "elsewhere/merged/viral.1.1_merged",
            "elsewhere/merged/viral.1.1_merged: is the folder of merged files",
        ),
        ("model", "model: is the folder of a classifier"),
        ("stopped", "stopped: is the folder of a classifier"),
        ("esm", "esm: is the folder of an encoder"),
        ("adapter", "adapter: is the folder of an encoder"),
        ("hub", "hub: is a cache of models from the hub"),
        ("hub/models--owner--name", "hub/models--owner--name: is a cache of models from the hub"),
    ],
)
@pytest.mark.parametrize("words", [*(f"{words} {{}}" for words in OF_FOLDERS), *OF_FILES])
def test_folders_of_others_take_no_files(
    words: str, folder: str, message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = words.startswith("train") and folder in ("model", "stopped")
    if own or (words in OF_FILES and message.startswith("data: ")):
        return  # a training writes to its own folder, and files with names of their own may lie in a data folder
    before = contents(place)
    code, error = said(words.format(folder), capsys)
    assert code == 3
    assert f"- {message}" in error
    assert contents(place) == before


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
    before = contents(place)
    code, error = said(words, capsys)
    assert code == 3
    assert message in error
    assert contents(place) == before


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
        ("proteins.fa", "proteins.fa: is a file, not a data folder; give the path of the data folder"),
        ("data/viral.1.1.identified_protein.fa", "is a file, not a data folder; name data"),
        (f"{SPLIT}/output_1.fa", "is a file, not a data folder; name data"),
    ],
)
def test_what_is_no_data_folder_is_told(
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
