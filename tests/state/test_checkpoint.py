"""The record of what is done: cheap to extend, never believed alone, unharmed by damage."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tracemalloc
import zlib
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from nucpro.errors import StoreError
from nucpro.folder.paths import DataFolder
from nucpro.formats.sequences import SequenceType
from nucpro.state.checkpoint import Checkpoint, Fingerprint
from nucpro.state.recipe import Recipe


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    (tmp_path / "a.pt").write_bytes(b"abc")
    return DataFolder(tmp_path)


def test_a_fact_counts_while_the_file_is_as_it_was(folder: DataFolder) -> None:
    path = folder.root / "a.pt"
    with Checkpoint(folder) as checkpoint:
        checkpoint.add("vectors", path, {"x": 1})
        assert checkpoint.fact("vectors", path)["x"] == 1
        assert checkpoint.fact("merged", path) is None
    for change in (lambda: os.utime(path, ns=(1, 1)), lambda: path.write_bytes(b"abcd"), path.unlink):
        change()
        assert Checkpoint(folder).fact("vectors", path) is None


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_another_file(folder: DataFolder) -> None:
    path = folder.root / "a.pt"
    facts = path.stat()
    with Checkpoint(folder) as checkpoint:
        checkpoint.add("vectors", path, {})
    other = folder.root / "b.pt"
    other.write_bytes(b"xyz")
    os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    other.rename(path)
    assert Checkpoint(folder).fact("vectors", path) is None


def test_a_killed_run_loses_nothing_that_it_recorded(folder: DataFolder) -> None:
    path = folder.root / "a.pt"
    checkpoint = Checkpoint(folder)
    checkpoint.add("vectors", path, {"x": 1})
    checkpoint.complete(path)
    again = Checkpoint(folder)  # the first one was never closed nor folded
    assert again.fact("vectors", path)["x"] == 1
    assert again.completed == ["a.pt"]
    with folder.journal.open("ab") as journal:
        journal.write(b'{"vectors:a.pt":{"x":2')
    assert Checkpoint(folder).fact("vectors", path)["x"] == 1
    checkpoint.close()


def test_folding_keeps_everything_and_empties_the_journal(folder: DataFolder) -> None:
    path = folder.root / "a.pt"
    with Checkpoint(folder) as checkpoint:
        checkpoint.add("vectors", path, {"x": 1})
        checkpoint.complete(path)
        checkpoint.complete(path)
    assert not folder.journal.exists()
    content = json.loads(folder.checkpoint.read_text())
    assert content["completed_files"] == ["a.pt"]
    assert Checkpoint(folder).fact("vectors", path)["x"] == 1


def test_what_is_recorded_after_folding_is_kept_too(folder: DataFolder) -> None:
    path = folder.root / "a.pt"
    checkpoint = Checkpoint(folder)
    checkpoint.add("vectors", path, {"x": 1})
    checkpoint.fold()
    checkpoint.add("merged", path, {"y": 2})
    again = Checkpoint(folder)  # the first one was never closed nor folded again
    assert again.knows("vectors", path, x=1)
    assert again.knows("merged", path, y=2)
    checkpoint.close()


def test_facts_take_little_memory_and_stay_in_their_file(folder: DataFolder) -> None:
    path = folder.root / "a.pt"
    with Checkpoint(folder) as checkpoint:
        for number in range(5000):
            digests = dict.fromkeys(("digest", "ids_digest"), f"{number:064x}")
            checkpoint.add(f"kind{number}", path, {"records": 10**6 + number, "problems": [], **digests})
    size = folder.checkpoint.stat().st_size
    tracemalloc.start()
    try:
        again = Checkpoint(folder)
        held, reading = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        again.fold()
        _, writing = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The file that was read is replaced by now.
    for checkpoint in (again, Checkpoint(folder)):
        assert all(checkpoint.knows(f"kind{number}", path, records=10**6 + number) for number in range(5000))
    assert held < size / 5
    assert reading < size / 2
    assert writing < size / 2


def test_a_line_that_changed_since_it_was_read_counts_as_missing(folder: DataFolder) -> None:
    path = folder.root / "a.pt"
    with Checkpoint(folder) as checkpoint:
        for kind in ("one", "two", "three"):
            checkpoint.add(kind, path, {"x": 1})
    checkpoint = Checkpoint(folder)
    content = folder.checkpoint.read_bytes()
    with folder.checkpoint.open("r+b") as file:
        file.write(content.replace(b'"two:a.pt":{"x":1', b'"two:a.pt":{"x":2'))
    kinds = ("one", "two", "three")
    assert [checkpoint.knows(kind, path) for kind in kinds] == [True, False, True]
    checkpoint.fold()
    assert [Checkpoint(folder).knows(kind, path) for kind in kinds] == [True, False, True]
    with folder.checkpoint.open("r+b") as file:
        checkpoint = Checkpoint(folder)
        file.truncate()
    assert not any(checkpoint.knows(kind, path) for kind in kinds)


def test_a_checkpoint_in_one_line_as_earlier_versions_wrote_it_is_read(folder: DataFolder) -> None:
    path = folder.root / "a.pt"
    with Checkpoint(folder) as checkpoint:
        checkpoint.add("vectors", path, {"x": 1})
        checkpoint.complete(path)
    content = json.loads(folder.checkpoint.read_text())
    del content["sha256"]
    folder.checkpoint.write_text(sealed(content))
    with Checkpoint(folder) as checkpoint:
        assert checkpoint.knows("vectors", path, x=1)
        checkpoint.fold()
    again = Checkpoint(folder)
    assert again.knows("vectors", path, x=1)
    assert again.completed == ["a.pt"]


@pytest.mark.parametrize(
    "fact", [{"stamp": {"stamp": 1}}, {"a": {"stamp": [{"stamp": None}]}}, {"a": "{}"}, "{}", 3, None]
)
def test_facts_of_any_form_are_read_and_kept(folder: DataFolder, fact: object) -> None:
    folder.checkpoint.write_text(sealed({"format": 1, "facts": {"vectors:a.pt": fact, "split": {"x": 1}}}))
    with Checkpoint(folder) as checkpoint:
        assert checkpoint.fact("vectors", folder.root / "a.pt") is None
        assert checkpoint.sequences_per_file is None
        checkpoint.fold()
    kept = {"vectors:a.pt": fact} if isinstance(fact, dict) else {}
    assert json.loads(folder.checkpoint.read_text())["facts"] == {**kept, "split": {"x": 1}}


def test_recording_costs_one_line_however_much_is_known(folder: DataFolder) -> None:
    path = folder.root / "a.pt"
    checkpoint = Checkpoint(folder)
    sizes = []
    for number in range(1000):
        checkpoint.add(f"kind{number:04}", path, {})
        sizes.append(folder.journal.stat().st_size)
    steps = {after - before for before, after in pairwise(sizes)}
    assert len(steps) == 1
    checkpoint.close()


def test_files_are_listed_by_their_vectors_whatever_names_them(folder: DataFolder) -> None:
    fasta = folder.root / "sub" / "viral.1.1.identified_protein" / "output_3.fa"
    vectors = "sub/viral.1.1.identified_protein/output_3_ESM.pt"
    foreign = [
        "/x/viral.1.1.identified_protein/output_3.fa",
        "../y.identified_protein/output_1.fa",
        "output_1.fa",
    ]
    listed = [*foreign, "sub/viral.1.1.identified_protein/output_3.fa", vectors, "viral.1.1/output_3.fa", ""]
    folder.checkpoint.write_text(sealed({"format": 1, "completed_files": listed}))
    folder.journal.write_bytes(journal_line(b'{"completed":"p.identified_nucleotide/output_4.fa"}'))
    with Checkpoint(folder) as checkpoint:
        expected = [*foreign, vectors, "viral.1.1/output_3.fa", "", "p.identified_protein/output_4_ESM.pt"]
        assert checkpoint.completed == expected
        checkpoint.complete(fasta)
        checkpoint.complete(fasta.with_name("output_3_ESM.pt"))
        assert checkpoint.completed == expected
        checkpoint.restart([fasta])
        assert checkpoint.completed == [vectors]


@pytest.mark.parametrize("what", ["directory", "pipe", "link to nowhere"])
def test_something_else_of_the_name_of_the_checkpoint_is_kept(folder: DataFolder, what: str) -> None:
    if what == "directory":
        folder.checkpoint.mkdir()
        (folder.checkpoint / "a").write_text("x")
    elif what == "pipe":
        os.mkfifo(folder.checkpoint)
    else:
        folder.checkpoint.symlink_to("nowhere")
    (folder.root / ".extraction_checkpoint.kept-1.json").write_text("kept by an earlier run")
    before = os.lstat(folder.checkpoint).st_ino
    with Checkpoint(folder) as checkpoint:
        checkpoint.complete(folder.root / "a.pt")
    assert os.lstat(folder.root / ".extraction_checkpoint.kept-2.json").st_ino == before
    assert Checkpoint(folder).completed == ["a.pt"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\x80\x02}q\x00.",
        b"[" * 100_000,
        b'{"format": 1, "facts": 3}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_checkpoint_is_no_checkpoint(folder: DataFolder, content: bytes) -> None:
    folder.checkpoint.write_bytes(content)
    checkpoint = Checkpoint(folder)
    assert checkpoint.completed == []
    assert checkpoint.fact("vectors", folder.root / "a.pt") is None


def test_a_checkpoint_of_another_program_gives_its_time_only(folder: DataFolder) -> None:
    content = {"completed_files": ["a.pt"], "started_at": "2025-01-01T00:00:00", "last_update": "x"}
    folder.checkpoint.write_text(json.dumps(content))
    checkpoint = Checkpoint(folder)
    assert checkpoint.completed == []
    assert checkpoint.started_at == "2025-01-01T00:00:00"


def test_a_read_only_checkpoint_writes_nothing(folder: DataFolder) -> None:
    before = sorted(folder.root.iterdir())
    with Checkpoint(folder, read_only=True) as checkpoint:
        checkpoint.add("vectors", folder.root / "a.pt", {})
        assert checkpoint.fact("vectors", folder.root / "a.pt") is not None
    assert sorted(folder.root.iterdir()) == before


def test_the_recipe_of_each_sequence_type_is_remembered(folder: DataFolder) -> None:
    protein, dna = Recipe("protein", {"a": 1}, 16), Recipe("dna", {"b": None}, 768)
    with Checkpoint(folder) as checkpoint:
        assert checkpoint.recipe_of(SequenceType.DNA) is None
        checkpoint.remember_recipe(protein)
        checkpoint.remember_recipe(dna)
    again = Checkpoint(folder)
    assert (again.recipe_of(SequenceType.PROTEIN), again.recipe_of(SequenceType.DNA)) == (protein, dna)


def test_a_missing_file_has_no_stamp(tmp_path: Path) -> None:
    assert Fingerprint.of(tmp_path / "no") is None
    assert Fingerprint.of(tmp_path / "no" / "no") is None


def test_a_recipe_ignores_names_but_not_weights_or_options() -> None:
    one = Recipe("protein", {"id": "a", "revision": "1", "weights_sha256": "w", "precision": "fp16"}, 16)
    renamed = Recipe("protein", {"id": "b", "revision": None, "weights_sha256": "w", "precision": "fp16"}, 16)
    assert one.key == renamed.key
    # Recorded by every run: another key would make all files of earlier versions stale.
    assert Recipe("protein", {"id": "a", "pooling": "mitte ü"}, 16).key[:16] == "097fd6880a75e638"
    assert renamed.difference(one.meta("i", 3), "i") is None
    other = Recipe("protein", {"id": "a", "revision": "1", "weights_sha256": "w", "precision": "fp32"}, 16)
    assert other.key != one.key
    assert other.difference(one.meta("i", 3), "i") == "was made with precision = fp16, not fp32"
    assert one.difference(one.meta("i", 3), "j") == "was made from another FASTA"
    assert one.difference({"format": 99}, "i") == "was made by another version of the format"
    assert one.difference({**one.meta("i", 3), "width": 7}, "i") == "is 7 wide, not 16"


def journal_line(body: bytes) -> bytes:
    """Line as the journal holds it: checksum and document."""
    return b"%08x %s" % (zlib.crc32(body), body)


def sealed(content: object) -> str:
    """Checkpoint as it lies on disk: the digest of the document is its first value."""
    document = json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"
    return f'{{"sha256":"{hashlib.sha256(document.encode()).hexdigest()}",{document[1:]}'


SEALED = sealed({"format": 1, "completed_files": ["a.pt"]})


def test_a_stamp_holds_size_time_and_inode(folder: DataFolder) -> None:
    path = folder.root / "a.pt"
    facts = path.stat()
    stamp = Fingerprint.of(path)
    assert stamp == Fingerprint(3, facts.st_mtime_ns, facts.st_ino)
    assert stamp.as_list() == [3, facts.st_mtime_ns, facts.st_ino]


def test_the_checkpoint_is_a_document_of_five_parts(folder: DataFolder) -> None:
    path = folder.root / "ü b.pt"
    path.write_bytes(b"")
    with Checkpoint(folder) as checkpoint:
        checkpoint.add("vectors", path, {"x": 1})
        checkpoint.complete(path)
        line = folder.journal.read_bytes().split(b"\n")[1]
    assert line == journal_line('{"completed":"ü b.pt"}'.encode())
    text = folder.checkpoint.read_text(encoding="utf-8")
    content = json.loads(text)
    digest = content.pop("sha256")
    assert text.startswith(f'{{"sha256":"{digest}",')
    assert hashlib.sha256(text.replace(f'"sha256":"{digest}",', "").encode()).hexdigest() == digest
    stamp = Fingerprint.of(path).as_list()
    assert text.splitlines()[1:] == [f'"vectors:ü b.pt":{{"x":1,"stamp":{stamp}}}'.replace(", ", ","), "}}"]
    assert list(content) == ["format", "started_at", "last_update", "completed_files", "facts"]
    assert (content["format"], content["completed_files"]) == (1, ["ü b.pt"])
    for moment in (content["started_at"], content["last_update"]):
        assert datetime.fromisoformat(moment).utcoffset() == timedelta(0)
    again = Checkpoint(folder)
    assert (again.completed, again.started_at) == (["ü b.pt"], content["started_at"])
    again.complete(path)
    assert again.completed == ["ü b.pt"]
    assert not folder.journal.exists()


def test_a_journal_without_a_checkpoint_is_enough(folder: DataFolder) -> None:
    path, recipe = folder.root / "a b.pt", Recipe("protein", {"a": 1}, 16)
    path.write_bytes(b"x")
    checkpoint = Checkpoint(folder)
    checkpoint.add("vectors", path, {"x": "a b"})
    checkpoint.complete(path)
    checkpoint.remember_recipe(recipe)
    checkpoint.close()
    assert not folder.checkpoint.exists()
    again = Checkpoint(folder)
    assert again.fact("vectors", path)["x"] == "a b"
    assert again.completed == ["a b.pt"]
    assert again.recipe_of(SequenceType.PROTEIN) == recipe
    again.complete(path)
    assert folder.journal.read_bytes().count(b"completed") == 1


@pytest.mark.parametrize("size", [True, 0, -1, 1.5, "4", None, [4], 10**20])
def test_a_size_of_split_files_that_is_no_count_is_none(folder: DataFolder, size: object) -> None:
    folder.journal.write_bytes(
        journal_line(json.dumps({"split": {"sequences_per_file": size}}).encode()) + b"\n"
    )
    assert Checkpoint(folder).sequences_per_file is None


def test_lines_of_a_journal_that_mean_nothing_are_left_out(folder: DataFolder) -> None:
    bodies = [
        b'{"completed":5}',
        b'{"other":"a.pt"}',
        b"[1]",
        b"{",
        b"",
        b'{"completed":"b"}',
        b'{"completed":"b"}',
    ]
    lines = [*map(journal_line, bodies), b"", b'{"completed":"c"}', b'00000000 {"completed":"d"}']
    folder.journal.write_bytes(b"\n".join(lines))
    checkpoint = Checkpoint(folder)
    assert checkpoint.completed == ["b"]


def test_the_list_of_completed_files_can_be_replaced(folder: DataFolder) -> None:
    one, two = folder.root / "a.pt", folder.root / "b.pt"
    with Checkpoint(folder) as checkpoint:
        checkpoint.complete(one)
        checkpoint.restart([two])
        assert checkpoint.completed == ["b.pt"]
        checkpoint.complete(two)
        checkpoint.complete(one)
    assert Checkpoint(folder).completed == ["b.pt", "a.pt"]


def test_a_checkpoint_is_folded_only_where_something_was_recorded(folder: DataFolder) -> None:
    with Checkpoint(folder):
        pass
    assert not folder.checkpoint.exists()
    folder.journal.write_bytes(journal_line(b'{"completed":"b"}') + b"\n")
    with Checkpoint(folder, read_only=True) as checkpoint:
        assert checkpoint.completed == ["b"]
    assert not folder.checkpoint.exists()
    folder.journal.unlink()
    checkpoint.fold()
    assert json.loads(folder.checkpoint.read_text())["completed_files"] == ["b"]


@pytest.mark.parametrize("listed", [3, "ab", None, {"a": 1}])
def test_parts_of_another_form_count_as_nothing(folder: DataFolder, listed: object) -> None:
    content = {"format": 1, "started_at": 5, "completed_files": listed, "facts": listed}
    folder.checkpoint.write_text(sealed(content))
    checkpoint = Checkpoint(folder)
    assert checkpoint.completed == []
    assert isinstance(checkpoint.started_at, str)
    folder.checkpoint.write_text(sealed({"format": 1}))
    assert Checkpoint(folder).completed == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (SEALED, None),
        (SEALED.replace('"a.pt"', '"b.pt"'), "is damaged"),
        (SEALED.rstrip("\n"), "is damaged"),
    ],
)
def test_a_damaged_checkpoint_is_reported(
    folder: DataFolder, text: str, what: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    folder.checkpoint.write_text(text)
    with caplog.at_level(logging.WARNING):
        checkpoint = Checkpoint(folder)
    expected = [f"{folder.checkpoint} {what}; all files are checked by their contents"] if what else []
    assert caplog.messages == expected
    assert checkpoint.completed == ([] if what else ["a.pt"])


def test_an_error_is_shown_before_that_of_the_checkpoint(
    folder: DataFolder, caplog: pytest.LogCaptureFixture
) -> None:
    def stopped_by(error: Exception | None) -> None:
        with Checkpoint(folder) as checkpoint:
            checkpoint.complete(folder.root / "a.pt")
            folder.checkpoint.mkdir()  # nothing can be renamed to its name
            if error is not None:
                raise error

    with pytest.raises(KeyError, match="first"):
        stopped_by(KeyError("first"))
    (message,) = caplog.messages
    assert message.startswith(f"{folder.checkpoint}: cannot be written: Is a directory; ")
    folder.checkpoint.rmdir()
    folder.journal.rename(folder.root / "kept")
    with pytest.raises(StoreError, match="cannot be written: Is a directory"):
        stopped_by(None)
    assert folder.journal.read_bytes() == (folder.root / "kept").read_bytes()
