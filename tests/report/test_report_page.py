"""Markup, charts and pictures of a report."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from nucpro.errors import UsageError
from nucpro.execution.workers import Workers
from nucpro.folder.paths import DataFolder
from nucpro.report import sections
from nucpro.report.charts import Markup, element, table, ticks
from nucpro.report.findings import map_data
from nucpro.report.geometry import describe
from nucpro.report.page import page
from nucpro.report.pictures import figures_of
from nucpro.report.sample import Sample, read_sample
from nucpro.report.subject import Output, Subject
from nucpro.report.writing import write_report
from nucpro.state.history import FAILED, INTERRUPTED, FileDone, Run
from report_folders import HOSTILE


@pytest.fixture(scope="module")
def sample(written: Subject) -> Sample:
    with Workers(1) as workers:
        return read_sample([state.pair for state in written.files], 100, workers)


def run_of(how: str | None, message: str = "", files: int = 3) -> Run:
    done = [FileDone(1000.0 + 2 * k, f"f{k}", 3.0, 10, 1000, 1020, 2.0) for k in range(1, files + 1)]
    return Run(
        1000.0,
        {"side": "protein"},
        stages=[("extract", 6.0)],
        files=done,
        ended=1010.0,
        how=how,
        message=message,
    )


def test_values_are_escaped_and_markup_is_not() -> None:
    shown = element("p", "<b>", Markup("<i></i>"), 3, title='"&', data_row=1, hidden=False, class_="x")
    assert shown == '<p title="&quot;&amp;" data-row="1" class="x">&lt;b&gt;<i></i>3</p>'
    assert "<td>&lt;x&gt;</td>" in table("t", ["a"], [["<x>"]])


def test_no_hostile_name_becomes_markup(written: Subject, sample: Sample) -> None:
    text = page(written, sample, describe(sample.vectors, sample.labels))
    for name in HOSTILE:
        assert "<" not in name or name not in text
    assert text.count("<script") == text.count("</script>") == 2
    assert "<i>" not in text


def test_the_data_of_the_map_hold_every_point(written: Subject, sample: Sample) -> None:
    geometry = describe(sample.vectors, sample.labels)
    text = map_data(sample, geometry)
    assert "<" not in text
    data = json.loads(text)
    assert data["ids"] == sample.ids
    assert data["files"] == [state.pair.key for state in written.files]
    assert data["categories"] == ["viral", "invertebrate", "bacteria"]
    assert json.loads(map_data(sample, None)) == {}


@pytest.mark.parametrize(
    ("how", "message", "text"),
    [
        (FAILED, "record x: broken", "The last run failed. 7 of 7 files are validated."),
        (INTERRUPTED, "", "The last run was interrupted. 7 of 7 files are validated."),
        ("done", "", "Validated: 7 files, "),
    ],
)
def test_the_first_sentence_says_how_things_stand(
    written: Subject, sample: Sample, how: str, message: str, text: str
) -> None:
    shown = page(replace(written, runs=[run_of(how, message)]), sample, None)
    assert text in shown
    assert message in shown


def test_what_is_missing_is_shown_first(written: Subject) -> None:
    states = list(written.files)
    states[-1] = replace(states[-1], output=Output.MISSING)
    shown = sections.validation(replace(written, files=states))
    assert shown.index("invertebrate.1.1.identified_nucleotide/") < shown.index(
        "viral.1.1.identified_nucleotide/"
    )


def test_many_files_are_counted_and_only_some_listed(written: Subject) -> None:
    shown = sections.validation(replace(written, files=[*written.files] * 100))
    assert "(300 of 700 are shown)" in shown
    assert shown.count("<tr>") < 310


def test_rates_are_those_of_the_recorded_files() -> None:
    shown = sections.rates(run_of("done"))
    assert "3 files, 30 sequences in 6.0 s: 5 sequences/s, 510 tokens/s" in shown
    assert "sequences/s" in shown
    assert "No run that made protein files" in sections.rates(None)
    assert "no curve" in sections.rates(run_of("done", files=1))


@pytest.mark.parametrize("options", [None, 3, ["device"], {}])
def test_the_options_of_a_run_may_be_anything(options: object) -> None:
    run = run_of("done")
    run.facts["options"] = options
    assert "on unknown device; 3 files" in sections.rates(run)


def test_a_long_run_is_drawn_with_a_bounded_number_of_points() -> None:
    shown = sections.rates(run_of("done", files=100_000))
    assert 100 < shown.count("L") < 400


def test_runs_that_did_not_end_by_themselves_are_counted(written: Subject) -> None:
    runs = [run_of(None), run_of(FAILED, "disk <full>"), run_of("done")]
    shown = sections.runs(replace(written, runs=runs))
    assert "3 runs made 9 files; 2 failed, or were interrupted or killed." in shown
    assert "killed, or still running" in shown
    assert "disk &lt;full&gt;" in shown


@given(st.floats(1e-6, 1e12))
def test_ticks_are_round_and_reach_up_to_the_highest(highest: float) -> None:
    found = ticks(highest)
    assert found[0] == 0
    assert 2 <= len(found) <= 6
    assert found[-1] <= highest * 1.000001
    assert found[-1] >= highest * 0.6


def test_pictures_have_300_dots_an_inch_and_go_when_there_is_nothing_to_show(written: Subject) -> None:
    with Workers(1) as workers:
        folder = write_report(written, workers).parent
        for name in ("map", "lengths", "throughput", "classes"):
            content = (folder / f"{name}.png").read_bytes()
            assert content[:8] == b"\x89PNG\r\n\x1a\n"
            assert struct.unpack(">II", content[16:24]) == (1650, 1260)
            assert b"<svg" in (folder / f"{name}.svg").read_bytes()
        write_report(replace(written, files=(), runs=()), workers)
    assert [path.name for path in folder.iterdir()] == ["report.html"]
    with Workers(1) as workers:
        write_report(written, workers)


def test_too_many_points_are_refused(tmp_path: Path) -> None:
    subject = Subject(DataFolder(tmp_path), (), "given", (), (), 0, ())
    with Workers(1) as workers, pytest.raises(UsageError, match="--points is 50001; allowed: 0 to 50000"):
        write_report(subject, workers, 50_001)
    assert not DataFolder(tmp_path).report.exists()


def drawn(fill: Callable[[Any], None]) -> str:
    """All texts of a figure, one per line."""
    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    fill(figure)
    figure.canvas.draw()
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def fill_of(name: str, subject: Subject, sample: Sample) -> Callable[[Any], None]:
    fill = figures_of(subject, sample, describe(sample.vectors, sample.labels))[name]
    assert fill is not None
    return fill


@pytest.mark.parametrize(
    ("elapsed", "unit"), [(2.0, "time (s)"), (100.0, "time (min)"), (5000.0, "time (h)")]
)
def test_the_time_of_throughput_has_a_unit_for_its_length(
    written: Subject, sample: Sample, elapsed: float, unit: str
) -> None:
    done = [FileDone(1000 + elapsed * k, f"f{k}", 1.0, 10, 1000, 1020, elapsed) for k in range(1, 4)]
    run = Run(1000.0, {"side": "protein"}, files=done, ended=1000 + 4 * elapsed, how="done")
    texts = drawn(fill_of("throughput", replace(written, runs=(run,)), sample))
    assert unit in texts
    assert f"mean: {10 / elapsed:,.0f} sequences/s" in texts
    assert "30 sequences in " in texts


def test_figures_say_what_they_show(written: Subject, sample: Sample) -> None:
    lengths = drawn(fill_of("lengths", written, sample))
    for text in (
        "Nucleotide sequences: ",
        "Protein sequences: ",
        "length (bases)",
        "length (residues)",
        "viral (40)",
    ):
        assert text in lengths
    assert "host (27)" in lengths
    classes = drawn(fill_of("classes", written, sample))
    for text in ("67 sequences: 59.7% viral", "40 in 4 files", "20 in 2 files", "viral (40)", "host (27)"):
        assert text in classes
    assert "PCA of 67 sequences" in drawn(fill_of("map", written, sample))


@pytest.mark.parametrize("lengths", [[300], [1, 2], [1, 10_000], list(range(298, 306)), [0, 5]])
def test_lengths_of_any_range_are_counted_in_whole_bins(
    written: Subject, sample: Sample, lengths: list[int]
) -> None:
    counts = {0: Counter(), 1: Counter(lengths)}
    odd = replace(sample, base_lengths=counts, residue_lengths=counts)
    texts = drawn(fill_of("lengths", written, odd))
    low, high = lengths[0], lengths[-1]
    assert f"Protein sequences: {f'all {low:,}' if low == high else f'{low:,} to {high:,}'} residues" in texts
    assert f"viral ({len(lengths):,})" in texts
