"""JSON documents beside the data: equal content gives equal bytes, and a change of what they say shows."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from nucpro.formats import document, file_digest, parsed, seal_of, write_document
from nucpro.formats.atomic import CHECKSUM

CONTENT = {"viral": ["sub/viräl.1.1 · a"], "count": 2, "by": {"b": 1, "a": 2}}


def test_a_document_is_written_as_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    written = write_document(path, CONTENT)
    assert parsed(path.read_bytes()) == CONTENT
    assert path.read_bytes() == document(CONTENT)
    assert "viräl" in path.read_text(encoding="utf-8")
    assert written.digest == file_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_sorted_documents_do_not_depend_on_the_order_of_their_content() -> None:
    other = dict(reversed(CONTENT.items())) | {"by": {"a": 2, "b": 1}}
    assert document(other) != document(CONTENT)
    assert document(other, sort_keys=True) == document(CONTENT, sort_keys=True)


@pytest.mark.parametrize("raw", [b"", b"{", b"[1]", b"3", b"\xff", b"[" * 100_000, document(CONTENT)[:-3]])
def test_what_is_damaged_says_nothing(raw: bytes) -> None:
    assert parsed(raw) == {}


def test_a_seal_fits_only_what_was_said() -> None:
    sealed = {**CONTENT, CHECKSUM: seal_of(CONTENT)}
    assert seal_of(json.loads(document(sealed))) == sealed[CHECKSUM]
    assert seal_of({**sealed, "count": 3}) != sealed[CHECKSUM]
