"""Whole files and their container, without torch: what comes back, what is refused, and the bytes themselves."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from store_builders import container, ids_of, matrix, put, tensor, zipped
from store_builders import proteins as protein_pickle

from nucpro import formats as store
from nucpro.errors import StoreError
from nucpro.formats.archive import REMEDY, archive_pieces, load_archive, look_at_archive
from nucpro.formats.pickles import Storage, Tensor, dump
from nucpro.formats.sequences import SequenceType

STORAGE = Storage("0", "float32", 12)


def protein(ids: list[str], *rows: object) -> dict[str, object]:
    return {"proteins": ids, "data": list(rows)}


def dna(values: object) -> dict[str, object]:
    return {"nucleotide": ["a"], "data": [{"label": "a", "mean_representation": values}]}


def merged(data: Tensor, labels: object = (1,)) -> dict[str, object]:
    return {"ids": ["a", "b"], "data": data, "labels": list(labels) if isinstance(labels, tuple) else labels}


WRITERS = {
    "dna": partial(store.write_vectors, sequence_type=SequenceType.DNA),
    "protein": partial(store.write_vectors, sequence_type=SequenceType.PROTEIN),
    "merged": lambda *arguments: store.write_merged(*arguments, 1),
}
READERS: dict[str, Callable[[Path], store.VectorFile]] = {
    "dna": partial(store.read_vectors, sequence_type=SequenceType.DNA),
    "protein": partial(store.read_vectors, sequence_type=SequenceType.PROTEIN),
    "merged": store.read_merged,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_files_come_back_as_they_were_written(kind: str, tmp_path: Path) -> None:
    path, ids, vectors, meta = tmp_path / "a.pt", ids_of(1030), matrix(1030, 5), {"a": [1.5, None]}
    written = WRITERS[kind](path, ids, vectors, meta)
    read = READERS[kind](path)
    assert (read.ids, read.meta, read.digest) == (ids, meta, written.digest)
    assert read.vectors.tobytes() == vectors.tobytes()
    assert read.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (read.vectors.dtype, read.vectors.flags.owndata, read.vectors.flags.aligned) == ("f4", False, True)
    assert store.read_meta(path) == store.Summary(kind, 1030, 5, meta, kind == "merged")
    assert written.size == path.stat().st_size


@pytest.mark.parametrize("label", [0, 1, True])
def test_a_label_comes_back(label: int, tmp_path: Path) -> None:
    store.write_merged(tmp_path / "a.pt", ["a"], matrix(1, 2), None, label)
    found = store.read_merged(tmp_path / "a.pt").label
    assert (found, type(found)) == (label, int)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1023, 4), (1024, 0), (2499, 3)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_row_of_a_number_that_is_not_finite_is_named(
    row: int, column: int, value: float, tmp_path: Path
) -> None:
    ids, vectors = ids_of(2500), matrix(2500, 5)
    vectors[row, column] = value
    with pytest.raises(StoreError) as caught:
        store.write_vectors(tmp_path / "a.pt", ids, vectors, None, SequenceType.PROTEIN)
    assert str(caught.value) == (
        f"{tmp_path / 'a.pt'}: row {row} ({ids[row]!r}) holds {value} at column {column}, expected finite "
        "float32 values; nothing was written: correct what is to be written"
    )


def file_of(value: object, storage: bytes = bytes(48)) -> bytes:
    return container(dump(value), storage=storage)


def test_rows_in_another_order_are_copied(tmp_path: Path) -> None:
    storage = np.arange(12, dtype="<f4")
    for offsets in ((8, 4, 0), (0, 4, 0), (0, 8, 4), (4, 8, 0), (0, 3, 6)):
        rows = [Tensor(STORAGE, offset, (4,), (1,)) for offset in offsets]
        path = put(tmp_path / "a.pt", file_of(protein(list("abc"), *rows), storage.tobytes()))
        expected = [storage[offset : offset + 4].tolist() for offset in offsets]
        assert store.read_vectors(path, SequenceType.PROTEIN).vectors.tolist() == expected


def test_rows_with_strides_and_rows_from_two_storages(tmp_path: Path) -> None:
    one, two = np.arange(12, dtype="<f4"), np.arange(4, dtype="<f4") + 100
    other = Storage("1", "float32", 4)
    rows = [Tensor(STORAGE, 1, (4,), (2,)), Tensor(other, 0, (4,), (1,)), Tensor(STORAGE, 8, (4,), (1,))]
    content = container(dump(protein(list("abc"), *rows)), storage=one.tobytes(), **{"data/1": two.tobytes()})
    read = store.read_vectors(put(tmp_path / "a.pt", content), SequenceType.PROTEIN)
    assert read.vectors.tolist() == [[1, 3, 5, 7], [100, 101, 102, 103], [8, 9, 10, 11]]


def test_lists_of_floats_are_rounded_to_float32(tmp_path: Path) -> None:
    values = [0.1, -2.0, 1e-50]
    read = store.read_vectors(put(tmp_path / "a.pt", file_of(dna(values))), SequenceType.DNA)
    assert read.vectors.tolist() == [np.float32(values).tolist()]
    with pytest.raises(
        StoreError, match=r"row 0 \('a'\) holds inf at column 1, expected finite float32 values"
    ):
        store.read_vectors(put(tmp_path / "a.pt", file_of(dna([0.5, 1e39]))), SequenceType.DNA)


def test_a_matrix_with_strides_becomes_contiguous(tmp_path: Path) -> None:
    numbers = np.arange(12, dtype="<f4")
    data = Tensor(STORAGE, 0, (2, 6), (1, 2))
    path = put(tmp_path / "a.pt", file_of(merged(data), numbers.tobytes()))
    vectors = store.read_merged(path).vectors
    assert vectors.tolist() == numbers.reshape(6, 2).T.tolist()
    assert vectors.flags.c_contiguous


@pytest.mark.parametrize(
    ("dtype", "value", "label"),
    [("int64", 1, 1), ("int64", 0, 0), ("float32", 1.0, 1), ("bool", True, 1), ("uint8", 0, 0)],
)
def test_labels_in_tensors(dtype: str, value: object, label: int, tmp_path: Path) -> None:
    raw = np.array([value], dtype).tobytes()
    value = merged(Tensor(STORAGE, 0, (2, 6), (6, 1)), Tensor(Storage("1", dtype, 1), 0, (1,), (1,)))
    content = container(dump(value), **{"data/1": raw})
    found = store.read_merged(put(tmp_path / "a.pt", content)).label
    assert (found, type(found)) == (label, int)


@pytest.mark.parametrize("number", [2, -1])
def test_a_tensor_with_another_label(number: int, tmp_path: Path) -> None:
    value = merged(Tensor(STORAGE, 0, (2, 6), (6, 1)), Tensor(Storage("1", "int64", 1), 0, (), ()))
    content = container(dump(value), **{"data/1": struct.pack("<q", number)})
    with pytest.raises(
        StoreError, match=rf"'labels' holds {number}, expected \[?1\]? \(viral\) or 0 \(host\)"
    ):
        store.read_merged(put(tmp_path / "a.pt", content))


def test_rows_that_share_their_numbers_may_take_eight_times_the_file(tmp_path: Path) -> None:
    row = Tensor(Storage("0", "float32", 50_000), 0, (50_000,), (1,))
    for count, fits in ((8, True), (9, False)):
        path = put(tmp_path / "a.pt", file_of(protein(ids_of(count), *[row] * count), bytes(200_000)))
        if fits:
            assert store.read_vectors(path, SequenceType.PROTEIN).vectors.shape == (count, 50_000)
        else:
            with pytest.raises(StoreError) as caught:
                store.read_vectors(path, SequenceType.PROTEIN)
            claim = f"{path}: its vectors claim 1800000 bytes, the file has {path.stat().st_size}; {REMEDY}"
            assert str(caught.value) == claim


WRITE_REFUSED = [
    (["a"], matrix(2, 3), "its vectors are float32 of shape (2, 3), expected float32 of shape (1, D)"),
    (["a"], matrix(1, 3).astype("f8"), "its vectors are float64 of shape (1, 3), expected float32 of shape (1, D)"),
    (["a"], matrix(1, 3)[0], "its vectors are float32 of shape (3,), expected float32 of shape (1, D)"),
    (["a"], matrix(1, 0), "its vectors are float32 of shape (1, 0), expected float32 of shape (1, D)"),
    (["a", "a"], matrix(2, 3), "1 of its ids are duplicates: 'a'"),
    (
        ["a"],
        np.broadcast_to(np.float32(1), (1, 2**30)),
        "1 rows need 4294967296 bytes, a file holds at most 4294901760",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("ids", "vectors", "text"), WRITE_REFUSED)
def test_what_is_not_written(ids: list[str], vectors: np.ndarray, text: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        store.write_vectors(tmp_path / "a.pt", ids, vectors, None, SequenceType.DNA)
    assert str(caught.value) == (
        f"{tmp_path / 'a.pt'}: {text}; nothing was written: correct what is to be written"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("label", [2, -1, "1"])
def test_labels_that_are_not_written(label: object, tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        store.write_merged(tmp_path / "a.pt", ["a"], matrix(1, 3), None, label)
    assert str(caught.value) == (
        f"{tmp_path / 'a.pt'}: the label to write is {label!r}, expected 1 (viral), 0 (host) or None; "
        "nothing was written: correct what is to be written"
    )


@pytest.mark.parametrize("length", [0, 1, 43, 44, 45, 63, 64, 65, 1000])
def test_an_archive_is_what_other_programs_read(length: int) -> None:
    pickle, storage = bytes(range(256)) * 4, os.urandom(length)
    data = b"".join(archive_pieces(pickle[:length], memoryview(storage)))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        found = {info.filename.removeprefix("archive/"): archive.read(info) for info in archive.infolist()}
        assert list(found.items()) == [
            ("data.pkl", pickle[:length]),
            (".format_version", b"1"),
            (".storage_alignment", b"64"),
            ("byteorder", b"little"),
            ("data/0", storage),
            ("version", b"3\n"),
        ]
        for info in archive.infolist():
            assert (info.compress_type, info.date_time) == (zipfile.ZIP_STORED, (1980, 1, 1, 0, 0, 0))
            assert (info.flag_bits, info.create_version, info.extract_version) == (0x800, 0, 0)
            assert (info.volume, info.internal_attr, info.external_attr) == (0, 0, 0)
            name, extra = struct.unpack_from("<HH", data, info.header_offset + 26)
            assert (info.header_offset + 30 + name + extra) % 64 == 0
            padding = data[info.header_offset + 30 + name :][:extra]
            assert padding == b"FB" + struct.pack("<H", extra - 4) + b"Z" * (extra - 4)
            assert extra < 68


def test_members_are_read_and_checked(tmp_path: Path) -> None:
    path = put(tmp_path / "a.pt", container(protein_pickle(tensor(0, (12,), (1,))), **{"data/12": b"x"}))
    whole, digest = load_archive(path)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    with look_at_archive(path) as look:
        for archive in (whole, look):
            assert archive.size == path.stat().st_size
            assert archive.storage_sizes == {"0": 48, "12": 1}
            assert bytes(archive.read("data/0")) == bytes(48)
            assert bytes(archive.read("data/12")) == b"x"


def test_a_damaged_member_is_named_with_both_checksums(tmp_path: Path) -> None:
    data = container(protein_pickle(tensor(0, (12,), (1,))), storage=b"\1" * 48)
    path = put(tmp_path / "a.pt", data.replace(b"\1" * 48, b"\2" * 48))
    with pytest.raises(StoreError) as caught:
        store.read_vectors(path, SequenceType.PROTEIN)
    found, told = zlib.crc32(b"\2" * 48), zlib.crc32(b"\1" * 48)
    assert str(caught.value) == (
        f"{path}: member 'data/0' is damaged: CRC-32 {found:08x}, expected {told:08x}; {REMEDY}"
    )


GOLDEN = {
    "dna": "39abbb58b3008dc4749d270508b724ae87a9e0d34f741a8a5522b3de08702781",
    "protein": "7be3df3a01384cf06a10279530d38add1da3fe1369b6701fd91edc7b4719b328",
    "merged": "585e7ec7148b37c8c8698b799d761908d58994e17e1c9ca4f793b7fd621ad4bd",
}


@pytest.mark.parametrize("kind", WRITERS)
def test_bytes_are_those_of_every_version_so_far(kind: str, tmp_path: Path) -> None:
    vectors = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert (
        WRITERS[kind](tmp_path / "a.pt", ["a", "b", "ç"], vectors, {"b": 1, "a": [1.5]}).digest
        == GOLDEN[kind]
    )


FRESH = """
import sys
from pathlib import Path
import numpy as np
from nucpro import formats as store
from nucpro.formats.sequences import SequenceType
vectors = np.arange(12, dtype=np.float32).reshape(3, 4)
print(store.write_vectors(Path(sys.argv[1]), ["a", "b", "ç"], vectors, {"b": 1, "a": [1.5]}, SequenceType.DNA).digest)
assert "torch" not in sys.modules
"""


def test_a_fresh_process_writes_the_same_bytes_without_torch(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FRESH, tmp_path / "a.pt"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == GOLDEN["dna"]


def test_rows_that_only_look_as_if_they_lay_in_one_storage(tmp_path: Path) -> None:
    one, two = np.arange(12, dtype="<f4"), np.arange(12, dtype="<f4") + 100
    rows = [Tensor(STORAGE, 0, (4,), (1,)), Tensor(Storage("1", "float32", 12), 4, (4,), (1,))]
    content = container(dump(protein(["a", "b"], *rows)), storage=one.tobytes(), **{"data/1": two.tobytes()})
    read = store.read_vectors(put(tmp_path / "a.pt", content), SequenceType.PROTEIN)
    assert read.vectors.tolist() == [[0, 1, 2, 3], [104, 105, 106, 107]]


def test_tensors_and_lists_of_floats_in_one_file(tmp_path: Path) -> None:
    value = protein(["a", "b"], Tensor(STORAGE, 0, (2,), (1,)), [5.0, 6.0])
    read = store.read_vectors(put(tmp_path / "a.pt", file_of(value)), SequenceType.PROTEIN)
    assert read.vectors.tolist() == [[0, 0], [5, 6]]


@pytest.mark.parametrize("kind", WRITERS)
def test_each_kind_is_read_as_itself_only(kind: str, tmp_path: Path) -> None:
    WRITERS[kind](tmp_path / "a.pt", ["a"], matrix(1, 3), None)
    for other in READERS.keys() - {kind}:
        with pytest.raises(StoreError, match="has the keys "):
            READERS[other](tmp_path / "a.pt")


def test_meta_that_is_not_written_is_named_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(
        StoreError, match=r"a\.pt: meta\.x is set, expected str.*; nothing was written: correct"
    ):
        store.write_vectors(tmp_path / "a.pt", ["a"], matrix(1, 3), {"x": {1}}, SequenceType.DNA)


class Streamed(io.RawIOBase):
    """A file that cannot go back, so that a writer describes each member behind its bytes."""

    def __init__(self) -> None:
        self.content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.content += data
        return len(data)


def test_an_archive_that_was_streamed_is_read(tmp_path: Path) -> None:
    stream = Streamed()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", protein_pickle(tensor(0, (12,), (1,))))
        archive.writestr("archive/data/0", bytes(48))
    path = put(tmp_path / "a.pt", bytes(stream.content))
    assert store.read_vectors(path, SequenceType.PROTEIN).vectors.shape == (1, 12)
    # The sizes that such headers leave out must not be wrong ones.
    damaged = bytes(stream.content).replace(b"\0" * 12, b"\1" + b"\0" * 11, 1)
    with pytest.raises(
        StoreError, match=r"local header of 'archive/data\.pkl' claims 0 bytes, the directory"
    ):
        store.read_vectors(put(tmp_path / "a.pt", damaged), SequenceType.PROTEIN)


@pytest.mark.parametrize("version", [b"1", b"3\n", b"10\n"])
def test_versions_of_the_format(version: bytes, tmp_path: Path) -> None:
    content = container(protein_pickle(tensor(0, (12,), (1,))), version=version)
    store.check_directory(put(tmp_path / "a.pt", content))


@pytest.mark.parametrize("version", [b"0", b"11", b"-1", b""])
def test_versions_that_are_not_known(version: bytes, tmp_path: Path) -> None:
    content = container(protein_pickle(tensor(0, (12,), (1,))), version=version)
    with pytest.raises(StoreError) as caught:
        store.check_directory(put(tmp_path / "a.pt", content))
    problem = f"format version is {version!r}, the versions known are 1 to 10; {REMEDY}"
    assert str(caught.value) == f"{tmp_path / 'a.pt'}: {problem}"


def test_an_archive_of_other_members_shows_three(tmp_path: Path) -> None:
    members = {f"archive/{name}": b"" for name in "dbca"}
    with pytest.raises(StoreError) as caught:
        store.check_directory(put(tmp_path / "a.pt", zipped(members)))
    text = f"is a zip archive without data.pkl ('a', 'b', 'c'); {REMEDY}"
    assert str(caught.value) == f"{tmp_path / 'a.pt'}: {text}"


def test_a_long_number_takes_the_fewest_bytes() -> None:
    assert dump(2**31) == b"\x80\x02\x8a\x05\0\0\0\x80\0."
