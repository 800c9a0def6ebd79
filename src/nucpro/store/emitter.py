"""Plain values and tensor descriptions as a pickle that ``torch.load(weights_only=True)`` reads.

Values come from :mod:`nucpro.store.files`, the bytes become ``data.pkl`` of an archive. What
:func:`nucpro.store.pickles.load` builds from them is equal to what was given.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from nucpro.store.pickles import ORDERED_DICT, REBUILD_TENSOR, STORAGE_CLASSES, Storage, Tensor

__all__ = ["dump"]

_PROTOCOL = 2
_BATCH = 1000
"""Items that a reader keeps waiting at a time, as in Python's own pickler."""

T = TypeVar("T")


def dump(value: object) -> bytes:
    """Pickle a value in protocol 2; equal values give equal bytes, whichever of their parts are shared.

    Parameters
    ----------
    value : dict, list, str, int, float, bool, None or Tensor
        Nested as needed. Each string, tensor shape and storage is written once and repeated from the memo.

    Raises
    ------
    TypeError
        A part has another type.
    """
    emitter = _Emitter()
    emitter.emit(value)
    return b"".join([b"\x80", bytes([_PROTOCOL]), *emitter.out, b"."])


class _Emitter:
    """Pickle that is being written: its pieces, and the memo by value."""

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.memo: dict[object, bytes] = {}

    def emit(self, value: object) -> None:
        """Write any value."""
        method = _EMITTERS.get(type(value))
        if method is None:
            raise TypeError(f"a {type(value).__name__} cannot be written, only plain values and tensors")
        method(self, value)

    def once(self, key: object, make: Callable[[], None]) -> None:
        """Repeat what was written under an equal key, or write and remember it."""
        known = self.memo.get(key)
        if known is not None:
            self.out.append(known)
            return
        make()
        index = len(self.memo)
        put, get, form = (b"q", b"h", "<B") if index < 256 else (b"r", b"j", "<I")
        number = struct.pack(form, index)
        self.out.append(put + number)
        self.memo[key] = get + number

    def text(self, value: str) -> None:
        data = value.encode("utf-8", "surrogatepass")
        self.once(value, lambda: self.out.append(b"X" + struct.pack("<I", len(data)) + data))

    def integer(self, value: int) -> None:
        if 0 <= value < 1 << 16:
            self.out.append(
                struct.pack("<cB", b"K", value) if value < 256 else struct.pack("<cH", b"M", value)
            )
        elif -(1 << 31) <= value < 1 << 31:
            self.out.append(struct.pack("<ci", b"J", value))
        else:
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            self.out.append(struct.pack("<cB", b"\x8a", len(data)) + data)

    def items(self, values: list[object]) -> None:
        self.out.append(b"]")
        for batch in _batches(values):
            self.out.append(b"(")
            for value in batch:
                self.emit(value)
            self.out.append(b"e")

    def mapping(self, values: dict[str, object]) -> None:
        self.out.append(b"}")
        for batch in _batches(list(values.items())):
            self.out.append(b"(")
            for key, value in batch:
                self.text(key)
                self.emit(value)
            self.out.append(b"u")

    def tensor(self, tensor: Tensor) -> None:
        self.name(REBUILD_TENSOR)
        self.out.append(b"(")
        self.once(tensor.storage, lambda: self.storage(tensor.storage))
        self.integer(tensor.offset)
        self.numbers(tensor.shape)
        self.numbers(tensor.strides)
        self.out.append(b"\x89")
        # Every tensor gets hooks of its own, as torch writes them: shared ones would be one object in torch.
        self.name(ORDERED_DICT)
        self.out.append(b")RtR")

    def storage(self, storage: Storage) -> None:
        self.out.append(b"(")
        self.text("storage")
        self.name(STORAGE_CLASSES[storage.dtype])
        self.text(storage.key)
        self.text("cpu")
        self.integer(storage.count)
        self.out.append(b"tQ")

    def numbers(self, values: tuple[int, ...]) -> None:
        def make() -> None:
            self.out.append(b"(")
            for value in values:
                self.integer(value)
            self.out.append(b"t")

        self.once(values, make)

    def name(self, name: str) -> None:
        module, _, attribute = name.rpartition(".")
        self.once((name,), lambda: self.out.append(f"c{module}\n{attribute}\n".encode()))


_EMITTERS: dict[type, Callable[[_Emitter, Any], None]] = {
    dict: _Emitter.mapping,
    list: _Emitter.items,
    str: _Emitter.text,
    int: _Emitter.integer,
    float: lambda emitter, value: emitter.out.append(struct.pack(">cd", b"G", value)),
    bool: lambda emitter, value: emitter.out.append(b"\x88" if value else b"\x89"),
    type(None): lambda emitter, _: emitter.out.append(b"N"),
    Tensor: _Emitter.tensor,
}


def _batches(values: list[T]) -> Iterator[list[T]]:
    """Parts of a list that a reader keeps waiting at a time."""
    return (values[start : start + _BATCH] for start in range(0, len(values), _BATCH))
