"""Ids of reading frames, made and taken apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucpro.genomes.frames import Place, frame_id, place_of


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("NC_001416.1_chunk_2F3", ("NC_001416.1", 2, "F3")),
        ("NZ_A_chunk_1.1_chunk_10R1", ("NZ_A_chunk_1.1", 10, "R1")),
        ("NC_001416.1_chunk_0F1", (None, None, None)),
        ("NC_001416.1_chunk_2F4", (None, None, None)),
        ("_chunk_2F1", (None, None, None)),
        ("NC_001416.1_chunk_٣F1", (None, None, None)),
        ("NC_001416.1_chunk_2F1\n", (None, None, None)),
        ("x_chunk_" + "9" * 30 + "F1", (None, None, None)),
    ],
)
def test_ids_are_taken_apart_only_where_they_have_the_form_of_frames(name: str, place: Place) -> None:
    assert place_of(name) == place


@given(
    st.text(min_size=1).filter(lambda name: "\n" not in name), st.integers(0, 999_999_998), st.integers(0, 5)
)
def test_what_was_made_is_taken_apart_again(record: str, number: int, frame: int) -> None:
    name = frame_id(record, number, frame)
    assert place_of(name) == (record, number + 1, name[-2:])
