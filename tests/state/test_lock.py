"""The lock: held by one process, named to the others, and never taken from somebody else's file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nucpro.errors import LockedError, PreflightError
from nucpro.state import lock


@pytest.mark.parametrize("content", [b"shopping list\n", b"{}", b'{"procession": 1}', b" ", b"\0x", b"x\0"])
def test_a_file_of_another_kind_is_no_lock_and_stays(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lock"
    path.write_bytes(content)
    message = f"{path}: is not a lock file of nucpro, so it is left unchanged; move it away, then run again"
    with pytest.raises(PreflightError) as caught, lock.hold(path):
        pass
    assert caught.value.problems == (message,)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 40, b'{"process": 12, "host": "a"}', b'{"process": 12, "ho', b'{"proc']
)
def test_a_lock_of_a_run_that_ended_in_any_way_is_taken(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lock"
    path.write_bytes(content)
    with lock.hold(path):
        assert json.loads(path.read_bytes())["process"] == os.getpid()
        assert lock.state(path) == f"at work, {lock.holder(path)}"
        with pytest.raises(LockedError, match=f"in use by process {os.getpid()} on host "), lock.hold(path):
            pass
    assert path.read_bytes() == b""
    assert lock.state(path) == "none"
