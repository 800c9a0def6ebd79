"""Names of records and files cannot steer a terminal, forge lines or turn the direction of writing."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucpro.cli import main
from nucpro.cli.console import console, say
from nucpro.errors import (
    DataError,
    FastaError,
    PreflightError,
    StoreError,
    first_few,
    is_plain,
    printable,
)
from nucpro.folder.paths import DataFolder
from nucpro.formats import write_vectors
from nucpro.formats.fasta import read
from nucpro.formats.sequences import DNA_WIDTH, SequenceType
from pairs import NAMES, make_pair, numbered

CLEAR = "\x1b[2J\x1b[1;1H"
HOSTILE = [
    f"{CLEAR}x",
    "\x1b]0;title\x07",
    "\x9b31mred",
    "bell\x07",
    "over\rwritten",
    "back\x08space",
    "\u202egnp.exe",
    "\u2066x\u2069",
    "two\u2028lines",
    "nul\0",
    "\x7f",
    "half\ud800",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_written_as_escapes(name: str) -> None:
    assert not is_plain(name)
    shown = printable(name)
    assert is_plain(shown)
    assert shown.isprintable()
    assert shown.encode().decode("unicode_escape", "surrogatepass") == name


@pytest.mark.parametrize(
    "name", ["NC_001416.1_0_300_frame1", "näme", "数据", "a b", "[red]x[/red]", "<b>", "👩‍🔬", "a\\x1b"]
)
def test_plain_names_stay_as_they_are(name: str) -> None:
    assert is_plain(name)
    assert printable(name) == name


@given(st.text(st.characters()))
def test_text_that_was_made_printable_stays_as_it_is(text: str) -> None:
    shown = printable(text)
    assert printable(shown) == shown
    assert all(is_plain(line) for line in shown.split("\n"))
    assert shown.count("\n") == text.count("\n")


def test_errors_show_nothing_that_steers_a_terminal() -> None:
    error = PreflightError([f"{CLEAR}a.fa: missing", "b"])
    assert str(error).splitlines() == [
        "2 problems found; nothing was changed:",
        r"  - \x1b[2J\x1b[1;1Ha.fa: missing",
        "  - b",
    ]
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(DataError(f"outer: {DataError(CLEAR)}")) == r"outer: \x1b[2J\x1b[1;1H"


@pytest.mark.parametrize(
    "name", [name for name in HOSTILE if "\ud800" not in name and name.split()[0] == name]
)
def test_an_id_with_controls_is_no_id(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.fa"
    path.write_bytes(b">good\nMK\n>" + name.encode() + b"\nMK\n")
    with pytest.raises(FastaError) as caught:
        read(path)
    assert str(caught.value) == (
        f"{path}: the id of record 2 holds control characters: {name!a}; remove them from its header"
    )


@pytest.mark.parametrize("name", [*HOSTILE, "line\nfeed"])
def test_ids_with_controls_are_no_ids_of_a_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        write_vectors(tmp_path / "a.pt", ["good", name], numbered(2, 3), None, SequenceType.DNA)
    assert f"a.pt: id of row 1 holds control characters: {name!a}; " in str(caught.value)


@pytest.mark.parametrize("name", [b"viral\x1b[2J", b"viral\nExtracted", b"viral\xff"])
def test_a_source_whose_name_cannot_be_shown_is_refused(name: bytes, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(name + b".identified_nucleotide.fa")).write_bytes(b">a\nA\n")
    with pytest.raises(PreflightError) as caught:
        DataFolder(tmp_path).walk_sources()
    assert str(caught.value).endswith(
        "the path holds control characters or is not UTF-8; rename the file or its folder"
    )
    assert "1 problem found" in str(caught.value)


def test_neither_console_nor_log_file_carries_escapes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("nucpro.somewhere")
    # Half a letter cannot be logged under pytest-xdist: it sends the log of each test to another process as UTF-8.
    names = [name for name in HOSTILE if "\ud800" not in name]
    with console(tmp_path / "run.log"):
        for name in names:
            logger.info("Extracted %s", name)
            logger.warning("%s: careful", name)
            say(name)
        try:
            raise ValueError(CLEAR)
        except ValueError:
            logger.exception("first line\nsecond line %s", CLEAR)
    shown = capsys.readouterr()
    for text in (shown.out, shown.err, (tmp_path / "run.log").read_text("utf-8")):
        assert all(is_plain(line) for line in text.split("\n"))
    assert shown.out.count("\n") == 2 * len(names)
    lines = shown.err.split("\n")
    assert r"Warning: \x1b[2J\x1b[1;1Hx: careful" in lines
    assert r"second line \x1b[2J\x1b[1;1H" in lines


def test_a_run_over_hostile_names_shows_none_of_them_raw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / f"data{CLEAR}dir"
    pair = make_pair(data)
    assert main(["status", str(data), "--sequences-per-file", "3"]) == 0
    write_vectors(pair.dna_vectors, ["[red]a", *NAMES[1:]], numbered(3, DNA_WIDTH), None, SequenceType.DNA)
    assert main(["validate", str(data), "--sequences-per-file", "3"]) == 1
    pair.protein_fasta.write_text(f">a{CLEAR}\nMK\n" * 3)
    assert main(["validate", str(data), "--sequences-per-file", "3"]) == 1
    shown = capsys.readouterr()
    assert all(is_plain(line) for line in (shown.out + shown.err).split("\n"))
    assert "surplus (first ['[red]a'])" in shown.err
    assert r"holds control characters: 'a\x1b[2J\x1b[1;1H'" in shown.err


@pytest.mark.parametrize(
    ("names", "line"),
    [([], ""), (["a"], "a"), (["a", "b"], "a, b"), (["a", "b", "c"], "a, b and 1 more")],
)
def test_many_names_are_counted_not_listed(names: list[str], line: str) -> None:
    assert first_few(names, 2) == line
