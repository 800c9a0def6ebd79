"""The pickle machine and the emitter against Python's own, and both readers under random damage."""

from __future__ import annotations

import copy
import io
import pickle
import pickletools
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_builders import container, ids_of, matrix, wanted

from nucpro import formats as store
from nucpro.errors import StoreError
from nucpro.formats.pickles import Storage, Tensor, dump, load
from nucpro.formats.sequences import SequenceType

T = TypeVar("T")
TEXT = st.text(max_size=6)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | TEXT
    | st.just("x" * 300)
)
PLAIN = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=30,
)


def built(data: bytes) -> object:
    """What the machine builds, with its arrays of floats taken apart."""
    return expanded(load(memoryview(data), {"0": 48}, "a.pt"))


def expanded(value: object) -> object:
    if type(value) is dict:
        return {key: expanded(item) for key, item in value.items()}
    if type(value) is list:
        parts = [item.tolist() if isinstance(item, np.ndarray) else [expanded(item)] for item in value]
        return [item for part in parts for item in part]
    return value


def same(left: object, right: object) -> bool:
    """Equality that tells 1 from True and 0.0 from -0.0."""
    return repr(left) == repr(right)


@given(PLAIN, st.sampled_from([2, 3, 4, 5]))
@settings(deadline=None)
def test_reads_plain_values_that_python_pickled(value: object, protocol: int) -> None:
    assert same(built(pickle.dumps(value, protocol)), value)


@given(PLAIN)
@settings(deadline=None)
def test_writes_plain_values_that_python_and_the_machine_read(value: object) -> None:
    data = dump(value)
    assert same(pickle.loads(data), value)
    assert same(built(data), value)
    assert dump(pickle.loads(data)) == data
    assert max(opcode.proto for opcode, _, _ in pickletools.genops(data)) == 2


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=2100), st.sampled_from([2, 4]))
@settings(deadline=None, max_examples=30)
def test_reads_lists_of_floats_of_any_length(values: list[float], protocol: int) -> None:
    assert same(built(pickle.dumps([values, values[:3]], protocol)), [values, values[:3]])


@pytest.mark.parametrize("count", [0, 1, 2, 999, 1000, 1001, 2000, 2001, 7281, 7282, 20_000])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_lists_of_floats_around_the_sizes_of_batches_and_frames(count: int, protocol: int) -> None:
    values = [index / 3 for index in range(count)]
    assert built(pickle.dumps({"a": values, "b": (1.5,) * min(count, 900)}, protocol)) == {
        "a": values,
        "b": (1.5,) * min(count, 900),
    }


def test_floats_between_other_values_stay_floats() -> None:
    value = {"a": [1.0, "x", 2.0], "b": [[1.0], 2.0, 3.0], "c": 4.0, "d": [5.0], "e": {"f": 1.0, "g": 2.0}}
    assert built(pickle.dumps(value, 2)) == value


def test_a_run_of_floats_is_one_array() -> None:
    rows = load(memoryview(pickle.dumps([[0.5] * 768], 2)), {}, "a.pt")
    assert [part.shape for part in rows[0]] == [(768,)]


def test_shared_values_are_written_as_if_they_were_not() -> None:
    inner = ["same", 2**40]
    shared = {"a": inner, "b": inner, "c": {"same": "same"}}
    assert dump(shared) == dump(copy.deepcopy(shared)) == dump(pickle.loads(pickle.dumps(shared)))


def test_tensors_come_back_as_they_were_written() -> None:
    storage = Storage("0", "float32", 12)
    value = {
        "rows": [Tensor(storage, offset, (4,), (1,)) for offset in (0, 4, 8)],
        "all": Tensor(storage, 0, (3, 4), (4, 1)),
    }
    assert built(dump(value)) == value


def test_a_surrogate_in_a_string_survives() -> None:
    assert built(dump(["\ud800"])) == ["\ud800"]


@pytest.mark.parametrize("value", [b"bytes", (1, 2), {1, 2}, np.float32(1), Path("x")], ids=repr)
def test_other_values_are_not_written(value: object) -> None:
    with pytest.raises(TypeError, match=f"a {type(value).__name__} cannot be written"):
        dump([value])


def attempt(read: Callable[[], T]) -> tuple[T | None, str]:
    """What was read, or else the message of the refusal; any other error goes on."""
    try:
        return read(), ""
    except StoreError as error:
        return None, str(error)


OPCODES = st.sampled_from([bytes([ord(opcode.code)]) for opcode in pickletools.opcodes])
PIECES = (
    OPCODES
    | st.binary(max_size=3)
    | st.sampled_from([b"K\1", b"\x8c\1a", b"h\0", b"q\0", b"cos\nsystem\n", b"G" + bytes(8)])
)


@given(st.lists(PIECES, max_size=30))
@settings(deadline=None, max_examples=400)
def test_any_opcodes_give_a_plain_value_or_an_error(pieces: list[bytes]) -> None:
    data = b"\x80\x02" + b"".join(pieces) + b"."
    value, problem = attempt(lambda: load(memoryview(data), {"0": 48}, "a.pt"))
    assert problem.startswith("a.pt: byte ") or type(value).__module__ in {
        "builtins",
        "nucpro.formats.pickles",
    }


def small_file(kind: str) -> bytes:
    """Valid file with meta, as bytes."""
    write = {
        "dna": partial(store.write_vectors, sequence_type=SequenceType.DNA),
        "protein": partial(store.write_vectors, sequence_type=SequenceType.PROTEIN),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.pt")
        if kind == "merged":
            store.write_merged(path, ids_of(3), matrix(3, 5), {"a": [1.5, "b"]}, 1)
        else:
            write[kind](path, ids_of(3), matrix(3, 5), {"a": [1.5, "b"]})
        return path.read_bytes()


READERS = {
    "dna": partial(store.read_vectors, sequence_type=SequenceType.DNA),
    "protein": partial(store.read_vectors, sequence_type=SequenceType.PROTEIN),
    "merged": store.read_merged,
}
FILES = {kind: small_file(kind) for kind in READERS}


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with flipped bits, missing, repeated or foreign ones."""
    result = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data) - 1))
        match draw(st.integers(0, 3)):
            case 0 if place < len(result):
                result[place] ^= 1 << draw(st.integers(0, 7))
            case 1:
                del result[place : place + draw(st.integers(1, 80))]
            case 2:
                result[place:place] = draw(st.binary(max_size=80))
            case _:
                result[place:place] = result[: draw(st.integers(0, 80))]
    return bytes(result)


@pytest.mark.parametrize("kind", FILES)
@given(data=st.data())
@settings(deadline=None, max_examples=200)
def test_a_damaged_file_is_refused_or_reads_as_it_was(kind: str, data: st.DataObject) -> None:
    content = data.draw(damaged(FILES[kind]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.pt")
        path.write_bytes(content)
        read, problem = attempt(lambda: READERS[kind](path))
    if read is None:
        assert problem.startswith(f"{path}: ")
    else:
        assert (read.ids, read.meta) == (ids_of(3), {"a": [1.5, "b"]})
        assert read.vectors.tobytes() == matrix(3, 5).tobytes()


def pickle_of(kind: str, *, original: bool) -> bytes:
    """Pickle of a file of this package, or of the original scripts' lists of floats."""
    if original:
        row = {"label": "a", "mean_representation": [0.5, 1.5, 2.5]}
        return pickle.dumps({"nucleotide": ["a", "b"], "data": [row, row | {"label": "b"}]}, 2)
    with zipfile.ZipFile(io.BytesIO(FILES[kind])) as archive:
        return archive.read("archive/data.pkl")


@pytest.mark.parametrize(
    ("kind", "original"), [("dna", True), ("dna", False), ("protein", False), ("merged", False)]
)
@given(data=st.data())
@settings(deadline=None, max_examples=200)
def test_a_pickle_that_somebody_changed_is_refused_or_read(
    kind: str, original: bool, data: st.DataObject
) -> None:
    """Its checksum is right: only the machine and the schema stand between it and the reader."""
    content = data.draw(damaged(pickle_of(kind, original=original)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.pt")
        path.write_bytes(container(content, storage=matrix(3, 5).tobytes()))
        read, problem = attempt(lambda: READERS[kind](path))
    if read is None:
        assert problem.startswith(f"{path}: ")
    else:
        assert read.vectors.shape == (len(read.ids), read.vectors.shape[1])


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_was_cut_off_anywhere_is_refused(kind: str, tmp_path: Path) -> None:
    looks = "(a zip archive that is truncated|an empty file|an unknown kind of file)"
    for length in range(0, len(FILES[kind]), 7):
        (tmp_path / "a.pt").write_bytes(FILES[kind][:length])
        for read in (READERS[kind], store.read_meta, store.check_directory):
            with pytest.raises(StoreError, match=f"{length} bytes that look like {looks}"):
                read(tmp_path / "a.pt")


@given(PLAIN)
@settings(deadline=None, max_examples=50)
def test_any_plain_value_is_no_file_of_ours(value: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.pt")
        path.write_bytes(container(dump(value)))
        with pytest.raises(StoreError):
            store.read_meta(path)


def test_keys_that_are_not_known_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(container(wanted(b"}\x8c\x04noteK\x01s")))
    assert store.read_vectors(tmp_path / "a.pt", SequenceType.PROTEIN).ids == ["0"]
