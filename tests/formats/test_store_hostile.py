"""Files that somebody made on purpose: nothing of them runs, and none takes more memory than is stated."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from store_builders import (
    NO_HOOKS,
    PERSISTENT_ID,
    REBUILD,
    container,
    number,
    numbers,
    proteins,
    put,
    reduced,
    tensor,
    wanted,
    zipped,
)

from nucpro import formats as store
from nucpro.errors import StoreError
from nucpro.formats.pickles import load
from nucpro.formats.sequences import SequenceType

GOOD = proteins(tensor(0, (12,), (1,)))
TOUCH = "touch pwned"
GETATTR = b"c__builtin__\ngetattr\n(c__builtin__\n__import__\n\x8c\x02os\x85R\x8c\x06systemtR"
CALL = b"\x8c\x0btouch pwned\x85R"


PICKLES = {
    "reduce os.system": (
        wanted(reduced(os.system, TOUCH)),
        f"it wants {os.system.__module__}.system, and only tensors",
    ),
    "reduce eval": (wanted(reduced(eval, "open('pwned', 'w')")), "it wants __builtin__.eval"),
    "reduce exec, protocol 4": (
        wanted(reduced(exec, "open('pwned', 'w')", protocol=4)),
        "it wants builtins.exec",
    ),
    "reduce open": (wanted(reduced(open, "pwned", "w", protocol=4)), f"it wants {open.__module__}.open"),
    "reduce subprocess": (wanted(reduced(subprocess.Popen, TOUCH, protocol=4)), "it wants subprocess.Popen"),
    "getattr chain": (wanted(GETATTR + CALL), "it wants __builtin__.getattr"),
    "dotted name": (
        wanted(b"\x8c\x05torch\x8c\x10_utils.os.system\x93" + CALL),
        "it wants torch._utils.os.system",
    ),
    "dotted known name": (
        wanted(b"\x8c\x05torch\x8c\x19_utils._rebuild_tensor_v2\x93"),
        "it wants torch._utils._rebuild_tensor_v2",
    ),
    "dotted name in GLOBAL": (
        wanted(b"ctorch\n_utils.os.system\n" + CALL),
        "it wants torch._utils.os.system",
    ),
    "names that are no strings": (wanted(b"K\x01]\x93"), "it wants <int>.<list>"),
    "name without an end": (wanted(b"c" + b"a" * 300), "a name has no end within 256 bytes"),
    "name with control characters": (wanted(b"c\x1b[2J\nx\n"), r"it wants \x1b[2J.x"),
    "load of another pickle": (
        wanted(reduced(pickle.loads, b"cos\nsystem\n", protocol=4)),
        "it wants _pickle.loads",
    ),
    "torch.load itself": (wanted(b"ctorch\nload\n\x8c\x05pwned\x85R"), "it wants torch.load"),
    "inst": (wanted(b"(\x8c\x0btouch pwnedios\nsystem\n"), "it wants os.system (opcode INST)"),
    "obj": (wanted(b"(cos\nsystem\n\x8c\x0btouch pwnedo"), "it wants os.system"),
    "obj of a known name": (wanted(b"(ccollections\nOrderedDict\no"), "opcode OBJ (0x6f)"),
    "build": (wanted(b"ccollections\nOrderedDict\n)R}b"), "opcode BUILD (0x62)"),
    "newobj": (wanted(b"ccollections\nOrderedDict\n)\x81"), "opcode NEWOBJ (0x81)"),
    "newobj_ex": (wanted(b"ccollections\nOrderedDict\n)}\x92"), "opcode NEWOBJ_EX (0x92)"),
    "extension 1": (wanted(b"\x82\x01"), "opcode EXT1 (0x82)"),
    "extension 4": (wanted(b"\x84\1\0\0\0"), "opcode EXT4 (0x84)"),
    "text persistent id": (wanted(b"Pos.system\n"), "opcode PERSID (0x50)"),
    "persistent id of a string": (wanted(b"\x8c\x06moduleQ"), "persistent id is a str of another form"),
    "persistent id of a module": (
        wanted(PERSISTENT_ID.replace(b"\x07storage", b"\x06module")),
        "persistent id is a tuple",
    ),
    "persistent id of a list": (
        wanted(PERSISTENT_ID.replace(b"(\x8c\x07", b"](\x8c\x07").replace(b"tQ", b"eQ")),
        "persistent id is a list",
    ),
    "persistent id of a function": (
        wanted(PERSISTENT_ID.replace(b"torch\nFloatStorage", b"os\nsystem")),
        "it wants os.system",
    ),
    "storage of a function": (
        wanted(PERSISTENT_ID.replace(b"torch\nFloatStorage", b"collections\nOrderedDict")),
        "persistent id is a tuple",
    ),
    "call of a storage": (
        wanted(b"ctorch\nFloatStorage\n(J\xff\xff\xff\x7ftR"),
        "it calls torch.FloatStorage in a form",
    ),
    "call of a string": (wanted(b"\x8c\x06system)R"), "it calls a str in a form"),
    "ordered dict of a list": (
        wanted(b"ccollections\nOrderedDict\n]\x85R"),
        "it calls collections.OrderedDict",
    ),
    "text int": (wanted(b"I" + b"9" * 5000 + b"\n"), "opcode INT (0x49)"),
    "text long": (wanted(b"L" + b"9" * 5000 + b"L\n"), "opcode LONG (0x4c)"),
    "text float": (wanted(b"F1e5\n"), "opcode FLOAT (0x46)"),
    "long of four gigabytes": (wanted(b"\x8b\xff\xff\xff\x7f"), "opcode LONG4 (0x8b)"),
    "bytes of 2**60": (wanted(b"\x8e" + struct.pack("<Q", 2**60)), "opcode BINBYTES8 (0x8e)"),
    "bytearray of 2**60": (wanted(b"\x96" + struct.pack("<Q", 2**60)), "opcode BYTEARRAY8 (0x96)"),
    "string of 2**60": (
        wanted(b"\x8d" + struct.pack("<Q", 2**60)),
        "it claims 1152921504606846976 bytes where 2 are left",
    ),
    "string of four gigabytes": (wanted(b"X\xff\xff\xff\xff"), "it claims 4294967295 bytes where 2 are left"),
    "string that is no text": (wanted(b"X\2\0\0\0\xff\xff"), "a string of 2 bytes is not UTF-8"),
    "frame of 2**60": (
        wanted(b"\x95" + struct.pack("<Q", 2**60)),
        "a frame claims 1152921504606846976 bytes",
    ),
    "frame that is a little too long": (
        wanted(b"\x95" + struct.pack("<Q", 50)),
        "a frame claims 50 bytes where 2 are left",
    ),
    "append to a name": (
        wanted(b"ccollections\nOrderedDict\nNa"),
        "it appends to a collections.OrderedDict",
    ),
    "buffer from elsewhere": (wanted(b"\x97"), "opcode NEXT_BUFFER (0x97)"),
    "memo entry far away": (wanted(b"Nr\xff\xff\xff\x7f"), "memo entry 2147483647 comes after entry -1"),
    "memo entry that is not there": (wanted(b"h\x07"), "it asks for memo entry 7 of 0"),
    "memo in text": (wanted(b"Np99999999\n"), "opcode PUT (0x70)"),
    "marks without end": (wanted(b"(" * 100_000), "values are nested more than 64 levels deep"),
    "values without end": (wanted(b"N" * 100_000), "more than 4096 values wait for a container"),
    "duplicated values": (wanted(b"]2222"), "opcode DUP (0x32)"),
    "popped values": (wanted(b"N0"), "opcode POP (0x30)"),
    "empty lists without end": (
        wanted(b"]" + (b"(" + b"]" * 1000 + b"e") * 400),
        "it builds more containers than its",
    ),
    "set": (wanted(b"\x8f"), "opcode EMPTY_SET (0x8f)"),
    "append to a string": (wanted(b"\x8c\x01aNa"), "it appends to a str"),
    "item of a list": (wanted(b"]\x8c\x01aNs"), "it sets an item of a list"),
    "key that is no string": (wanted(b"}K\x01Ns"), "a dict has a key that is no string"),
    "colliding keys": (
        wanted(b"}(" + b"".join(number(k * (2**61 - 1)) + b"N" for k in range(8)) + b"u"),
        "a dict has a key that is no string",
    ),
    "odd number of items": (wanted(b"}(\x8c\x01au"), "a dict has a key that is no string"),
    "no such opcode": (wanted(b"\xff"), "opcode unknown (0xff)"),
    "nothing to append": (b"\x80\x02]e.", "an opcode takes a value that is not there"),
    "no stop": (GOOD[:-1], "it ends before its STOP"),
    "half a number": (GOOD[:-1] + b"J\0", "it claims 4 bytes where 1 are left"),
    "half a length": (GOOD[:-1] + b"X\0", "it ends before its STOP"),
    "bytes behind the stop": (GOOD + b"cos\nsystem\n.", "values or bytes are left over at its STOP"),
    "two values": (b"\x80\x02NN.", "values or bytes are left over at its STOP"),
    "protocol 1": (b"}.", "it does not start as a pickle of protocol 2 to 5"),
    "protocol 6": (b"\x80\x06}.", "it does not start as a pickle of protocol 2 to 5"),
    "no pickle": (b"", "it does not start as a pickle of protocol 2 to 5"),
}

HUGE = PERSISTENT_ID.replace(b"K\x0c", number(2**62))
TENSORS = {
    "storage of exabytes": (
        tensor(0, (2**62,), (1,), HUGE),
        "storage 0 of 4611686018427387904 float32 elements needs",
    ),
    "storage that is not there": (
        tensor(0, (1,), (1,), PERSISTENT_ID.replace(b"\x010", b"\x017")),
        "the archive has None",
    ),
    "storage smaller than its member": (
        tensor(0, (1,), (1,), PERSISTENT_ID.replace(b"K\x0c", b"K\x0b")),
        "needs 44 bytes, the archive has 48",
    ),
    "negative storage": (
        tensor(0, (1,), (1,), PERSISTENT_ID.replace(b"K\x0c", b"J\xf4\xff\xff\xff")),
        "needs -48 bytes",
    ),
    "key that leads elsewhere": (
        tensor(0, (1,), (1,), PERSISTENT_ID.replace(b"\x010", b"\x0b../data.pkl")),
        "storage ../data.pkl of 12",
    ),
    "rows of stride 0": (
        tensor(0, (2**40,), (0,)),
        "does not fit its storage of 12 elements, or some of its",
    ),
    "matrix of stride 0": (tensor(0, (2**40, 12), (0, 1)), "some of its elements overlap"),
    "overlapping rows": (tensor(0, (10, 3), (1, 1)), "some of its elements overlap"),
    "interleaved rows": (tensor(0, (2, 3), (3, 2)), "some of its elements overlap"),
    "behind the storage": (tensor(1, (12,), (1,)), "of shape (12,), strides (1,) and offset 1 does not fit"),
    "stride behind the storage": (tensor(0, (2,), (12,)), "does not fit its storage of 12 elements"),
    "offset of 2**70": (tensor(2**70, (1,), (1,)), "does not fit its storage of 12 elements"),
    "nothing, but elsewhere": (tensor(13, (0,), (1,)), "does not fit its storage of 12 elements"),
    "negative offset": (
        REBUILD + b"(" + PERSISTENT_ID + b"J\xff\xff\xff\xff" + numbers((1,)) * 2 + NO_HOOKS + b"tR",
        "offset that is no number",
    ),
    "negative stride": (
        REBUILD + b"(" + PERSISTENT_ID + b"K\0" + numbers((2,)) + b"J\xff\xff\xff\xff\x85" + NO_HOOKS + b"tR",
        "shape and strides",
    ),
    "shape of a list": (
        REBUILD + b"(" + PERSISTENT_ID + b"K\0]" + numbers((1,)) + NO_HOOKS + b"tR",
        "shape and strides",
    ),
    "shape without strides": (tensor(0, (12,), ()), "shape and strides are not the same number of"),
    "nine dimensions": (tensor(0, (1,) * 9, (1,) * 9), "shape and strides are not the same number of"),
    "no storage": (tensor(0, (12,), (1,), b"N"), "a tensor has no storage"),
    "hooks": (tensor(0, (12,), (1,))[: -len(NO_HOOKS) - 2] + b"\x89}\x8c\x01aNstR", "a tensor carries hooks"),
    "no arguments": (REBUILD + b")R", "it calls torch._utils._rebuild_tensor_v2 in a form"),
    "seven arguments": (
        tensor(0, (12,), (1,))[:-2] + b"}tR",
        "it calls torch._utils._rebuild_tensor_v2 in a form",
    ),
}


def refused(path: Path, text: str, folder: Path) -> None:
    """Check that no reader takes the file, each message names it and its wish, and nothing ran."""
    before = sorted(folder.iterdir())
    for read in (
        partial(store.read_vectors, sequence_type=SequenceType.PROTEIN),
        partial(store.read_vectors, sequence_type=SequenceType.DNA),
        store.read_merged,
        store.read_meta,
    ):
        with pytest.raises(StoreError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert text in str(caught.value)
        assert str(caught.value).endswith("and run again")
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1000
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("name", PICKLES)
def test_pickles(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data, text = PICKLES[name]
    refused(put(tmp_path / "output_1.pt", container(data)), text, tmp_path)


@pytest.mark.parametrize("name", TENSORS)
def test_tensors(name: str, tmp_path: Path) -> None:
    row, text = TENSORS[name]
    refused(put(tmp_path / "output_1.pt", container(proteins(row))), text, tmp_path)


def test_the_payloads_do_harm_where_they_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    harmful = [b"\x80\x02" + reduced(os.system, TOUCH) + b".", b"\x80\x02(\x8c\x0btouch pwnedios\nsystem\n."]
    for data in harmful:
        assert pickle.loads(data) == 0
        (tmp_path / "pwned").unlink()


def test_the_good_file_of_these_tests_is_good(tmp_path: Path) -> None:
    assert store.read_vectors(
        put(tmp_path / "a.pt", container(GOOD)), SequenceType.PROTEIN
    ).vectors.shape == (1, 12)
    assert (
        store.read_vectors(put(tmp_path / "a.pt", container(wanted(b"N"))), SequenceType.PROTEIN).meta is None
    )
    assert store.read_vectors(put(tmp_path / "a.pt", with_wide_records()), SequenceType.PROTEIN).ids == ["0"]


def edited(data: bytes, place: bytes, offset: int, value: bytes) -> bytes:
    """Change bytes that lie `offset` behind the last occurrence of a header's signature."""
    start = data.rindex(place) + offset
    return data[:start] + value + data[start + len(value) :]


def with_member(info: zipfile.ZipInfo | str, content: bytes) -> bytes:
    """Good archive with one more member."""
    buffer = io.BytesIO(container(GOOD))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(info, content)
    return buffer.getvalue()


def twice() -> bytes:
    with pytest.warns(UserWarning, match="Duplicate name"):
        return with_member("archive/data.pkl", b"\x80\x02cos\nsystem\n.")


def with_wide_records() -> bytes:
    """Good archive with the 64-bit directory records that torch writes."""
    start = FILE.rindex(END)
    count, size, offset = struct.unpack_from("<HLL", FILE, start + 10)
    wide = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 30, 30, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, start, 1)
    return FILE[:start] + wide + locator + FILE[start:]


def before(data: bytes) -> bytes:
    """Archive behind other bytes, with all its offsets right."""
    buffer = io.BytesIO(data)
    buffer.seek(len(data))
    with zipfile.ZipFile(buffer, "a") as archive:
        for name, content in {"data.pkl": GOOD, "data/0": bytes(48)}.items():
            archive.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def longer(data: bytes, count: int) -> bytes:
    """Archive whose directory ends with bytes of no member, which it counts."""
    start = data.rindex(END)
    size, *_ = struct.unpack_from("<L", data, start + 12)
    return edited(data[:start] + bytes(count) + data[start:], END, 12, struct.pack("<L", size + count))


ENTRY, LOCAL, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"
FILE = container(GOOD)
ARCHIVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "zip bomb": (
        lambda: zipped({"archive/data.pkl": bytes(10**7)}, zipfile.ZIP_DEFLATED),
        "member 'archive/data.pkl' has method 8",
    ),
    "encrypted member": (lambda: edited(FILE, ENTRY, 8, b"\1\0"), "member 'archive/version' is encrypted"),
    "strongly encrypted member": (
        lambda: edited(FILE, ENTRY, 8, b"\x40\0"),
        "member 'archive/version' is encrypted",
    ),
    "encrypted in the local header": (
        lambda: edited(FILE, LOCAL, 6, b"\1\0"),
        "member 'archive/version' is encrypted",
    ),
    "compressed in the local header": (
        lambda: edited(FILE, LOCAL, 8, b"\x08\0"),
        "member 'archive/version' has method 8",
    ),
    "two members of one name": (
        twice,
        "member 'archive/data.pkl' is a duplicate, or has a second folder name",
    ),
    "two folders": (
        lambda: with_member("other/data.pkl", GOOD),
        "member 'other/data.pkl' is a duplicate, or has a second",
    ),
    "nested archive": (
        lambda: zipped({"archive/inner.pt": FILE}),
        "is a zip archive without data.pkl ('inner.pt')",
    ),
    "symbolic link": (
        lambda: edited(FILE, ENTRY, 38, struct.pack("<L", 0o120777 << 16)),
        "is a link, has 4 GiB or more, or has two sizes",
    ),
    "path out of the folder": (
        lambda: with_member("archive/../../pwned", b""),
        "member name 'archive/../../pwned' does not have the form",
    ),
    "absolute path": (
        lambda: with_member("/etc/passwd", b""),
        "member name '/etc/passwd' does not have the form FOLDER/NAME",
    ),
    "path with backslashes": (
        lambda: with_member("archive/..\\pwned", b""),
        "does not have the form FOLDER/NAME",
    ),
    "folder": (
        lambda: with_member("archive/x/", b""),
        "member name 'archive/x/' does not have the form FOLDER/NAME",
    ),
    "file without a folder": (
        lambda: with_member("version", b""),
        "member name 'version' does not have the form",
    ),
    "name that is no text": (
        lambda: edited(FILE, b"archive/version", 0, b"\xff"),
        r"member name '\xffrchive/version' is not UTF-8",
    ),
    "two names": (
        lambda: FILE.replace(b"archive/version", b"archive/vorsion", 1),
        "no local header of 'archive/version' at byte",
    ),
    "no local header": (
        lambda: edited(FILE, LOCAL, 0, b"XX"),
        "no local header of 'archive/version' at byte",
    ),
    "size that overlaps": (
        lambda: edited(FILE, ENTRY, 20, struct.pack("<LL", 10**6, 10**6)),
        "1000000 bytes at byte",
    ),
    "size of 4 GiB": (lambda: edited(FILE, ENTRY, 20, b"\xff" * 8), "has 4 GiB or more, or has two sizes"),
    "two sizes": (lambda: edited(FILE, ENTRY, 20, b"\1\0\0\0"), "has two sizes (1, 2)"),
    "other size in the local header": (
        lambda: edited(FILE, LOCAL, 18, struct.pack("<LL", 1, 1)),
        "local header of 'archive/version' claims 1 bytes, the directory 2",
    ),
    "extra field over the next member": (
        lambda: edited(FILE, LOCAL, 28, b"\xff\xff"),
        "member 'archive/version' runs 65535 bytes too far",
    ),
    "extra field one byte over the next member": (
        lambda: edited(FILE, LOCAL, 28, b"\1\0"),
        "member 'archive/version' runs 1 bytes too far",
    ),
    "NUL in a name": (
        lambda: FILE.replace(b"archive/version", b"archive/ver\0ion"),
        r"member name 'archive/ver\x00ion' does not have the form FOLDER/NAME",
    ),
    "directory record of another length": (
        lambda: edited(with_wide_records(), b"PK\x06\x06", 4, b"\x2d"),
        "its two directory records disagree",
    ),
    "directory records of two counts": (
        lambda: edited(with_wide_records(), b"PK\x06\x06", 24, b"\2"),
        "its two directory records disagree",
    ),
    "offset in another member": (
        lambda: edited(FILE, ENTRY, 42, struct.pack("<L", 3)),
        "overlap what starts at 3",
    ),
    "offset behind the file": (
        lambda: edited(FILE, ENTRY, 42, b"\xfe\xff\xff\xff"),
        "at byte 4294967294 overlap what starts at",
    ),
    "other checksum": (
        lambda: edited(FILE, ENTRY, 16, b"abcd"),
        "local header of 'archive/version' claims 2 bytes",
    ),
    "directory elsewhere": (lambda: edited(FILE, END, 16, b"\0\0\0\0"), "does not fit the file's"),
    "too many members": (lambda: edited(FILE, END, 8, b"\xff\xff\xff\xff"), "directory of 65535 members in"),
    "fewer members": (
        lambda: edited(FILE, END, 8, b"\1\0\1\0"),
        "directory holds 121 bytes after its 1 members",
    ),
    "more members": (
        lambda: edited(longer(FILE, 10), END, 8, b"\4\0\4\0"),
        "directory ends within member 4 of 4",
    ),
    "zeros for a member": (
        lambda: edited(longer(FILE, 50), END, 8, b"\4\0\4\0"),
        "directory is damaged at member 4 of 4",
    ),
    "two directory records that disagree": (
        lambda: edited(with_wide_records(), b"PK\x06\x06", 24, bytes([9]) + bytes(7) + bytes([9]) + bytes(7)),
        "its two directory records disagree",
    ),
    "directory record elsewhere": (
        lambda: edited(with_wide_records(), b"PK\x06\x06", 0, b"XX"),
        "its two directory records disagree",
    ),
    "several volumes": (
        lambda: edited(FILE, END, 4, b"\1\0"),
        "is one volume of several, or carries a comment",
    ),
    "other signature": (lambda: edited(FILE, ENTRY, 0, b"XX"), "directory is damaged at member 3 of 3"),
    "entry longer than the directory": (
        lambda: edited(FILE, ENTRY, 30, b"\xff\xff"),
        "directory is damaged at member 3 of 3",
    ),
    "something before the archive": (lambda: before(b"#!/bin/sh\n"), "does not start with its first member"),
    "something behind the archive": (
        lambda: FILE + b"x",
        "a zip archive that is truncated, or has data after",
    ),
    "comment": (
        lambda: edited(FILE, END, 20, b"\1\0") + b"x",
        "a zip archive that is truncated, or has data after",
    ),
    "format of the future": (
        lambda: container(GOOD, version=b"11\n"),
        "format version is b'11', the versions known are 1 to 10",
    ),
    "format that is no number": (lambda: container(GOOD, version=b"x"), "format version is b'x'"),
    "big-endian": (
        lambda: container(GOOD, byteorder=b"big"),
        "byte order is b'big', only little-endian files are read",
    ),
    "empty archive": (lambda: zipped({}), "does not start with its first member"),
    "empty file": (lambda: b"", "is no archive of torch.save: 0 bytes that look like an empty file"),
    "zeros": (lambda: bytes(5000), "5000 bytes that look like zeros, as a crash leaves them"),
    "one byte": (lambda: b"x", "1 bytes that look like an unknown kind of file"),
    "text": (lambda: b">id\nACGT\n" * 9, "81 bytes that look like a FASTA file"),
    "gzip": (lambda: b"\x1f\x8b" + bytes(40), "look like a gzip file"),
    "pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\n", "look like a Git LFS pointer"),
    "pickle": (lambda: GOOD, "look like a bare pickle, which torch.save does not write"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives(name: str, tmp_path: Path) -> None:
    make, text = ARCHIVES[name]
    refused(put(tmp_path / "output_1.pt", make()), text, tmp_path)


BOMBED = """
import resource, sys
from pathlib import Path
from nucpro import formats as store
from nucpro.formats.sequences import SequenceType
from nucpro.errors import StoreError
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sorted(Path(sys.argv[2]).iterdir()):
    try:
        store.read_vectors(path, SequenceType.PROTEIN)
    except StoreError:
        print(path.name)
"""


def test_every_file_here_is_refused_under_a_limit_of_memory(tmp_path: Path) -> None:
    """Small files, of which many claim gigabytes; 100 MiB are enough to find that out."""
    bombs = {f"pickle, {name}": container(data) for name, (data, _) in PICKLES.items()}
    bombs |= {f"tensor, {name}": container(proteins(row)) for name, (row, _) in TENSORS.items()}
    bombs |= {f"archive, {name}": make() for name, (make, _) in ARCHIVES.items()}
    doubled = b"]" + b"".join(b"\x94](h%ch%ce" % (k, k) for k in range(60))
    bombs["meta that doubles"] = container(
        proteins(tensor(0, (12,), (1,)))[:-2] + b"\x8c\x04meta}\x8c\x01x" + doubled + b"su."
    )
    bombs["large zip bomb"] = zipped({"archive/data.pkl": bytes(2**28)}, zipfile.ZIP_DEFLATED)
    for index, data in enumerate(bombs.values()):
        put(tmp_path / f"{index:03}.pt", data)
    done = subprocess.run(
        [sys.executable, "-c", BOMBED, str(100 << 20), tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == sorted(path.name for path in tmp_path.iterdir())
    assert len(bombs) >= 140


DENSE = {
    "dicts": (b"\x8c\x01k\x94a", b"}h\x00NsaNa"),
    "lists": (b"", b"]NaaNaNa"),
    "strings": (b"", b"\x8c\x02\xc4\x80a"),
    "remembered strings": (b"", b"\x8c\x02\xc4\x80\x94a"),
    "runs of one float": (b"", b"(G\0\0\0\0\0\0\0\0e"),
    "numbers": (b"", b"\x8a\x01\x80a"),
    "tensors": (
        REBUILD + b"\x94a(" + tensor(0, (12,), (1,))[len(REBUILD) + 1 : -1] + b"\x94a",
        b"h\x00h\x01Ra",
    ),
}


@pytest.mark.parametrize("name", DENSE)
def test_memory_stays_under_what_is_stated(name: str) -> None:
    """Of the densest pickles, which spend the fewest bytes on each object."""
    head, unit = DENSE[name]
    data = b"\x80\x02]" + head + unit * ((1 << 17) // len(unit)) + b"."
    tracemalloc.start()
    try:
        with suppress(StoreError):
            load(memoryview(data), {"0": 48}, "dense.pt")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(data) < peak < 40 * len(data)
