"""Round trips of the three schemas, in both directions between this package and torch."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from store_builders import container, ids_of, matrix, put, tensor
from store_builders import proteins as file_pickle
from torch.utils.serialization import config

from nucpro import formats as store
from nucpro.errors import StoreError
from nucpro.formats.sequences import SequenceType

META = {
    "model": "fastesm",
    "digest": "ab" * 32,
    "layers": [1, 2.5, None, True],
    "floats": [0.1] * 1500,
    "deep": {"z": -1, "a": 2**40, "": {}, "empty": [[]] * 1500},
}
WRITERS = {
    "dna": partial(store.write_vectors, sequence_type=SequenceType.DNA),
    "protein": partial(store.write_vectors, sequence_type=SequenceType.PROTEIN),
    "merged": lambda *arguments: store.write_merged(*arguments, 1),
}
READERS = {
    "dna": partial(store.read_vectors, sequence_type=SequenceType.DNA),
    "protein": partial(store.read_vectors, sequence_type=SequenceType.PROTEIN),
    "merged": store.read_merged,
}


def save_like_original(path: Path, kind: str, ids: list[str], vectors: np.ndarray, **how: object) -> None:
    """Write what the original scripts write: lists of floats, one storage a tensor, no meta."""
    rows = [torch.from_numpy(row.copy()) for row in vectors]
    if kind == "dna":
        data = [
            {"label": name, "mean_representation": row.tolist()} for name, row in zip(ids, rows, strict=True)
        ]
        torch.save({"nucleotide": ids, "data": data}, path, **how)
    elif kind == "protein":
        torch.save({"proteins": ids, "data": rows}, path, **how)
    else:
        torch.save({"ids": ids, "data": torch.stack(rows), "labels": [1]}, path, **how)


@pytest.mark.parametrize("share", [False, True], ids=["a storage each", "one storage"])
@pytest.mark.parametrize("shape", [(7,), (1, 7)], ids=["vector", "matrix of one row"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dna_rows_of_other_programs_become_float32(
    dtype: torch.dtype, shape: tuple[int, ...], share: bool, tmp_path: Path
) -> None:
    path, ids = tmp_path / "output_1_DNABERT_S.pt", ids_of(5)
    rows = torch.from_numpy(matrix(5, 7)).to(dtype)
    parts = [row if share else row.clone() for row in rows.reshape(5, *shape)]
    data = [{"label": name, "mean_representation": part} for name, part in zip(ids, parts, strict=True)]
    torch.save({"nucleotide": ids, "data": data}, path)
    read = store.read_vectors(path, SequenceType.DNA)
    assert (read.ids, store.read_meta(path).width) == (ids, 7)
    assert read.vectors.dtype == np.float32
    assert read.vectors.tobytes() == rows.float().numpy().tobytes()


@pytest.mark.parametrize("row", [matrix(1, 3)[0], [np.float32(1)]], ids=["array", "scalar"])
def test_rows_that_need_numpy_to_be_read_are_refused(row: object, tmp_path: Path) -> None:
    path = tmp_path / "output_1_DNABERT_S.pt"
    torch.save({"nucleotide": ["a"], "data": [{"label": "a", "mean_representation": row}]}, path)
    with pytest.raises(
        StoreError, match=r"it wants numpy\..*, and only tensors and plain values may be built"
    ):
        store.read_vectors(path, SequenceType.DNA)


def test_dna_rows_may_be_lists_of_one_list_and_types_may_change(tmp_path: Path) -> None:
    path, rows = tmp_path / "output_1_DNABERT_S.pt", matrix(3, 4)
    first, second, third = map(torch.from_numpy, rows)
    parts = [first[None].tolist(), second.double(), third[None]]
    data = [{"label": name, "mean_representation": part} for name, part in zip("abc", parts, strict=True)]
    torch.save({"nucleotide": list("abc"), "data": data}, path)
    assert store.read_vectors(path, SequenceType.DNA).vectors.tobytes() == rows.tobytes()


@pytest.mark.parametrize("kind", WRITERS)
class TestEveryKind:
    def test_reads_what_it_wrote(self, kind: str, tmp_path: Path) -> None:
        path, ids, vectors = tmp_path / "a.pt", ids_of(2500), matrix(2500, 7)
        written = WRITERS[kind](path, ids, vectors, META)
        read = READERS[kind](path)
        assert (read.ids, read.meta) == (ids, META)
        assert read.vectors.tobytes() == vectors.tobytes()
        assert read.vectors.dtype == np.float32
        assert read.vectors.flags.c_contiguous
        assert read.vectors.flags.writeable
        assert read.digest == written.digest == hashlib.sha256(path.read_bytes()).hexdigest()

    def test_reports_the_size_of_the_file_it_wrote(self, kind: str, tmp_path: Path) -> None:
        path = tmp_path / "a.pt"
        written = WRITERS[kind](path, ids_of(3), matrix(3, 4), None)
        assert written.size == path.stat().st_size

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_reads_the_files_of_the_original_scripts_bit_for_bit(
        self, kind: str, protocol: int, tmp_path: Path
    ) -> None:
        path, ids, vectors = tmp_path / "output_1.pt", ids_of(1100), matrix(1100, 9)
        save_like_original(path, kind, ids, vectors, pickle_protocol=protocol)
        read = READERS[kind](path)
        assert (read.ids, read.meta) == (ids, None)
        assert read.vectors.tobytes() == vectors.tobytes()

    def test_looks_at_a_file_without_its_numbers(self, kind: str, tmp_path: Path) -> None:
        ours, theirs = tmp_path / "ours.pt", tmp_path / "theirs.pt"
        WRITERS[kind](ours, ids_of(3), matrix(3, 4), META)
        save_like_original(theirs, kind, ids_of(3), matrix(3, 4))
        assert store.read_meta(ours) == store.Summary(kind, 3, 4, META, kind == "merged")
        assert store.read_meta(theirs) == store.Summary(kind, 3, 4, None, kind == "merged")
        store.check_directory(ours)
        store.check_directory(theirs)

    def test_equal_content_gives_equal_bytes_whatever_is_shared(self, kind: str, tmp_path: Path) -> None:
        ids, vectors = ids_of(300), matrix(300, 4)
        WRITERS[kind](tmp_path / "a.pt", ids, vectors, {"x": "same", "y": "same", "z": [1, 2]})
        unshared = {"z": [1, 2], "y": "".join(["sa", "me"]), "x": "".join(["s", "ame"])}
        copies = ["".join(list(name)) for name in ids]
        WRITERS[kind](tmp_path / "b.pt", copies, np.asfortranarray(vectors), unshared)
        assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()

    def test_a_flipped_bit_in_a_storage_is_found_by_its_checksum(self, kind: str, tmp_path: Path) -> None:
        path = tmp_path / "a.pt"
        WRITERS[kind](path, ids_of(3), matrix(3, 64), None)
        data = bytearray(path.read_bytes())
        data[data.index(matrix(3, 64).tobytes()) + 5] ^= 1
        path.write_bytes(data)
        with pytest.raises(StoreError, match=r"a\.pt: member 'data/0' is damaged: CRC-32 \w{8}, expected"):
            READERS[kind](path)
        assert store.read_meta(path).count == 3

    def test_zero_copy(self, kind: str, tmp_path: Path) -> None:
        WRITERS[kind](tmp_path / "a.pt", ids_of(3), matrix(3, 64), None)
        assert not READERS[kind](tmp_path / "a.pt").vectors.flags.owndata


@pytest.mark.parametrize("options", [{}, {"mmap": True}], ids=["read", "mapped"])
class TestTorchReadsOurs:
    def test_dna(self, options: dict[str, bool], tmp_path: Path) -> None:
        path, ids, vectors = tmp_path / "a.pt", ids_of(1200), matrix(1200, 8)
        store.write_vectors(path, ids, vectors, META, SequenceType.DNA)
        loaded = torch.load(path, weights_only=True, **options)
        assert (loaded["nucleotide"], loaded["meta"]) == (ids, META)
        assert [row["label"] for row in loaded["data"]] == ids
        rows = torch.stack([row["mean_representation"] for row in loaded["data"]])
        assert torch.equal(rows, torch.from_numpy(vectors))

    def test_protein(self, options: dict[str, bool], tmp_path: Path) -> None:
        path, ids, vectors = tmp_path / "a.pt", ids_of(1200), matrix(1200, 8)
        store.write_vectors(path, ids, vectors, META, SequenceType.PROTEIN)
        loaded = torch.load(path, weights_only=True, **options)
        assert (loaded["proteins"], loaded["meta"]) == (ids, META)
        assert torch.equal(torch.stack(loaded["data"]), torch.from_numpy(vectors))
        assert (
            loaded["data"][0].untyped_storage().data_ptr() == loaded["data"][9].untyped_storage().data_ptr()
        )

    def test_merged(self, options: dict[str, bool], tmp_path: Path) -> None:
        path, ids, vectors = tmp_path / "a.pt", ids_of(20), matrix(20, 8)
        store.write_merged(path, ids, vectors, None, 0)
        loaded = torch.load(path, weights_only=True, **options)
        assert (loaded["ids"], loaded["labels"], loaded.keys()) == (ids, [0], {"ids", "labels", "data"})
        assert torch.equal(loaded["data"], torch.from_numpy(vectors))


def test_torch_finds_our_storages_by_computing_their_place(tmp_path: Path) -> None:
    store.write_merged(tmp_path / "a.pt", ids_of(20), matrix(20, 8), None, 0)
    with config.patch("load.calculate_storage_offsets", True):
        loaded = torch.load(tmp_path / "a.pt", weights_only=True, mmap=True)
    assert torch.equal(loaded["data"], torch.from_numpy(matrix(20, 8)))


def test_full_width_rows_of_floats_and_runs_longer_than_a_batch(tmp_path: Path) -> None:
    vectors = matrix(3, 2560)
    save_like_original(tmp_path / "a.pt", "dna", ids_of(3), vectors)
    assert store.read_vectors(tmp_path / "a.pt", SequenceType.DNA).vectors.tobytes() == vectors.tobytes()
    save_like_original(tmp_path / "a.pt", "dna", ids_of(3), vectors[:, :1001])
    assert (
        store.read_vectors(tmp_path / "a.pt", SequenceType.DNA).vectors.tobytes()
        == vectors[:, :1001].tobytes()
    )


def test_rows_that_are_parts_of_larger_tensors(tmp_path: Path) -> None:
    whole = torch.from_numpy(matrix(4, 30))
    rows = [whole[2, 5:15], whole[0, ::3], whole[:, 7].repeat(3)[:10], whole.T[1:11, 3]]
    torch.save({"proteins": list("abcd"), "data": rows}, tmp_path / "a.pt")
    read = store.read_vectors(tmp_path / "a.pt", SequenceType.PROTEIN)
    assert torch.equal(torch.from_numpy(read.vectors), torch.stack(rows))


def test_a_transposed_matrix_becomes_contiguous(tmp_path: Path) -> None:
    data = torch.from_numpy(matrix(5, 3)).T
    torch.save({"ids": list("abc"), "data": data, "labels": [0]}, tmp_path / "a.pt")
    read = store.read_merged(tmp_path / "a.pt")
    assert read.vectors.flags.c_contiguous
    assert torch.equal(torch.from_numpy(read.vectors), data)


@pytest.mark.parametrize(
    "labels", [[1], torch.tensor([1]), torch.tensor(1.0), torch.tensor([True])], ids=repr
)
def test_labels_may_be_a_list_or_a_tensor(labels: object, tmp_path: Path) -> None:
    torch.save({"ids": ["a"], "data": torch.ones(1, 2), "labels": labels}, tmp_path / "a.pt")
    assert store.read_merged(tmp_path / "a.pt").label == 1


def test_tensors_that_were_saved_on_a_gpu_are_read(tmp_path: Path) -> None:
    there = tensor(0, (12,), (1,)).replace(b"\x8c\x03cpu", b"\x8c\x06cuda:3")
    path = put(tmp_path / "a.pt", container(file_pickle(there)))
    assert store.read_vectors(path, SequenceType.PROTEIN).vectors.shape == (1, 12)


def test_a_file_that_was_unpacked_and_zipped_again_is_read(tmp_path: Path) -> None:
    content = container(file_pickle(tensor(0, (4,), (1,)), tensor(4, (4,), (1,))), prefix="Äpfel und Birnen")
    assert store.read_vectors(put(tmp_path / "a.pt", content), SequenceType.PROTEIN).vectors.shape == (2, 4)


class TestRefusedToWrite:
    @pytest.mark.parametrize(
        ("ids", "vectors", "meta", "text"),
        [
            (
                ["a"],
                matrix(2, 3),
                None,
                r"vectors are float32 of shape (2, 3), expected float32 of shape (1, D)",
            ),
            (["a"], matrix(1, 3).astype(np.float64), None, "its vectors are float64 of shape (1, 3)"),
            (["a"], matrix(1, 3).astype(np.float16), None, "its vectors are float16 of shape (1, 3)"),
            (["a"], matrix(1, 3)[0], None, "its vectors are float32 of shape (3,)"),
            (["a"], matrix(1, 0), None, "its vectors are float32 of shape (1, 0)"),
            (
                ["a"],
                np.broadcast_to(np.float32(1), (1, 2**30)),
                None,
                "1 rows need 4294967296 bytes, a file holds at",
            ),
            ([], matrix(0, 3), None, "its ids are a list of length 0"),
            (["a", 5], matrix(2, 3), None, "id of row 1 is int 5, expected a str"),
            (["a", "b", "a"], matrix(3, 3), None, "1 of its ids are duplicates: 'a'"),
            (["a"], np.array([[1, np.nan]], np.float32), None, "row 0 ('a') holds nan at column 1"),
            (["a"], matrix(1, 3), {"x": {"y": (1,)}}, "meta.x.y is a tuple of length 1, expected str, int"),
            (["a"], matrix(1, 3), {"x": [np.float32(1)]}, "meta.x[0] is float32, expected"),
            (["a"], matrix(1, 3), {"x": {1: 2}}, "meta.x has a key that is no str"),
            (["a"], matrix(1, 3), {"x": 2**2000}, "meta.x is int 1148130695274"),
            (["a"], matrix(1, 3), ["x"], "meta is a list of length 1, expected a dict"),
        ],
    )
    def test_arguments(
        self, ids: list[str], vectors: np.ndarray, meta: object, text: str, tmp_path: Path
    ) -> None:
        with pytest.raises(StoreError) as caught:
            store.write_vectors(tmp_path / "a.pt", ids, vectors, meta, SequenceType.PROTEIN)
        assert text in str(caught.value)
        assert str(caught.value).startswith(str(tmp_path / "a.pt"))
        assert str(caught.value).endswith("nothing was written: correct what is to be written")
        assert list(tmp_path.iterdir()) == []

    def test_a_meta_that_contains_itself(self, tmp_path: Path) -> None:
        meta: dict[str, object] = {}
        meta["again"] = meta
        with pytest.raises(StoreError, match="has more than 100000 values, or deeper than 32 levels"):
            store.write_vectors(tmp_path / "a.pt", ["a"], matrix(1, 3), meta, SequenceType.DNA)

    def test_another_label(self, tmp_path: Path) -> None:
        with pytest.raises(
            StoreError, match=r"the label to write is 2, expected 1 \(viral\), 0 \(host\) or None"
        ):
            store.write_merged(tmp_path / "a.pt", ["a"], matrix(1, 3), None, 2)


def refused(read: Callable[[Path], object], path: Path, text: str) -> None:
    with pytest.raises(StoreError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: {text}")
    assert str(caught.value).endswith("; delete the file, or restore it from a copy, and run again")


def saved(path: Path, value: object) -> Path:
    torch.save(value, path)
    return path


ROW = torch.ones(3)


def proteins(ids: object, *rows: object) -> dict[str, object]:
    return {"proteins": ids, "data": list(rows)}


def nucleotides(name: str, values: object) -> dict[str, object]:
    return {"nucleotide": [name], "data": [{"label": "a", "mean_representation": values}]}


def merged(labels: object = (), data: torch.Tensor = ROW[None], **others: object) -> dict[str, object]:
    return {"ids": ["a"], "data": data, "labels": labels, **others}


class TestRefusedToRead:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (proteins("a", ROW), "its ids are a str of length 1, expected a list with one str per record"),
            (proteins([]), "its ids are a list of length 0"),
            (proteins(["a", None], ROW, ROW), "id of row 1 is NoneType, expected a str"),
            (
                proteins(["a"], ROW, ROW),
                "'data' is a list of length 2, expected a list with one entry for each of",
            ),
            ({"proteins": ["a"]}, "'data' is NoneType"),
            (proteins(list("aabbc"), *[ROW] * 5), "2 of its ids are duplicates: 'a', 'b'"),
            (
                proteins(list("abcdefgh") * 2, *[ROW] * 16),
                "8 of its ids are duplicates: 'a', 'b', 'c', 'd', 'e' and",
            ),
            (proteins(["a", "b"], ROW, ROW[:2]), "row 1 ('b') has 2 values, expected 3 as in row 0"),
            (
                proteins(["a"], ROW.half()),
                "row 0 ('a') is a float16 tensor of shape (3,), expected a float32 vector",
            ),
            (proteins(["a"], ROW.double()), "row 0 ('a') is a float64 tensor of shape (3,)"),
            (proteins(["a"], ROW.bfloat16()), "row 0 ('a') is a bfloat16 tensor of shape (3,)"),
            (proteins(["a"], ROW[None]), "row 0 ('a') is a float32 tensor of shape (1, 3)"),
            (proteins(["a"], ROW[:0]), "row 0 ('a') is a float32 tensor of shape (0,)"),
            (proteins(["a"], {"x": 1}), "row 0 ('a') is a dict of length 1"),
            (proteins(["a", "b"], ROW, ROW / torch.tensor([1, 0, 1])), "row 1 ('b') holds inf at column 1"),
        ],
    )
    def test_protein(self, value: object, text: str, tmp_path: Path) -> None:
        refused(
            partial(store.read_vectors, sequence_type=SequenceType.PROTEIN),
            saved(tmp_path / "output_1_ESM.pt", value),
            text,
        )

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ([1], "holds a list of length 1, expected a dict"),
            ({}, "has the keys , expected 'data' and 'nucleotide'"),
            (proteins(["a"], ROW), "has the keys 'proteins', 'data', expected 'data' and 'nucleotide'"),
            (
                {"nucleotide": ["a"], "data": [[1.0]]},
                "row 0 ('a') is a list of length 1, expected a dict with 'mean_representation'",
            ),
            (nucleotides("b", [1.0]), "row 0 has the label 'a', expected its id 'b'"),
            (
                nucleotides("a", [1.0, 2]),
                "row 0 ('a') is a list of length 2, expected a float32 vector or a list of",
            ),
            (nucleotides("a", []), "row 0 ('a') is a list of length 0"),
            (nucleotides("a", ROW.int()), "row 0 ('a') is an int32 tensor of shape (3,)"),
            (nucleotides("a", torch.stack([ROW, ROW])), "row 0 ('a') is a float32 tensor of shape (2, 3)"),
            (nucleotides("a", ROW.double() * 1e39), "row 0 ('a') holds inf at column"),
            (nucleotides("a", [1.0, 1e39]), "row 0 ('a') holds inf at column 1"),
            (nucleotides("a", [float("nan")]), "row 0 ('a') holds nan at column 0"),
        ],
    )
    def test_dna(self, value: object, text: str, tmp_path: Path) -> None:
        refused(
            partial(store.read_vectors, sequence_type=SequenceType.DNA),
            saved(tmp_path / "output_1_DNABERT_S.pt", value),
            text,
        )

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (
                merged([1], ROW),
                "'data' is a float32 tensor of shape (3,), expected a float32 tensor with one row",
            ),
            (merged([1], ROW[None].half()), "'data' is a float16 tensor of shape (1, 3)"),
            (
                merged([1], torch.ones(2, 3)),
                "'data' has the shape (2, 3), expected one row for each of the 1 ids",
            ),
            (merged([2]), "'labels' holds int 2, expected [1] (viral) or [0] (host)"),
            (merged([True]), "'labels' holds bool True"),
            (merged([1, 1]), "'labels' holds a list of length 2"),
            (merged(None), "'labels' holds NoneType"),
            (merged([1.0, 2.0]), "'labels' holds 2 floats"),
            (merged(torch.tensor([3])), "'labels' holds 3"),
            (merged(torch.tensor([1.0]).bfloat16()), "'labels' holds a bfloat16 tensor of shape (1,)"),
            (
                merged([1], meta={"x": (1,)}),
                "meta.x is a tuple of length 1, expected str, int, float, bool, None",
            ),
            (merged([1], meta=[1]), "meta is a list of length 1, expected a dict"),
        ],
    )
    def test_merged(self, value: object, text: str, tmp_path: Path) -> None:
        refused(store.read_merged, saved(tmp_path / "output_1_merged.pt", value), text)

    def test_a_look_takes_any_kind_but_nothing_else(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="expected 'data' and 'nucleotide' or 'proteins' or 'ids'"):
            store.read_meta(saved(tmp_path / "a.pt", {"weights": ROW}))

    def test_rows_that_share_their_numbers_many_times_over(self, tmp_path: Path) -> None:
        row = torch.ones(50_000)
        path = saved(tmp_path / "a.pt", {"proteins": ids_of(500), "data": [row] * 500})
        with pytest.raises(StoreError, match=r"its vectors claim 100000000 bytes, the file has \d+"):
            store.read_vectors(path, SequenceType.PROTEIN)

    def test_two_rows_may_be_one_tensor(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "a.pt", {"proteins": ["a", "b"], "data": [ROW, ROW]})
        assert store.read_vectors(path, SequenceType.PROTEIN).vectors.tolist() == [[1, 1, 1], [1, 1, 1]]


def test_the_example_in_the_documentation_runs(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "file-formats.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(code.strip().splitlines()) <= 10
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("['NC_001416.1_0_300'] (1, 2048) 1 {'model': 'example'} ")
    last = "Summary(kind='merged', count=1, width=2048, meta={'model': 'example'}, has_label=True)\n"
    assert done.stdout.endswith(last)


def test_the_public_functions() -> None:
    assert sorted(store.__all__) == store.__all__
    assert all(hasattr(store, name) for name in store.__all__)


def test_rows_without_a_class_have_no_labels(tmp_path: Path) -> None:
    """As scripts write them that merge what they will predict; ``labels`` that hold None are no such file."""
    path = tmp_path / "a.pt"
    store.write_merged(path, ["a"], matrix(1, 2), None, None)
    assert torch.load(path, weights_only=True).keys() == {"ids", "data"}
    assert not store.read_meta(path).has_label
    for found in (store.read_merged(path), store.read_merged_rows(path, range)):
        assert found.label is None
        with pytest.raises(
            StoreError, match="has no 'labels': it was merged without a class; run nucpro extract DATA"
        ):
            store.label_of(found, path)


def test_reads_a_few_rows_of_a_merged_file(tmp_path: Path) -> None:
    vectors, asked = matrix(50, 7), []
    store.write_merged(tmp_path / "ours.pt", ids_of(50), vectors, META, 1)
    column_by_column = torch.from_numpy(vectors).t().contiguous().t()
    torch.save({"ids": ids_of(50), "data": column_by_column, "labels": [1]}, tmp_path / "theirs.pt")
    for name in ("ours.pt", "theirs.pt"):
        read = store.read_merged_rows(tmp_path / name, lambda count: asked.append(count) or [49, 0, 7])
        assert read.ids == [ids_of(50)[row] for row in (49, 0, 7)]
        assert read.vectors.tobytes() == vectors[[49, 0, 7]].tobytes()
        assert read.label == 1
    assert asked == [50, 50]


def test_reading_rows_of_a_damaged_or_other_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    store.write_vectors(path, ids_of(3), matrix(3, 4), None, SequenceType.PROTEIN)
    with pytest.raises(StoreError, match=r"a\.pt"):
        store.read_merged_rows(path, lambda _: [0])
    store.write_merged(path, ids_of(3), matrix(3, 4), None, 0)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"a\.pt"):
        store.read_merged_rows(path, lambda _: [0])
