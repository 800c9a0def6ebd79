"""Archives and pickles as other programs make them, damaged or hostile on purpose."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np

PERSISTENT_ID = b"(\x8c\x07storagectorch\nFloatStorage\n\x8c\x010\x8c\x03cpuK\x0ctQ"
"""Twelve float32 elements in data/0."""
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
NO_HOOKS = b"\x89ccollections\nOrderedDict\n)R"


def number(value: int) -> bytes:
    """Opcode of an int that is not negative."""
    return b"\x8a\x09" + value.to_bytes(9, "little")


def numbers(values: tuple[int, ...]) -> bytes:
    """Opcodes of a tuple of ints."""
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    offset: int, shape: tuple[int, ...], strides: tuple[int, ...], storage: bytes = PERSISTENT_ID
) -> bytes:
    """Opcodes of a tensor, whatever it claims."""
    return REBUILD + b"(" + storage + number(offset) + numbers(shape) + numbers(strides) + NO_HOOKS + b"tR"


def proteins(*rows: bytes) -> bytes:
    """Pickle of a protein file with the ids 0, 1 … and the rows that the opcodes make."""
    ids = b"".join(b"\x8c\x01" + b"%d" % index for index in range(len(rows)))
    return b"\x80\x02}(\x8c\x08proteins](" + ids + b"e\x8c\x04data](" + b"".join(rows) + b"eu."


def wanted(value: bytes) -> bytes:
    """Pickle of a good protein file with one more key, whose value the opcodes make."""
    return proteins(tensor(0, (12,), (1,)))[:-2] + b"\x8c\x01x" + value + b"u."


def container(data: bytes, *, prefix: str = "archive", storage: bytes = bytes(48), **others: bytes) -> bytes:
    """Archive with a pickle, one storage and other members, made by Python's zipfile."""
    members = {"data.pkl": data, "data/0": storage, "version": b"3\n", **others}
    return zipped({f"{prefix}/{name}": content for name, content in members.items()})


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Zip archive of any members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


def reduced(function: object, *arguments: object, protocol: int = 2) -> bytes:
    """Opcodes that call a function, as Python's pickler writes them, without PROTO and STOP."""

    class Call:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return function, arguments

    return pickle.dumps(Call(), protocol)[2:-1]


def ids_of(count: int) -> list[str]:
    """Ids of the form that the data sets have."""
    return [f"NC_{index:06d}.1_{index * 300}_{index * 300 + 300}_frame{index % 6}" for index in range(count)]


def matrix(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Random float32 vectors."""
    return np.random.default_rng(seed).standard_normal((rows, columns), dtype=np.float32)


def put(path: Path, data: bytes) -> Path:
    """Write a file and give its path."""
    path.write_bytes(data)
    return path
