"""Weight files that somebody made on purpose: nothing of them runs, and none takes more memory than is stated."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import random_esm
from formats.store_builders import (
    NO_HOOKS,
    PERSISTENT_ID,
    REBUILD,
    container,
    number,
    numbers,
    reduced,
    tensor,
    zipped,
)
from nucpro.errors import ModelError, is_plain
from nucpro.models.esm2 import load_esm2
from nucpro.models.tensors import WeightTensors
from nucpro.models.weights import locate

PEAK = 256 << 20
"""Bytes that refusing a file may take above what torch and its modules have."""
CALL = b"\x8c\x0btouch pwned\x85R"


def safetensors(header: object, data: bytes = bytes(48), *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(start: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def raw_header(*entries: tuple[str, object]) -> bytes:
    """A header in which a name may come twice."""
    return b"{" + b",".join(json.dumps({name: value}).encode()[1:-1] for name, value in entries) + b"}"


SAFETENSORS = {
    "overlapping tensors": safetensors({"a": entry(0, 32, [8]), "b": entry(16, 48, [8])}),
    "one tensor inside another": safetensors({"a": entry(0, 48, [12]), "b": entry(8, 16, [2])}),
    "one place under two names": safetensors({"a": entry(0, 48, [12]), "b": entry(0, 48, [12])}),
    "bytes of no tensor between two": safetensors({"a": entry(0, 16, [4]), "b": entry(32, 48, [4])}),
    "bytes behind the last tensor": safetensors({"a": entry(0, 16, [4])}),
    "behind the end of the file": safetensors({"a": entry(0, 2**40, [2**38])}),
    "end before the start": safetensors({"a": entry(48, 0, [12])}),
    "negative start": safetensors({"a": entry(-4, 44, [12])}),
    "shape that needs more bytes": safetensors({"a": entry(0, 48, [13])}),
    "shape that overflows": safetensors({"a": entry(0, 48, [2**32, 2**32, 3])}),
    "negative shape": safetensors({"a": entry(0, 48, [-3, -4])}),
    "shape that is beyond any tensor, of no elements": safetensors(
        {"a": entry(0, 48, [12]), "b": entry(0, 0, [0, 2**63])}
    ),
    "largest shape, of no elements": safetensors({"a": entry(0, 48, [12]), "b": entry(0, 0, [0, 2**64 - 1])}),
    "shape that overflows before it is empty": safetensors({"a": entry(0, 0, [2**62, 2**62, 0])}, b""),
    "no bytes for elements": safetensors({"a": entry(0, 48, [12]), "b": entry(48, 48, [4])}),
    "bytes for no elements": safetensors({"a": entry(0, 48, [0])}),
    "no elements inside another tensor": safetensors({"a": entry(0, 48, [12]), "b": entry(20, 20, [0])}),
    "no elements behind the end": safetensors({"a": entry(0, 48, [12]), "b": entry(60, 60, [0])}),
    "no elements, far away": safetensors({"a": entry(0, 48, [12]), "b": entry(2**63, 2**63, [0])}),
    "scalar without bytes": safetensors({"a": entry(0, 48, [12]), "b": entry(48, 48, [])}),
    "bytes of no tensor at all": safetensors({}),
    "one name twice, of two shapes": safetensors(
        raw_header(("a", entry(0, 48, [12])), ("a", entry(0, 48, [3, 4])))
    ),
    "one name twice, of two types": safetensors(
        raw_header(("a", entry(0, 48, [12])), ("a", entry(0, 48, [24], "F16")))
    ),
    "one name twice, in two places": safetensors(
        raw_header(("a", entry(0, 16, [4])), ("a", entry(16, 48, [8])))
    ),
    "two metadata": safetensors(
        raw_header(("__metadata__", {"a": "1"}), ("__metadata__", {}), ("a", entry(0, 48, [12])))
    ),
    "two offsets": safetensors(
        b'{"a":{"dtype":"F32","shape":[12],"data_offsets":[0,44],"data_offsets":[0,48]}}'
    ),
    "three offsets": safetensors({"a": {"dtype": "F32", "shape": [12], "data_offsets": [0, 48, 48]}}),
    "offsets with a point": safetensors({"a": {"dtype": "F32", "shape": [12], "data_offsets": [0.0, 48.0]}}),
    "offset that overflows": safetensors({"a": entry(0, 2**64, [12])}),
    "half a surrogate as a name": safetensors(
        b'{"\\ud800":{"dtype":"F32","shape":[12],"data_offsets":[0,48]}}'
    ),
    "header filled up with zeros": safetensors(json.dumps({"a": entry(0, 48, [12])}).encode() + bytes(8)),
    "type that is not known": safetensors({"a": entry(0, 48, [12], "F31")}),
    "header of exabytes": safetensors({}, length=2**60),
    "header that overflows": safetensors({}, length=2**64 - 1),
    "header longer than the file": safetensors({}, length=500),
    "header of nothing": safetensors(b"", length=0),
    "header that is no JSON": safetensors(b"{" * 40),
    "header that is very deep": safetensors(b'{"a":' + b"[" * 100_000),
    "header that is a list": safetensors(b"[]"),
    "header that is no UTF-8": safetensors(b'{"\xff":1}'),
    "tensor that is a number": safetensors({"a": 1}),
    "metadata that is no text": safetensors({"__metadata__": {"a": 1}, "a": entry(0, 48, [12])}),
    "pickle": b"\x80\x02cos\nsystem\n" + CALL + b".",
    "archive": container(b"\x80\x02}."),
}


VALID = {
    "no elements first": {"b": entry(0, 0, [0]), "a": entry(0, 48, [12])},
    "no elements between": {"a": entry(0, 16, [4]), "b": entry(16, 16, [0, 7]), "c": entry(16, 48, [8])},
    "no elements last": {"a": entry(0, 48, [12]), "b": entry(48, 48, [3, 0])},
    "two without elements": {"b": entry(0, 0, [0]), "c": entry(0, 0, [0]), "a": entry(0, 48, [12])},
    "scalar": {"a": entry(0, 4, []), "b": entry(4, 48, [11])},
    "metadata": {"__metadata__": {"shape": "9", "a": "b"}, "a": entry(0, 48, [12])},
}


def of(value: bytes) -> bytes:
    """Pickle of a mapping of one name to what the opcodes make, with the strings that torch's loader takes."""
    value = re.sub(rb"\x8c([\x00-\x20])", rb"X\1\0\0\0", value)
    return b"\x80\x02}X\x01\0\0\0a" + value + b"s."


GETATTR = b"c__builtin__\ngetattr\n(c__builtin__\n__import__\n\x8c\x02os\x85R\x8c\x06systemtR"
PICKLES = {
    "reduce os.system": of(reduced(os.system, "touch pwned")),
    "reduce eval": of(reduced(eval, "open('pwned', 'w')")),
    "reduce open": of(reduced(open, "pwned", "w")),
    "reduce subprocess": of(reduced(subprocess.Popen, "touch pwned")),
    "getattr chain": of(GETATTR + CALL),
    "inst": of(b"(\x8c\x0btouch pwnedios\nsystem\n"),
    "obj": of(b"(cos\nsystem\n\x8c\x0btouch pwnedo"),
    "torch.load itself": of(b"ctorch\nload\n\x8c\x05pwned\x85R"),
    "torch.save": of(b"ctorch\nsave\n\x8c\x01a\x8c\x05pwned\x86R"),
    "dotted name": of(b"\x8c\x05torch\x8c\x10_utils.os.system\x93" + CALL),
    "build": of(b"ccollections\nOrderedDict\n)R}\x8c\x05itemsNsb"),
    "newobj": of(b"cbuiltins\nobject\n)\x81"),
    "extension": of(b"\x82\x01"),
    "persistent id of a string": of(b"\x8c\x06moduleQ"),
    "persistent id of a function": of(PERSISTENT_ID.replace(b"torch\nFloatStorage", b"os\nsystem")),
    "storage of exabytes": of(tensor(0, (2**62,), (1,), PERSISTENT_ID.replace(b"K\x0c", number(2**62)))),
    "storage that is not there": of(tensor(0, (1,), (1,), PERSISTENT_ID.replace(b"\x010", b"\x017"))),
    "key that leads elsewhere": of(
        tensor(0, (1,), (1,), PERSISTENT_ID.replace(b"\x010", b"\x0d../../version"))
    ),
    "behind the storage": of(tensor(13, (12,), (1,))),
    "negative offset": of(
        REBUILD + b"(" + PERSISTENT_ID + b"J\xff\xff\xff\xff" + numbers((1,)) * 2 + NO_HOOKS + b"tR"
    ),
    "string of 2**60": of(b"\x8d" + struct.pack("<Q", 2**60)),
    "bytes of 2**60": of(b"\x8e" + struct.pack("<Q", 2**60)),
    "memo entry that is not there": of(b"h\x07"),
    "no stop": of(b"N")[:-1],
    "list": b"\x80\x02].",
    "number": of(b"K\x01"),
    "name that is a number": b"\x80\x02}K\x01" + tensor(0, (12,), (1,)) + b"s.",
    "nested mapping": of(b"}\x8c\x01b" + tensor(0, (12,), (1,)) + b"s"),
    "no pickle": b"",
}
BINS = {name: container(data) for name, data in PICKLES.items()} | {
    "zip bomb": zipped(
        {"archive/data.pkl": b"\x80\x02}" + b"N0" * (1 << 27), "archive/version": b"3\n"},
        zipfile.ZIP_DEFLATED,
    ),
    "archive in an archive": zipped({"archive/inner.bin": container(of(tensor(0, (12,), (1,))))}),
    "traversal": zipped({"../../data.pkl": of(tensor(0, (12,), (1,)))}),
    "two volumes": container(of(b"N"))[:-18] + b"\1\0" + container(of(b"N"))[-16:],
    "GPU pickle": b"\x80\x02cos\nsystem\n" + CALL + b".",
}
FILES = [("model.safetensors", name, data) for name, data in SAFETENSORS.items()]
FILES += [("pytorch_model.bin", name, data) for name, data in BINS.items()]


@pytest.mark.parametrize(("file", "data"), [(f, d) for f, _, d in FILES], ids=[n for _, n, _ in FILES])
def test_hostile_weights_are_refused(
    file: str, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / file
    path.write_bytes(data)
    with pytest.raises(ModelError) as caught:
        dict(WeightTensors((path,)))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert is_plain(message)
    assert len(message) < 1500
    assert list(tmp_path.iterdir()) == [path]


def test_the_good_files_of_these_tests_are_good(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(
        safetensors({"a": entry(0, 16, [4]), "b": entry(16, 48, [2, 4])})
    )
    (tmp_path / "a.bin").write_bytes(container(of(tensor(0, (3, 4), (4, 1)))))
    found = WeightTensors((tmp_path / "a.safetensors",))
    assert {name: tuple(value.shape) for name, value in found.items()} == {"a": (4,), "b": (2, 4)}
    assert dict(WeightTensors((tmp_path / "a.bin",)))["a"].shape == (3, 4)


@pytest.mark.parametrize("name", VALID)
def test_tensors_without_elements_are_tensors(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors(VALID[name]))
    expected = {key: tuple(value["shape"]) for key, value in VALID[name].items() if key != "__metadata__"}
    assert {key: tuple(value.shape) for key, value in WeightTensors((path,)).items()} == expected


@pytest.mark.parametrize("length", range(60, 188))
def test_a_header_of_any_length_is_that_of_safetensors(length: int, tmp_path: Path) -> None:
    """Its first byte is the length, which may be the first letter of another format."""
    text = json.dumps({"a": entry(0, 48, [12])}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors(text.ljust(length)))
    assert list(WeightTensors((path,))) == ["a"]


LIMITED = """
import resource, sys
from pathlib import Path
import torch
from nucpro.errors import ModelError
from nucpro.models.tensors import WeightTensors
torch.load(Path(sys.argv[2]), weights_only=True, mmap=True)  # what loading needs once
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sorted(Path(sys.argv[3]).iterdir()):
    try:
        dict(WeightTensors((path,)))
    except ModelError:
        print(path.name)
"""


def test_hostile_weights_are_refused_under_a_limit_of_memory(tmp_path: Path) -> None:
    """Files of a few bytes that claim exabytes, and a bomb that unpacks to 256 MiB."""
    good, hostile = tmp_path / "good.bin", tmp_path / "hostile"
    good.write_bytes(container(of(tensor(0, (12,), (1,)))))
    hostile.mkdir()
    for index, (file, _, data) in enumerate(FILES):
        (hostile / f"{index:03}{Path(file).suffix}").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(PEAK), good, hostile], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == sorted(path.name for path in hostile.iterdir())


def test_a_tensor_that_stands_for_more_than_its_file_is_never_made(tmp_path: Path) -> None:
    """Elements that share one place: refused by their shape before anything is copied."""
    folder = random_esm.save(random_esm.model(), tmp_path / "m")
    (folder / "model.safetensors").unlink()
    names = torch.load(io.BytesIO(_state_dict()), weights_only=True)
    names["encoder.layer.0.output.dense.bias"] = torch.ones(1).expand(2**40)
    torch.save(names, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"output\.dense\.bias is float32 of shape \(1099511627776,\), but"):
        load_esm2(locate(str(folder)), device=torch.device("cpu"), dtype=torch.float32)


def _state_dict() -> bytes:
    buffer = io.BytesIO()
    torch.save(random_esm.model().state_dict(), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("field", ["vocab_size", "intermediate_size"])
def test_a_configuration_that_claims_terabytes_is_refused_before_memory_is_taken(
    field: str, tmp_path: Path
) -> None:
    folder = random_esm.save(random_esm.model(), tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_size": 1_000_000, "num_attention_heads": 4, field: 1_000_000}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"but config.json makes it floats of shape \(.*1000000\)"):
        load_esm2(locate(str(folder)), device=torch.device("cpu"), dtype=torch.float32)


def test_a_folder_of_weights_is_left_as_it_was(tmp_path: Path) -> None:
    folder = random_esm.save(random_esm.model(), tmp_path / "m")
    copy = shutil.copytree(folder, tmp_path / "copy")
    load_esm2(locate(str(folder)), device=torch.device("cpu"), dtype=torch.float32)
    for path in copy.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()
