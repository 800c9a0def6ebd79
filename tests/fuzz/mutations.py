"""Bytes that are nearly a valid file: what every fuzzed reader gets."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from hypothesis import strategies as st

_NUMBERS = (
    0,
    1,
    2,
    7,
    127,
    128,
    255,
    256,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**64 - 1,
)
_FORMS = ("<B", "<H", "<I", "<Q", ">I")


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """One of the valid files with one to eight changes.

    Parameters
    ----------
    seeds : sequence of bytes
        Valid files.
    words : sequence of bytes
        Pieces that mean something in this format.
    """
    result = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 8))):
        place = draw(st.integers(0, len(result)))
        length = draw(st.integers(0, 40))
        match draw(st.integers(0, 6)):
            case 0 if place < len(result):
                result[place] ^= 1 << draw(st.integers(0, 7))
            case 1:
                del result[place : place + length]
            case 2:
                result[place:place] = draw(st.binary(max_size=8))
            case 3:
                result[place:place] = draw(st.sampled_from(words)) * draw(st.sampled_from((1, 1, 1, 2, 150)))
            case 4:
                number = _number(draw(st.sampled_from(_FORMS)), draw(st.sampled_from(_NUMBERS)))
                result[place : place + len(number)] = number
            case 5:
                source = draw(st.integers(0, len(result)))
                result[place:place] = result[source : source + length * 8]
            case _:
                word = draw(st.sampled_from(words))
                result[place : place + len(word)] = word
    return bytes(result)


def _number(form: str, value: int) -> bytes:
    size = struct.calcsize(form)
    return struct.pack(form, value & (256**size - 1))
