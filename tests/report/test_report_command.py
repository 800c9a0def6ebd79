"""The report as a user gets it: at the end of a run, and on request."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from folders import arguments, contents, copied
from nucpro.cli import main
from nucpro.folder.paths import DataFolder
from nucpro.report import writing

PASSED = "Validation passed: 6 files, 24 sequences, all dimensions correct"


def with_report(data: Path, model: Path, *more: str) -> list[str]:
    return [part for part in arguments(data, model, *more) if part != "--no-report"]


def report_of(data: Path) -> str:
    return (DataFolder(data).report / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, pristine: Path, model: Path) -> Path:
    data = copied(pristine, tmp_path_factory.mktemp("reported") / "data")
    assert main(["extract", *with_report(data, model)]) == 0
    return data


def test_a_run_ends_with_a_report_and_the_known_last_line(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["extract", *with_report(data, model)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == PASSED
    page = DataFolder(data).report / "report.html"
    assert any(line.startswith(f"Report: {page} (24 sequences of 6 files; read in ") for line in lines)
    text = report_of(data)
    assert "Validated: 6 files, 24 sequences, all dimensions correct." in text
    assert "12 viral and 12 host sequences (50.0% viral)" in text
    assert "killed" not in text
    assert "weights sha256" in text
    assert {path.name for path in page.parent.iterdir()} == {
        "report.html",
        *(
            f"{name}.{form}"
            for name in ("map", "lengths", "throughput", "classes")
            for form in ("png", "svg")
        ),
    }


def test_a_report_changes_nothing_else_and_is_never_input(
    finished: Path, model: Path, tmp_path: Path
) -> None:
    data = copied(finished, tmp_path / "data")
    before = contents(data)
    assert main(["report", str(data), "--sequences-per-file", "4"]) == 0
    assert main(["extract", *arguments(data, model)]) == 0
    assert contents(data) == before
    assert "2 runs made 6 files" in _again(data)


def _again(data: Path) -> str:
    assert main(["report", str(data), "--sequences-per-file", "4"]) == 0
    return report_of(data)


def test_no_report_leaves_none(data: Path, model: Path) -> None:
    assert main(["extract", *arguments(data, model)]) == 0
    assert not DataFolder(data).report.exists()


def test_the_script_writes_it_too(data: Path, model: Path) -> None:
    script = Path(__file__).resolve().parents[2] / "scripts" / "extract_training_data.py"
    done = subprocess.run(
        [sys.executable, script, *with_report(data, model)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == PASSED
    assert "Validated: 6 files" in report_of(data)


def test_without_the_extra_a_run_says_so_in_one_line_and_succeeds(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(writing._PACKAGES, "no_such_package", "no-such-package")
    assert main(["extract", *with_report(data, model)]) == 0
    output = capsys.readouterr()
    assert "No report: no-such-package not installed (pip install 'nucpro[report]')" in output.out
    assert output.out.splitlines()[-1] == PASSED
    assert not DataFolder(data).report.exists()
    assert main(["report", str(data), "--sequences-per-file", "4"]) == 2
    assert "a report needs no-such-package, not installed here: pip install 'nucpro[report]'" in (
        capsys.readouterr().err
    )


def test_a_folder_that_cannot_take_the_report_does_not_fail_the_run(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    DataFolder(data).report.write_text("in the way")
    assert main(["extract", *with_report(data, model)]) == 0
    output = capsys.readouterr()
    assert f"No report: {DataFolder(data).report}" in output.err
    assert output.out.splitlines()[-1] == PASSED


def test_a_run_that_fails_validation_leaves_a_page_that_says_so(
    finished: Path, model: Path, tmp_path: Path
) -> None:
    data = copied(finished, tmp_path / "data")
    old = data / "viral.1.1.identified_protein" / "output_9_ESM.pt"
    old.write_bytes(b"not a vector file")
    assert main(["extract", *with_report(data, model)]) == 1
    text = report_of(data)
    assert "1 problem found, listed below." in text
    assert "output_9_ESM.pt: outside the selection and cannot be read" in text


def test_damage_shows_and_the_rest_is_still_drawn(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["extract", *arguments(data, model)]) == 0
    merged = sorted(data.rglob("*_merged.pt"))
    merged[0].write_bytes(b"damaged")
    merged[1].unlink()
    text = _again(data)
    assert "4 of 6 files are validated; nucpro extract DATA makes and validates the rest." in text
    assert "Not in the sample" in text
    assert "(16 sequences of 4 files" in capsys.readouterr().out


def test_a_folder_without_files_has_a_page_of_its_runs(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["extract", *arguments(data, model, "--no-report")]) == 0
    for path in data.iterdir():
        if not path.name.startswith("."):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert main(["report", str(data)]) == 0
    shown = "Warning: the page shows no files: no *identified_nucleotide.fa with records was found"
    assert shown in capsys.readouterr().err
    text = report_of(data)
    assert "no *identified_nucleotide.fa with records was found below the data folder" in text
    assert "too few for a map" in text


def test_a_folder_before_its_first_run_has_a_page(data: Path) -> None:
    text = _again(data)
    assert "0 of 6 files are validated; " in text
    assert "12 viral and 12 host sequences" in text


def test_a_folder_with_nothing_to_show_says_so(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (*data.rglob("*_ESM.pt"), *data.rglob("*_merged.pt")):
        path.unlink()
    assert main(["report", str(data), "--sequences-per-file", "4"]) == 3
    assert capsys.readouterr().err == (
        f"1 problem found; nothing was changed:\n  - {data}: no run is recorded here, and there are no vectors "
        "to show; nothing was written\n"
    )
    assert not DataFolder(data).report.exists()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "nowhere")]) == 3
    assert "no such folder" in capsys.readouterr().err


def test_a_run_with_nothing_to_do_keeps_the_report_of_the_last_one(
    finished: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = copied(finished, tmp_path / "data")
    page = DataFolder(data).report / "report.html"
    before = page.stat().st_mtime_ns
    assert main(["extract", *with_report(data, model)]) == 0
    assert page.stat().st_mtime_ns == before
    assert "Report: " not in capsys.readouterr().out
    shutil.rmtree(page.parent)
    assert main(["extract", *with_report(data, model)]) == 0
    assert page.is_file()


def test_a_report_that_shows_files_is_not_replaced_by_one_that_shows_none(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = copied(finished, tmp_path / "data")
    before = {path: path.read_bytes() for path in DataFolder(data).report.iterdir()}
    assert main(["report", str(data), "--sequences-per-file", "10000"]) == 3
    said = capsys.readouterr().err
    assert "data_merge: 6 merged files, and the report would show none; nothing was written" in said
    shutil.rmtree(data / "data_merge")
    assert main(["report", str(data), "--sequences-per-file", "10000"]) == 3
    assert "holds a report that shows files, and this one would show none" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in DataFolder(data).report.iterdir()} == before


def test_a_report_of_a_folder_that_cannot_be_written_goes_elsewhere(finished: Path, tmp_path: Path) -> None:
    data = copied(finished, tmp_path / "data")
    shutil.rmtree(DataFolder(data).report)
    before = sorted(data.rglob("*"))
    output = tmp_path / "pages" / "today"
    assert main(["report", str(data), "--points", "10", "-o", str(output)]) == 0
    assert "report.html" in {path.name for path in output.iterdir()}
    assert sorted(data.rglob("*")) == before


def test_a_report_replaces_only_a_report(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pages"
    out.mkdir()
    command = ["report", str(finished), "-o", str(out), "--sequences-per-file", "4"]
    names = ("report.html", "map.png", "classes.svg")
    for name in names:
        (out / name).write_text("mine")
        assert main(command) == 3
        said = f"{out / name}: exists, and there is no record that this command wrote it"
        assert said in capsys.readouterr().err
        assert {path.name: path.read_bytes() for path in out.iterdir()} == {name: b"mine"}
        (out / name).unlink()
    for name in names:
        (out / name).write_text("mine")
    assert main([*command, "--replace"]) == 0
    assert main(command) == 0


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_read(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Not even root can make files there.
    assert main(["report", str(finished), "-o", "/proc/pages", "--sequences-per-file", "4"]) == 3
    assert "1 problem found; nothing was changed:\n  - /proc: cannot be written (" in capsys.readouterr().err


def test_a_layout_that_cannot_be_had_is_refused_and_the_report_stays(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "pages"
    command = ["report", str(finished), "-o", str(out)]
    with pytest.raises(SystemExit):
        main([*command, "--layout", "tsne"])
    assert "invalid choice: 'tsne'" in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name != "umap" or None)
    assert main([*command, "--layout", "umap"]) == 2
    needed = "--layout umap needs umap-learn, not installed here: pip install 'nucpro[maps]'"
    assert needed in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    assert main([*command, "--layout", "umap"]) == 3
    assert "--layout umap needs 51 sequences with merged vectors" in capsys.readouterr().err
    assert not out.exists()
