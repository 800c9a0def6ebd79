"""Records beside the data: equal content gives equal bytes, what they say is checked, and a change of it shows."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from nucpro.errors import RecordError
from nucpro.formats import file_digest
from nucpro.formats.records import (
    Count,
    Digest,
    Name,
    Within,
    decoded,
    document,
    parsed,
    read_record,
    unsealed,
    write_record,
)

CONTENT = {"viral": ["sub/viräl.1.1 · a"], "count": 2, "by": {"b": 1, "a": 2}}


def test_a_record_is_written_as_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    written = write_record(path, CONTENT)
    assert unsealed(path.read_bytes()) == (CONTENT, True)
    assert path.read_bytes() == document(CONTENT)
    assert "viräl" in path.read_text(encoding="utf-8")
    assert written.digest == file_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert unsealed(document(CONTENT, compact=True)) == (CONTENT, True)
    assert document(CONTENT, compact=True).count(b"\n") == 1


def test_sorted_records_do_not_depend_on_the_order_of_their_content() -> None:
    other = dict(reversed(CONTENT.items())) | {"by": {"a": 2, "b": 1}}
    assert document(other) != document(CONTENT)
    assert document(other, sort_keys=True) == document(CONTENT, sort_keys=True)


@pytest.mark.parametrize("raw", [b"", b"{", b"[1]", b"3", b"\xff", b"[" * 100_000, document(CONTENT)[:-3]])
def test_what_is_damaged_says_nothing(raw: bytes) -> None:
    assert parsed(raw) == {}


def test_a_checksum_fits_only_what_was_said() -> None:
    plain = json.loads(document(CONTENT))
    for change in ({"count": 3}, {"viral": []}, {"more": None}, {"sha256": "0" * 64}, {"sha256": 1}):
        with pytest.raises(ValueError, match="its checksum does not match"):
            unsealed(json.dumps({**plain, **change}).encode())


@dataclass(frozen=True)
class Inner:
    name: Name
    sha256: Digest | None


@dataclass(frozen=True)
class Outer:
    """One value of each kind that records hold."""

    format: Literal[1]
    count: Count
    share: Annotated[float, Within(0, 1)]
    is_done: bool
    inner: Inner
    shape: tuple[int, str]
    rows: list[Annotated[int, Within(0, 5)]] = field(default_factory=list)
    by: Mapping[str, Count | None] = field(default_factory=dict)
    free: Any = None


GOOD: dict[str, Any] = {
    "format": 1,
    "count": 7,
    "share": 0.5,
    "is_done": True,
    "inner": {"name": "a", "sha256": "0" * 64},
    "shape": [1, "x"],
    "rows": [0, 5, 3],
    "by": {"a": 1, "b": None},
}


def test_a_record_comes_back_as_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    assert read_record(path, Outer, "it", "remedy") is None
    write_record(path, GOOD)
    kept = read_record(path, Outer, "it", "remedy")
    assert kept is not None
    assert kept.is_sealed
    assert kept.content == Outer(
        1, 7, 0.5, True, Inner("a", "0" * 64), (1, "x"), [0, 5, 3], {"a": 1, "b": None}
    )
    path.write_text(json.dumps(GOOD))
    plain = read_record(path, Outer, "it", "remedy")
    assert plain is not None
    assert (plain.content, plain.is_sealed) == (kept.content, False)
    write_record(path, kept.content)
    assert read_record(path, Outer, "it", "remedy") == kept


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format is 2, expected 1"),
        ({"format": True}, "format is true, expected 1"),
        ({"count": True}, "count is true, expected a whole number"),
        ({"count": 1.0}, "count is 1.0, expected a whole number"),
        ({"count": -1}, "count is -1, expected 0 to 9007199254740992"),
        ({"count": 10**400}, "count is 1000"),
        ({"count": None}, "count is null, expected a whole number"),
        ({"share": 1.5}, "share is 1.5, expected 0 to 1"),
        ({"share": float("nan")}, "share is NaN, expected a finite number"),
        ({"share": float("inf")}, "share is Infinity, expected a finite number"),
        ({"share": 10**400}, "share is 1000"),
        ({"share": "0.5"}, "share is 0.5, expected a number"),
        ({"is_done": 1}, "is_done is 1, expected true or false"),
        ({"inner": []}, "inner is [], expected an object"),
        ({"inner": {"name": "a"}}, "inner has missing or unknown entries: sha256"),
        ({"inner": {"name": "", "sha256": None}}, "inner.name is , expected a length of 1 to 4096"),
        ({"inner": {"name": "x" * 5000, "sha256": None}}, "…, expected a length of 1 to 4096"),
        ({"inner": {"name": "a", "sha256": "A" * 64}}, "expected the form [0-9a-f]{64}"),
        ({"inner": {"name": "\ud800", "sha256": None}}, "expected text"),
        ({"shape": [1]}, "shape is [1], expected 2 values"),
        ({"shape": {"0": 1}}, "expected a list"),
        ({"rows": [0, 6]}, "rows[1] is 6, expected 0 to 5"),
        ({"rows": [0, "1"]}, "rows[1] is 1, expected a whole number"),
        ({"rows": 3}, "rows is 3, expected a list"),
        ({"by": {"a": "x"}}, "by.a is x, expected a whole number"),
        ({"by": 1}, "by is 1, expected an object"),
        ({"extra": 1}, "it has missing or unknown entries: extra"),
    ],
)
def test_what_fits_its_checksum_but_not_its_kind_is_refused(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(json.dumps({**GOOD, **change}).encode())
    with pytest.raises(RecordError) as unsealed_error:
        read_record(path, Outer, "the record", "do this")
    try:
        write_record(path, {**GOOD, **change})
    except UnicodeEncodeError:
        return
    with pytest.raises(RecordError) as sealed_error:
        read_record(path, Outer, "the record", "do this")
    assert str(sealed_error.value) == str(unsealed_error.value)
    message = str(sealed_error.value)
    assert message.startswith(f"{path}: the record is damaged (")
    assert said in message
    assert message.endswith("); do this")
    assert len(message) < 600


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "it is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[]", "it holds [], expected an object"),
        (b'{"a":' * 100_000, "is nested too deeply"),
        (b'{"count":' + b"9" * 5000 + b"}", "is not JSON"),
    ],
)
def test_what_is_no_record_is_refused_in_one_line(raw: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(raw)
    with pytest.raises(RecordError) as error:
        read_record(path, Outer, "the record", "do this")
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r".") if raw != b"[]" else pytest.raises(AssertionError):
        assert decoded(raw) != []


def test_a_record_is_a_regular_file_and_not_endless(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    os.mkfifo(path)
    with pytest.raises(RecordError, match="is a pipe, not a regular file"):
        read_record(path, Outer, "the record", "do this")
    path.unlink()
    path.symlink_to("gone")
    with pytest.raises(RecordError, match="is a link to gone, which does not exist"):
        read_record(path, Outer, "the record", "do this")
    path.unlink()
    with path.open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(RecordError, match="it has 3221225472 bytes, a record has at most 1073741824"):
        read_record(path, Outer, "the record", "do this")
