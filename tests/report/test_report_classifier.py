"""Classifiers in a report: found, described and compared with the folder; none of them can stop the page."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nucpro.classifier.card import ModelCard, read_training, write_training
from nucpro.classifier.model import Classifier, save
from nucpro.execution.workers import Workers
from nucpro.folder.kinds import CARD_NAME
from nucpro.folder.paths import DataFolder
from nucpro.formats.records import write_record
from nucpro.report.classifier import find_models
from nucpro.report.page import page
from nucpro.report.sample import Sample, read_sample
from nucpro.report.subject import Subject
from nucpro.state import history

ROWS = {"host": 30, "viral": 40}
PNG = b"\x89PNG\r\n\x1a\n and more"


def card(**changes: object) -> ModelCard:
    parts = {
        part: {"rows": {"host": 10, "viral": 12}, "groups": 2} for part in ("train", "validation", "test")
    }
    metrics = {
        "validation": {"accuracy": 0.75},
        "test": {"accuracy": 0.5, "auroc": 0.625, "mcc": 0.125, "calibration_error": 0.25},
        "test_intervals": {"accuracy": [0.25, 0.875], "auroc": None},
        "confusion": {"true_viral": 9, "false_viral": 4, "true_host": 6, "false_host": 3},
        "uncalibrated": {"calibration_error": 0.375},
    }
    values = {
        "data": {"files": 7, "rows": 70, "rows_by_class": ROWS, "genomes": 5},
        "split": {"by": "genome", **parts},
        "training": {"epochs": 10, "best_epoch": 8, "ended": "all 10 epochs were run"},
        "metrics": metrics,
        "calibration": {"temperature": 1.25, "threshold": 0.875, "precision_at": 0.9},
        "widths": {"dna": 16, "protein": 8},
    }
    return replace(ModelCard(24, 8), **(values | changes))


def put_model(folder: Path, of: Path, /, **changes: object) -> str:
    torch.manual_seed(0)
    folder.parent.mkdir(parents=True, exist_ok=True)
    digest = save(folder, Classifier(24, 8), card(**changes))
    (folder / "curves.png").write_bytes(PNG)
    write_training(folder, of, digest)
    history.record_model(DataFolder(of), folder)
    return digest


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with the names of seven merged files."""
    merged = tmp_path / "data" / "data_merge" / "viral.1.1_merged"
    merged.mkdir(parents=True)
    for number in range(7):
        (merged / f"output_{number}_merged.pt").touch()
    return tmp_path / "data"


@pytest.fixture(scope="module")
def sample(written: Subject) -> Sample:
    with Workers(1) as workers:
        return read_sample([state.pair for state in written.files], 20, workers)


def text_of(written: Subject, sample: Sample, data: Path) -> str:
    subject = replace(written, models=find_models(DataFolder(data), ROWS))
    return page(subject, sample, None)


def test_a_page_without_models_has_no_section(written: Subject, sample: Sample) -> None:
    assert 'id="classifier"' not in page(written, sample, None)


def test_a_model_is_shown_with_its_numbers_and_its_curves(
    written: Subject, sample: Sample, data: Path
) -> None:
    digest = put_model(data / "model", data)
    record = read_training(data / "model", digest)
    assert record is not None
    assert record.data == str(data.resolve())
    shown = text_of(written, sample, data)
    for text in (
        '<a href="#classifier">Classifier</a>',
        f"Trained: {record.time:%Y-%m-%d %H:%M} UTC, on DNA and protein columns (24) of 70 rows in 7 merged files "
        "from 5 genomes: 40 viral and 30 host.",
        "Split by genome: train 12 viral and 10 host; validation 12 viral and 10 host; test 12 viral and 10 host.",
        "Training: 10 epochs, the best one is 8; all 10 epochs were run.",
        "Threshold: 0.875, chosen for a precision of 0.9 on the validation part.",
        "Calibration: temperature 1.2500, fitted on the validation part; calibration error on the test part "
        "0.3750 before, 0.2500 after.",
        '<td>accuracy</td><td class="number">0.5000</td><td class="number">0.2500 to 0.8750</td>'
        '<td class="number">0.7500</td>',
        '<td>AUROC</td><td class="number">0.6250</td><td class="number">n/a</td>',
        '<td>viral rows</td><td class="number">3</td><td class="number">9</td>',
        f"data:image/png;base64,{base64.b64encode(PNG).decode()}",
    ):
        assert text in shown
    assert "another selection" not in shown


@pytest.mark.parametrize(
    ("calibration", "text"),
    [
        ({"precision_at": None, "threshold": 0.5}, "Threshold: 0.5, the default."),
        ({"precision_at": 0.99, "threshold": 0.5}, "Threshold: 0.5: no other reached a precision of 0.99 on"),
    ],
)
def test_the_threshold_says_where_it_comes_from(
    written: Subject, sample: Sample, data: Path, calibration: dict[str, object], text: str
) -> None:
    put_model(data / "model", data, calibration={"temperature": 1.0, **calibration})
    assert text in text_of(written, sample, data)


def test_leakage_is_told_in_the_words_of_the_card(written: Subject, sample: Sample, data: Path) -> None:
    put_model(
        data / "model", data, split={"by": "row", "leak": "3 of 3 test rows (100%) are of known genomes"}
    )
    assert "<li>Leakage: 3 of 3 test rows (100%) are of known genomes.</li>" in text_of(written, sample, data)


def test_a_model_without_a_record_shows_the_time_of_its_card(
    written: Subject, sample: Sample, data: Path
) -> None:
    put_model(data / "model", data)
    (data / "model" / "training.json").unlink()
    assert "UTC (time of model.json), on DNA" in text_of(written, sample, data)


def test_a_record_of_other_weights_is_no_record(data: Path) -> None:
    digest = put_model(data / "model", data)
    assert read_training(data / "model", "0" * 64) is None
    (data / "model" / "training.json").write_text('{"ended": "soon"}')
    assert read_training(data / "model", digest) is None


def test_models_elsewhere_are_found_by_the_history_the_latest_first(
    written: Subject, sample: Sample, data: Path, tmp_path: Path
) -> None:
    put_model(data / "model" / "fold_1", data)
    for name in ("old", "new"):
        put_model(tmp_path / name, data)
    put_model(data / "within", data)
    put_model(tmp_path / "gone", data)
    (tmp_path / "gone" / CARD_NAME).unlink()
    found = find_models(DataFolder(data), None)
    assert [model.name for model in found] == [
        "model/fold_1",
        "within",
        str(tmp_path / "new"),
        str(tmp_path / "old"),
    ]
    moved = data.rename(tmp_path / "moved")
    assert [model.name for model in find_models(DataFolder(moved), None)][:2] == ["model/fold_1", "within"]
    shown = text_of(written, sample, moved)
    assert "Models, on their test parts" in shown
    assert "<summary>within</summary>" in shown


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ({"files": 6}, "6 merged files, 40 viral and 30 host; now 7 merged files, 40 viral and 30 host."),
        (
            {"rows_by_class": {"host": 1, "viral": 2}},
            "7 merged files, 2 viral and 1 host; now 7 merged files, 40",
        ),
        ({"files": None, "rows_by_class": "many"}, "n/a merged files, an unknown number of rows; now 7"),
    ],
)
def test_a_model_of_another_selection_says_so_in_one_line(
    written: Subject, sample: Sample, data: Path, then: dict[str, object], now: str
) -> None:
    put_model(data / "model", data, data={**card().data, **then})
    assert f"Trained on another selection than that of the folder: {now}" in text_of(written, sample, data)


def test_a_model_of_other_encoders_says_so(written: Subject, sample: Sample, data: Path) -> None:
    meta = {"made_by": {"id": "some/model", "weights_sha256": "b" * 64}}
    known = replace(sample, metas=[(kind, meta, 1) for kind, _, _ in sample.metas])
    encoders = {
        "protein": {"id": "old/model", "weights_sha256": "a" * 64},
        "dna": {"weights_sha256": "b" * 64},
    }
    put_model(data / "model", data, encoders=encoders)
    shown = text_of(written, known, data)
    assert shown.count("Trained on protein vectors of old/model (weights aaaaaaaaaaaa…), but the folder") == 1
    assert "Trained on DNA vectors of" not in shown


def forged(**changes: object) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        content = json.loads((folder / CARD_NAME).read_text()) | changes
        del content["sha256"]
        write_record(folder / CARD_NAME, content)

    return write


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / CARD_NAME).write_bytes(b"\x89PNG"),
        lambda folder: (folder / CARD_NAME).write_text("[]"),
        lambda folder: (folder / CARD_NAME).write_text('{"model_type": "bert", "layers": 3}'),
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
        lambda folder: (folder / "model.safetensors").unlink(),
        forged(split={"train": 3}),
        forged(lengths={"300": {"test": "good"}}),
        forged(metrics=[1]),
        forged(sides=["rna"]),
    ],
)
def test_a_damaged_or_foreign_model_is_one_line(
    written: Subject, sample: Sample, data: Path, damage: Callable[[Path], None]
) -> None:
    put_model(data / "model", data)
    damage(data / "model")
    (found,) = find_models(DataFolder(data), ROWS)
    assert found.card is None
    assert found.problem.startswith(str(data / "model"))
    assert "\n" not in found.problem
    assert "train" in found.problem or "No such file" in found.problem
    shown = text_of(written, sample, data)
    assert shown.count('id="classifier"') == 1
    assert "Confusion matrix" not in shown


@pytest.mark.parametrize(
    "changes",
    [
        {
            "metrics": {
                "test": {"accuracy": "<b>"},
                "test_intervals": {"accuracy": "ab"},
                "confusion": {"true": []},
            }
        },
        {"metrics": {}, "data": {}, "split": {}, "training": {}},
        {
            "metrics": {"test": {"accuracy": float("nan"), "auroc": True}},
            "data": {"rows_by_class": {"viral": "<i>"}},
        },
        {"split": {"by": ["<b>"], "leak": {"<b>": 1}}, "training": {"ended": "<b>"}},
        {"lengths": {"<b>": {"frames": "<b>"}}},
        {"metrics": {"test": {"accuracy": 10**400}}},
    ],
)
def test_odd_values_of_a_card_are_text_or_not_shown(
    written: Subject, sample: Sample, data: Path, changes: dict[str, object]
) -> None:
    put_model(data / "model", data, **changes)
    shown = text_of(written, sample, data)
    section = shown[shown.index('id="classifier"') :].partition("</section>")[0]
    assert "<b>" not in section
    assert "<i>" not in section


def test_what_is_no_picture_is_left_out(data: Path) -> None:
    put_model(data / "model", data)
    (data / "model" / "curves.png").write_bytes(b"<svg onload=alert(1)>")
    (model,) = find_models(DataFolder(data), ROWS)
    assert model.curves == b""
