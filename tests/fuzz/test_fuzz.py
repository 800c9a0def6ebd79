"""A short run of every fuzzing target; ``make fuzz`` runs them for as long as it is told."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
def test_any_bytes_are_refused_or_read(name: str, data: st.DataObject) -> None:
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        target.check(data.draw(target.inputs), Path(folder))
