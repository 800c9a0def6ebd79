"""The check of what a pickle built, and the pickle of what is written, without torch."""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from store_builders import ids_of, matrix

from nucpro import formats as store
from nucpro.errors import StoreError
from nucpro.formats.archive import REMEDY
from nucpro.formats.pickles import Storage, Tensor, dump, load
from nucpro.formats.vectors import Content, Kind, Place, canonical_meta, check_ids, content_of, value_of

PLACE = Place(Path("a.pt"))
STORAGE = Storage("0", "float32", 12)
ROW = Tensor(STORAGE, 0, (3,), (1,))
RUN = np.array([1.5, 2.5], ">f8")


def typed(dtype: str, shape: tuple[int, ...]) -> Tensor:
    return Tensor(Storage("0", dtype, 12), 0, shape, (1,) * len(shape))


def protein(ids: object, *rows: object) -> dict[str, object]:
    return {"proteins": ids, "data": list(rows)}


def dna(values: object, label: object = "a") -> dict[str, object]:
    return {"nucleotide": ["a"], "data": [{"label": label, "mean_representation": values}]}


def merged(data: object, labels: object = (1,), **others: object) -> dict[str, object]:
    labels = list(labels) if isinstance(labels, tuple) else labels
    return {"ids": ["a", "b"], "data": data, "labels": labels, **others}


def problem(call: Callable[[], object]) -> str:
    """Message without the file's name and the remedy, which every one must carry."""
    with pytest.raises(StoreError) as caught:
        call()
    message = str(caught.value)
    assert message.startswith("a.pt: ")
    assert message.endswith(f"; {REMEDY}")
    return message.removeprefix("a.pt: ").removesuffix(f"; {REMEDY}")


def test_what_to_do_about_a_damaged_file() -> None:
    assert REMEDY == "delete the file, or restore it from a copy, and run again"


ROWS = "expected a float32 vector or a list of floats"
REFUSED: list[tuple[object, Kind | None, str]] = [
    ([1, 2], None, "holds a list of length 2, expected a dict"),
    ({}, "dna", "has the keys , expected 'data' and 'nucleotide'"),
    ({"x": 1}, None, "has the keys 'x', expected 'data' and 'nucleotide' or 'proteins' or 'ids'"),
    (protein(["a"]), "merged", "has the keys 'proteins', 'data', expected 'data' and 'ids'"),
    (
        {**protein(["a"], ROW), "ids": ["a"]},
        "protein",
        "has the keys 'proteins', 'data', 'ids', expected 'data' and 'proteins'",
    ),
    (
        dict.fromkeys("abcdefg", 0),
        "protein",
        "has the keys 'a', 'b', 'c', 'd', 'e' and 2 more, expected 'data' and 'proteins'",
    ),
    (
        dict.fromkeys("abcde", 0),
        "protein",
        "has the keys 'a', 'b', 'c', 'd', 'e', expected 'data' and 'proteins'",
    ),
    ({"x" * 101: 0}, "dna", f"has the keys '{'x' * 100}', expected 'data' and 'nucleotide'"),
    (protein("ab"), "protein", "its ids are a str of length 2, expected a list with one str per record"),
    (protein([]), "protein", "its ids are a list of length 0, expected a list with one str per record"),
    (protein(["a", 7.5]), "protein", "id of row 1 is float 7.5, expected a str"),
    (protein(["a", None]), "protein", "id of row 1 is NoneType, expected a str"),
    (protein(["b", "a", "b"]), "protein", "1 of its ids are duplicates: 'b'"),
    (
        {"proteins": ["a"], "data": ROW},
        "protein",
        "'data' is a float32 tensor of shape (3,), expected a list with one entry for each of the 1 ids",
    ),
    (
        protein(["a", "b"], ROW),
        "protein",
        "'data' is a list of length 1, expected a list with one entry for each of the 2 ids",
    ),
    (
        protein(["a", "b"], ROW, typed("float16", (3,))),
        "protein",
        f"row 1 ('b') is a float16 tensor of shape (3,), {ROWS}",
    ),
    (protein(["a"], typed("float32", (1, 3))), None, f"row 0 ('a') is a float32 tensor of shape (1, 3), {ROWS}"),
    (protein(["a"], typed("float32", ())), None, f"row 0 ('a') is a float32 tensor of shape (), {ROWS}"),
    (protein(["a"], typed("float32", (0,))), None, f"row 0 ('a') is a float32 tensor of shape (0,), {ROWS}"),
    (
        protein(["a", "b"], ROW, typed("float32", (2,))),
        "protein",
        "row 1 ('b') has 2 values, expected 3 as in row 0",
    ),
    (protein(["a"], [1.0, 2]), None, f"row 0 ('a') is a list of length 2, {ROWS}"),
    (protein(["a"], []), None, f"row 0 ('a') is a list of length 0, {ROWS}"),
    (protein(["a"], "text"), None, f"row 0 ('a') is a str of length 4, {ROWS}"),
    (protein(["a"], True), None, f"row 0 ('a') is bool True, {ROWS}"),
    (protein(["a", "b"], [1.0, 2.0], [RUN, 3.0]), None, "row 1 ('b') has 3 values, expected 2 as in row 0"),
    (
        {"nucleotide": ["a"], "data": [[1.0]]},
        "dna",
        "row 0 ('a') is a list of length 1, expected a dict with 'mean_representation'",
    ),
    (
        {"nucleotide": ["a"], "data": [{"label": "a"}]},
        "dna",
        "row 0 ('a') is a dict of length 1, expected a dict with 'mean_representation'",
    ),
    (dna([1.0], "b"), "dna", "row 0 has the label 'b', expected its id 'a'"),
    (dna([1.0], "b" * 101), "dna", f"row 0 has the label '{'b' * 100}', expected its id 'a'"),
    (dna([1.0], 3), "dna", "row 0 has the label int 3, expected its id 'a'"),
    (merged([1.0]), "merged", "'data' is a list of length 1, expected a float32 tensor with one row per record"),
    (
        merged(typed("float64", (2, 3))),
        "merged",
        "'data' is a float64 tensor of shape (2, 3), expected a float32 tensor with one row per record",
    ),
    (merged(ROW), None, "'data' is a float32 tensor of shape (3,), expected a float32 tensor with one row per record"),
    (
        merged(typed("float32", (1, 3))),
        "merged",
        "'data' has the shape (1, 3), expected one row for each of the 2 ids",
    ),
    (
        merged(typed("float32", (2, 0))),
        "merged",
        "'data' has the shape (2, 0), expected one row for each of the 2 ids",
    ),
    *(
        (
            merged(typed("float32", (2, 3)), labels),
            "merged",
            f"'labels' holds {what}, expected [1] (viral) or [0] (host)",
        )
        for labels, what in (
            ([2], "int 2"),
            ([-1], "int -1"),
            ([True], "bool True"),
            ([1, 0], "a list of length 2"),
            ([], "a list of length 0"),
            (None, "NoneType"),
            (["viral"], "a str of length 5"),
            (typed("bfloat16", (1,)), "a bfloat16 tensor of shape (1,)"),
            (typed("int64", (2,)), "an int64 tensor of shape (2,)"),
        )
    ),
    (
        protein(["a"], ROW) | {"meta": {"x": (1,)}},
        "protein",
        "meta.x is a tuple of length 1, expected str, int, float, bool, None, or a list or dict of them",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("value", "kind", "text"), REFUSED, ids=[text[:60] for _, _, text in REFUSED])
def test_values_that_are_no_file(value: object, kind: Kind | None, text: str) -> None:
    assert problem(lambda: content_of(value, kind, PLACE)) == text


def test_files_of_each_kind() -> None:
    rows = [ROW, Tensor(STORAGE, 3, (3,), (1,))]
    assert content_of(protein(["a", "b"], *rows), "protein", PLACE) == Content(
        "protein", ["a", "b"], rows, 3, None, None
    )
    assert content_of(dna([RUN, 0.5]), None, PLACE).width == 3
    assert content_of(dna([0.5]) | {"meta": {"x": 1}, "other": 3}, "dna", PLACE) == Content(
        "dna", ["a"], [[0.5]], 1, None, {"x": 1}
    )
    data = typed("float32", (2, 6))
    assert content_of(merged(data, meta=None), "merged", PLACE) == Content(
        "merged", ["a", "b"], data, 6, 1, None
    )


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "float16"])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_labels_may_be_tensors(dtype: str, shape: tuple[int, ...]) -> None:
    label = typed(dtype, shape)
    assert content_of(merged(typed("float32", (2, 3)), label), "merged", PLACE).label == label


def test_a_label_without_a_list() -> None:
    assert content_of(merged(typed("float32", (2, 3)), 0), "merged", PLACE).label == 0


META_REFUSED = [
    ([1], "meta is a list of length 1, expected a dict"),
    ({"a": {1: 2}}, "meta.a has a key that is no str"),
    ({"a": [0, {"b": {1}}]}, "meta.a[1].b is set, expected str, int, float, bool, None, or a list or dict of them"),
    ({"k" * 101: b""}, f"meta.{'k' * 100} is bytes, expected str, int, float, bool, None, or a list or dict of them"),
]  # fmt: skip


@pytest.mark.parametrize(("meta", "text"), META_REFUSED)
def test_meta_that_is_not_plain(meta: object, text: str) -> None:
    assert problem(lambda: canonical_meta(meta, PLACE)) == text


def nested(levels: int, form: Callable[[object], object]) -> dict[str, object]:
    value: object = 1
    for _ in range(levels - 1):
        value = form(value)
    return {"x": value}


@pytest.mark.parametrize("form", [lambda value: [value], lambda value: {"x": value}], ids=["lists", "dicts"])
def test_meta_has_at_most_32_levels(form: Callable[[object], object]) -> None:
    assert canonical_meta(nested(32, form), PLACE) == nested(32, form)
    assert problem(lambda: canonical_meta(nested(33, form), PLACE)).endswith(
        " has more than 100000 values, or deeper than 32 levels"
    )


def test_meta_has_at_most_a_hundred_thousand_values() -> None:
    # The dict and the list count too.
    assert canonical_meta({"x": [0] * 99_998}, PLACE) == {"x": [0] * 99_998}
    assert problem(lambda: canonical_meta({"x": [0] * 99_999}, PLACE)).startswith(
        "meta.x[99998] has more than"
    )
    run = np.ones(99_997)
    assert canonical_meta({"x": [run, 1]}, PLACE) == {"x": [1.0] * 99_997 + [1]}
    assert problem(lambda: canonical_meta({"x": [run, 1, 1]}, PLACE)).startswith("meta.x[2] has more than")


def test_meta_numbers_have_fewer_than_2000_bits() -> None:
    assert canonical_meta({"x": 2**1999 - 1}, PLACE) == {"x": 2**1999 - 1}
    assert problem(lambda: canonical_meta({"x": 2**1999}, PLACE)).startswith("meta.x is int 5740")


def test_meta_is_copied_with_sorted_keys() -> None:
    meta = {"b": {"z": [1, RUN, None], "a": "x"}, "a": True, "c": 1.5}
    copied = canonical_meta(meta, PLACE)
    assert list(copied) == ["a", "b", "c"]
    assert list(copied["b"]) == ["a", "z"]
    assert copied["b"]["z"] == [1, 1.5, 2.5, None]
    assert copied["b"] is not meta["b"]


def test_ids_are_given_back() -> None:
    ids = ["a", "b"]
    assert check_ids(ids, PLACE) is ids


def test_values_to_write() -> None:
    ids, storage = ["a", "b"], Storage("0", "float32", 6)
    rows = [Tensor(storage, 0, (3,), (1,)), Tensor(storage, 3, (3,), (1,))]
    assert value_of("protein", ids, 3, None, None) == {"proteins": ids, "data": rows}
    assert value_of("dna", ids, 3, None, {"x": 1}) == {
        "nucleotide": ids,
        "data": [
            {"label": "a", "mean_representation": rows[0]},
            {"label": "b", "mean_representation": rows[1]},
        ],
        "meta": {"x": 1},
    }
    whole = Tensor(storage, 0, (2, 3), (3, 1))
    assert value_of("merged", ids, 3, 0, {}) == {"ids": ids, "data": whole, "labels": [0], "meta": {}}


NUMBERS = (0, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -1, -(2**31), -(2**31) - 1, 2**70, -(2**70), 2**1998)


@pytest.mark.parametrize("value", NUMBERS)
def test_numbers_take_the_opcode_that_fits_them(value: int) -> None:
    (_, (opcode, found, _), _) = list(pickletools.genops(dump(value)))
    assert found == value
    name = next(
        name
        for name, low, high in (
            ("BININT1", 0, 1 << 8),
            ("BININT2", 0, 1 << 16),
            ("BININT", -(1 << 31), 1 << 31),
            ("LONG1", value, value + 1),
        )
        if low <= value < high
    )  # fmt: skip
    assert opcode.name == name
    assert load(memoryview(dump(value)), {}, "a.pt") == value


def test_a_memo_of_more_than_256_entries_and_batches_of_1000_items() -> None:
    texts = [f"text {number}" for number in range(2001)]
    data = dump([*texts, *texts[250:260]])
    assert load(memoryview(data), {}, "a.pt") == [*texts, *texts[250:260]]
    opcodes = [(opcode.name, value) for opcode, value, _ in pickletools.genops(data)]
    names = [name for name, _ in opcodes]
    assert (names.count("BINPUT"), names.count("LONG_BINPUT"), names.count("APPENDS")) == (256, 1745, 3)
    assert [value for name, value in opcodes if name == "BINGET"] == list(range(250, 256))
    assert [value for name, value in opcodes if name == "LONG_BINGET"] == list(range(256, 260))


def test_a_dict_of_more_than_1000_items() -> None:
    value = {f"key {number}": number for number in range(1001)}
    assert load(memoryview(dump(value)), {}, "a.pt") == value
    assert [op.name for op, _, _ in pickletools.genops(dump(value))].count("SETITEMS") == 2


def test_the_opcodes_of_a_tensor() -> None:
    """As torch.save writes them, so that torch's loader takes them."""
    assert dump(Tensor(STORAGE, 1, (2, 3), (3, 1))) == (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nq\x00((X\x07\x00\x00\x00storageq\x01"
        b"ctorch\nFloatStorage\nq\x02X\x01\x00\x00\x000q\x03X\x03\x00\x00\x00cpuq\x04K\x0ctQq\x05"
        b"K\x01(K\x02K\x03tq\x06(K\x03K\x01tq\x07\x89ccollections\nOrderedDict\nq\x08)RtR."
    )


def test_a_value_of_another_type_is_not_written() -> None:
    with pytest.raises(TypeError) as caught:
        dump({"a": [b"x"]})
    assert str(caught.value) == "a bytes cannot be written, only plain values and tensors"


def test_a_few_rows_of_a_merged_file(tmp_path: Path) -> None:
    vectors, asked = matrix(50, 7), []
    store.write_merged(tmp_path / "a.pt", ids_of(50), vectors, None, 1)
    read = store.read_merged_rows(tmp_path / "a.pt", lambda count: asked.append(count) or [49, 0, 7])
    assert asked == [50]
    assert read.ids == [ids_of(50)[row] for row in (49, 0, 7)]
    assert (read.vectors.dtype, read.vectors.shape) == (np.float32, (3, 7))
    assert read.vectors.tobytes() == vectors[[49, 0, 7]].tobytes()
    assert read.label == 1
    assert store.read_merged_rows(tmp_path / "a.pt", lambda count: []).vectors.shape == (0, 7)
