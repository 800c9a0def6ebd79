"""The classifier, its folder, and what is refused in place of one."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

from folders import copied
from models.test_weights_hostile import SAFETENSORS
from nucpro.classifier.card import WEIGHTS_NAME, ModelCard
from nucpro.classifier.model import Classifier, load, read_state, save
from nucpro.cli import main
from nucpro.errors import DataError, DimensionError, ModelError
from nucpro.folder.kinds import CARD_NAME, STATE_NAME
from nucpro.formats.records import write_record

CARD = ModelCard(24, 8, widths={"dna": 16, "protein": 8}, metrics={"validation": {"loss": 0.5}, "test": None})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    classifier = Classifier(24, 8)
    classifier.norm.running_mean += 3
    save(tmp_path / "model", classifier, CARD)
    return tmp_path / "model"


def edit_card(folder: Path, **changes: object) -> None:
    path = folder / CARD_NAME
    content = json.loads(path.read_text()) | changes
    del content["sha256"]
    write_record(path, {name: value for name, value in content.items() if value != "gone"})


def test_layers_are_those_of_virnucpro() -> None:
    classifier = Classifier(2048)
    shapes = {name: tuple(value.shape) for name, value in classifier.named_parameters()}
    assert shapes == {
        "hidden.weight": (512, 2048),
        "hidden.bias": (512,),
        "norm.weight": (512,),
        "norm.bias": (512,),
        "output.weight": (2, 512),
        "output.bias": (2,),
    }
    bound = (6 / (2048 + 512)) ** 0.5  # of xavier_uniform_
    assert classifier.hidden.weight.abs().max().item() == pytest.approx(bound, rel=0.001)
    assert classifier.dropout.p == 0.5


def test_what_is_read_is_what_was_written(folder: Path) -> None:
    classifier, card = load(folder)
    assert card == CARD
    assert not classifier.training
    torch.manual_seed(0)
    assert torch.equal(classifier.hidden.weight, Classifier(24, 8).hidden.weight)
    assert float(classifier.norm.running_mean[0]) == 3
    rows = torch.randn(5, 24)
    expected = torch.softmax(classifier(rows), dim=1)
    torch.testing.assert_close(classifier.probabilities(rows), expected.detach())


def test_equal_models_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "again", *load(folder))
    for name in (WEIGHTS_NAME, CARD_NAME):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(DimensionError, match="columns of the classifier's input: expected 24, found 23"):
        Classifier(24, 8)(torch.zeros(2, 23))


class Harmful:
    """What runs a program when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_pickled_model_is_refused_unopened(tmp_path: Path, as_folder: bool) -> None:
    path = tmp_path / "300_model.pth"
    path.write_bytes(pickle.dumps(Harmful(tmp_path / "harm")))
    with pytest.raises(ModelError) as refused:
        load(tmp_path if as_folder else path)
    assert str(refused.value) == (
        f"{path}: a pickled model, which can run any program when it is opened, so it is not opened; those of "
        "VirNucPro also take 3328 columns (ESM-2 3B beside DNABERT-S), merged files now have 2048; train a model "
        "with nucpro train DATA, and name the folder that it writes"
    )
    assert not (tmp_path / "harm").exists()


def test_a_file_that_is_no_folder_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.json: a file; a model is a folder with model\.safetensors"):
        load(folder / CARD_NAME)


def test_a_folder_without_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.json: .*No such file.*nucpro train DATA"):
        load(tmp_path)


def test_other_weights_than_the_cards_are_refused(folder: Path) -> None:
    torch.manual_seed(1)
    raw = safetensors.torch.save(Classifier(24, 8).state_dict())
    (folder / WEIGHTS_NAME).write_bytes(raw)
    with pytest.raises(ModelError, match=r"its SHA-256 is [0-9a-f]{12}…, not the one in model\.json"):
        load(folder)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    save(tmp_path, Classifier(20, 8), CARD)
    with pytest.raises(ModelError, match=r"'hidden\.weight': \(8, 20\).*expected .*\(8, 24\)"):
        load(tmp_path)


def test_a_card_takes_no_memory_that_its_weights_do_not_have(folder: Path) -> None:
    wide = 1 << 20  # 4 TiB of weights
    edit_card(folder, input_width=wide, hidden_width=wide, sides=["dna"], widths={"dna": wide})
    with pytest.raises(ModelError, match=r"'hidden\.weight': \(8, 24\).*expected .*\(1048576, 1048576\)"):
        load(folder)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    classifier = Classifier(24, 8)
    with torch.no_grad():
        classifier.output.bias[1] = float("nan")
    save(tmp_path, classifier, CARD)
    with pytest.raises(ModelError, match=r"output\.bias holds values that are not finite"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "is not a nucpro model card of format 1"),
        ({"widths": "gone"}, "missing or unknown entries: widths"),
        ({"colour": "red"}, "missing or unknown entries: colour"),
        ({"sides": "dna"}, "sides is dna, expected a list"),
        ({"widths": []}, r"widths is \[\], expected an object"),
        ({"input_width": -1}, "input_width is -1, expected 1 to 1048576"),
        ({"hidden_width": 1 << 40}, "hidden_width is 1099511627776, expected 1 to 1048576"),
        ({"dropout": 1.5}, "dropout is 1.5, expected 0 to 1"),
        (
            {"class_names": ["viral", "host"]},
            r"classes are \('viral', 'host'\), expected \('host', 'viral'\)",
        ),
        ({"sides": ["dna", "dna"]}, r"its sequence types are \('dna', 'dna'\), expected each once"),
        ({"lengths": {"short": {}}}, r"lengths is short, expected the form"),
        ({"data": {"digest": [1]}}, r"data\.digest is \[1\], expected text"),
        ({"split": {"by": "colour"}}, r"split\.by is colour, expected the form genome\|taxon"),
        ({"split": {"rank": "kingdom"}}, r"split\.rank is kingdom, expected the form species\|"),
        ({"split": {"fold": [6, 5]}}, r"split\.fold is 6 of 5"),
        ({"split": {"fold": 3}}, r"split\.fold is 3, expected a list"),
        ({"split": {"seed": True}}, r"split\.seed is true, expected a whole number"),
        ({"split": {"fractions": {"test": 1}}}, r"split\.fractions\.test is 1, expected"),
        (
            {"split": {"fractions": {"train": 0.1}}},
            r"split\.fractions is train, expected 'validation' or 'test'",
        ),
        ({"training": {"batch_size": 0}}, r"training\.batch_size is 0, expected 2 to"),
        (
            {"sides": ["dna"]},
            r"its sequence types \('dna',\) have \[16\] columns, not the 24 of input_width",
        ),
    ],
)
def test_a_card_that_cannot_be_right_is_refused(
    folder: Path, changes: dict[str, object], message: str
) -> None:
    edit_card(folder, **changes)
    with pytest.raises(ModelError, match=message):
        load(folder)


@pytest.mark.parametrize("name", SAFETENSORS)
def test_weights_that_are_no_tensors_are_refused(folder: Path, name: str) -> None:
    (folder / WEIGHTS_NAME).write_bytes(SAFETENSORS[name])
    edit_card(folder, weights_sha256=hashlib.sha256(SAFETENSORS[name]).hexdigest())
    with pytest.raises(ModelError, match=r"model\.safetensors: "):
        load(folder)


@pytest.mark.parametrize("name", SAFETENSORS)
def test_a_state_of_no_tensors_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / STATE_NAME).write_bytes(SAFETENSORS[name])
    with pytest.raises(
        DataError, match=r"training\.safetensors: cannot be read .*; start over with --replace"
    ):
        read_state(tmp_path)


def test_a_card_that_is_no_json_is_refused(folder: Path) -> None:
    (folder / CARD_NAME).write_text("{")
    with pytest.raises(ModelError, match=r"model\.json: cannot be read"):
        load(folder)


def test_models_without_a_split_are_not_compared(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = copied(folder, tmp_path / "other")
    assert main(["compare", str(folder), str(other), "--device", "cpu"]) == 3
    missing = (
        "model.json: does not record batch_size, by, seed, fractions, test_rows_sha256, so its test part"
    )
    shown = capsys.readouterr().err
    assert all(f"{path}/{missing}" in shown for path in (folder, other))
