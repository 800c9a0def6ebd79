"""Pickles as plain data: a reader that can build plain values and descriptions of tensors, and nothing else.

Bytes come from ``data.pkl`` of an archive; dict, list, tuple, str, int, float, bool, None and :class:`Tensor`
go to :mod:`nucpro.formats.vectors`. The reader imports, calls and looks up nothing by name, so a pickle that
asks for more is refused.

Opcodes are those of Python's ``pickletools``, the ones that the C pickler writes in protocols 2 to 5. Sizes
in the pickle are checked against its bytes, so memory stays below 40 times the pickle's size plus 32 MiB.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeGuard, TypeVar

import numpy as np

from nucpro.errors import StoreError

__all__ = ["ORDERED_DICT", "REBUILD_TENSOR", "STORAGE_CLASSES", "Storage", "Tensor", "dump", "load"]

_STACK_LIMIT = 4096
"""Values waiting at one level; picklers collect 1,000 items (2,000 with keys) before they hand them over."""
_NESTING_LIMIT = 64
_BYTES_PER_CONTAINER = 8
"""The densest rows of the schemas, our own, spend 11 bytes on each list, dict or tuple."""
_FREE_CONTAINERS = 100_000
"""As many as ``meta`` may hold, whose empty lists take a byte each."""
_NAME_LIMIT = 256
_RUN_LIMIT = 1024
_WORD = struct.Struct("<I")

_PROTOCOL = 2

_ELEMENTS = {
    "torch.DoubleStorage": ("float64", 8),
    "torch.FloatStorage": ("float32", 4),
    "torch.HalfStorage": ("float16", 2),
    "torch.BFloat16Storage": ("bfloat16", 2),
    "torch.LongStorage": ("int64", 8),
    "torch.IntStorage": ("int32", 4),
    "torch.ShortStorage": ("int16", 2),
    "torch.CharStorage": ("int8", 1),
    "torch.ByteStorage": ("uint8", 1),
    "torch.BoolStorage": ("bool", 1),
}
"""Storage classes of torch: element type and bytes per element."""
STORAGE_CLASSES = {dtype: name for name, (dtype, _) in _ELEMENTS.items()}
REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
ORDERED_DICT = "collections.OrderedDict"


@dataclass(frozen=True, slots=True)
class Storage:
    """Elements stored in one member of the archive.

    Parameters
    ----------
    key : str
        N of the member ``data/N``.
    dtype : str
        Element type, such as ``float32``.
    count : int
        Number of elements.
    """

    key: str
    dtype: str
    count: int


@dataclass(slots=True)
class Tensor:
    """Position of a tensor's elements; offset and strides count elements.

    A tensor that :func:`load` returns is within its storage, and no two of its elements overlap.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Global:
    """A name that a pickle may contain; it is only a marker and is never called."""

    name: str


_GLOBALS = {
    (name.rpartition(".")[0], name.rpartition(".")[2]): _Global(name)
    for name in (*_ELEMENTS, REBUILD_TENSOR, ORDERED_DICT)
}
"""By module and attribute: Python's pickle would follow the dots of an attribute such as ``path.os``."""


def load(data: memoryview, storage_sizes: Mapping[str, int], where: str) -> object:
    """Build the value that a pickle describes, out of plain values and tensor descriptions only.

    A run of floats in a list becomes one NumPy array (big-endian float64, a view of `data`) in that list.

    Parameters
    ----------
    data : memoryview
        The whole pickle.
    storage_sizes : mapping of str to int
        Bytes of each storage of the archive, by key.
    where : str
        Names the pickle in errors.

    Returns
    -------
    object
        dict, list, tuple, str, int, float, bool, None, or descriptions of tensors.

    Raises
    ------
    StoreError
        The pickle is damaged, needs more than plain values and tensors (the message names it), or refers to
        more bytes than the archive has.
    """
    return _Machine(data, storage_sizes, where).run()


class _Machine:
    """State of one pickle that is being read: a position, a stack for each open mark, and the memo."""

    def __init__(self, data: memoryview, storage_sizes: Mapping[str, int], where: str) -> None:
        self.data = data
        self.position = 0
        self.stack: list[object] = []
        self.outer: list[list[object]] = []
        self.memo: list[object] = []
        self.storages: dict[object, Storage] = {}
        self.storage_sizes = storage_sizes
        self.where = where
        self.containers_left = _FREE_CONTAINERS + len(data) // _BYTES_PER_CONTAINER

    def run(self) -> object:
        """Follow the opcodes to the end."""
        data, actions = self.data, _ACTIONS
        self.start()
        try:
            while (code := data[self.position]) != _STOP:
                self.position += 1
                actions[code](self)
                if len(self.stack) > _STACK_LIMIT:
                    self.fail(f"more than {_STACK_LIMIT} values wait for a container")
        except (IndexError, struct.error):
            if self.position >= len(data):
                self.fail("it ends before its STOP")
            self.fail("an opcode takes a value that is not there")
        return self.finish()

    def start(self) -> None:
        """Read the protocol number."""
        if len(self.data) < 2 or self.data[0] != 0x80 or not 2 <= self.data[1] <= 5:
            self.fail("it does not start as a pickle of protocol 2 to 5")
        self.position = 2

    def finish(self) -> object:
        """Return the one value that is left at STOP."""
        if len(self.stack) != 1 or self.outer or self.position + 1 != len(self.data):
            self.fail("values or bytes are left over at its STOP")
        return self.stack[0]

    def fail(self, problem: str) -> NoReturn:
        """Refuse the pickle."""
        raise StoreError(
            f"{self.where}: byte {self.position} of the pickle: {problem}; nothing of it was run: "
            "find out where the file comes from, delete it or restore it from a copy, and run again"
        )

    def take(self, count: int) -> memoryview:
        """Next `count` bytes, which must be there."""
        start, stop = self.position, self.position + count
        if stop > len(self.data):
            self.fail(f"it claims {count} bytes where {len(self.data) - start} are left")
        self.position = stop
        return self.data[start:stop]

    def number(self, count: int) -> int:
        """Next `count` bytes as an unsigned number."""
        return int.from_bytes(self.take(count), "little")

    def container(self) -> None:
        """Account for one more list, dict or tuple."""
        self.containers_left -= 1
        if self.containers_left < 0:
            self.fail(f"it builds more containers than its {len(self.data)} bytes can mean")

    def refuse(self) -> None:
        """Opcode that plain values do not need."""
        self.position -= 1
        code = self.data[self.position]
        name = _NAMES.get(code, "unknown")
        self.fail(f"opcode {name} ({code:#04x}) is none of those that plain values and tensors need")

    # Marks and memo

    def mark(self) -> None:
        """Open a new level."""
        if len(self.outer) >= _NESTING_LIMIT:
            self.fail(f"values are nested more than {_NESTING_LIMIT} levels deep")
        self.outer.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[object]:
        """Close the level and return its values."""
        items, self.stack = self.stack, self.outer.pop()
        return items

    def put(self, index: int) -> None:
        """Remember the top value; picklers number their memo from 0 without gaps."""
        if index > len(self.memo):
            self.fail(f"memo entry {index} comes after entry {len(self.memo) - 1}")
        self.memo[index : index + 1] = [self.stack[-1]]

    def get(self, index: int) -> None:
        """Repeat a remembered value."""
        if index >= len(self.memo):
            self.fail(f"it asks for memo entry {index} of {len(self.memo)}")
        self.stack.append(self.memo[index])

    # Values

    def text(self, length: int) -> None:
        """Read a string of `length` bytes."""
        try:
            self.stack.append(str(self.take(length), "utf-8", "surrogatepass"))
        except UnicodeDecodeError as error:
            self.fail(f"a string of {length} bytes is not UTF-8 ({error.reason})")

    def byte(self) -> int:
        """Next byte."""
        self.position += 1
        return self.data[self.position - 1]

    def word(self) -> int:
        """Next four bytes as an unsigned number."""
        self.position += 4
        return int(_WORD.unpack_from(self.data, self.position - 4)[0])

    def frame(self) -> None:
        """Length of the opcodes that follow, a hint for readers of streams."""
        length = self.number(8)
        if length > len(self.data) - self.position:
            self.fail(f"a frame claims {length} bytes where {len(self.data) - self.position} are left")

    def integer(self, length: int) -> None:
        """Signed number of `length` bytes."""
        self.stack.append(int.from_bytes(self.take(length), "little", signed=True))

    def floating(self) -> None:
        """Float, or all the floats between a mark and APPENDS at once."""
        if self.stack or not self.outer or not self.float_run():
            self.stack.append(struct.unpack(">d", self.take(8))[0])

    def float_run(self) -> bool:
        """Append the floats of one APPENDS to their list as an array, if there is nothing else between them."""
        waiting = self.outer[-1]
        if not waiting or type(waiting[-1]) is not list:
            return False
        start = self.position - 1
        codes = self.data[start : start + 9 * _RUN_LIMIT : 9].tobytes()
        count = len(codes) - len(codes.lstrip(b"G"))
        stop = start + 9 * count
        if stop >= len(self.data) or self.data[stop] != _APPENDS:
            return False
        waiting[-1].append(np.ndarray((count,), ">f8", self.data, start + 1, (9,)))
        self.since_mark()
        self.position = stop + 1
        return True

    def empty(self, value: object) -> None:
        """Empty list, dict or tuple."""
        self.container()
        self.stack.append(value)

    def tuple_of(self, items: list[object]) -> None:
        """Tuple of values that were taken from the stack."""
        self.container()
        self.stack.append(tuple(items))

    def last(self, count: int) -> list[object]:
        """Take the top `count` values from the stack."""
        return [self.stack.pop() for _ in range(count)][::-1]

    def extend(self, items: list[object]) -> None:
        """Append to the list on the stack."""
        target = self.stack[-1]
        if type(target) is not list:
            self.fail(f"it appends to a {_kind(target)}")
        target.extend(items)

    def update(self, items: list[object]) -> None:
        """Set items of the dict on the stack."""
        target = self.stack[-1]
        if type(target) is not dict:
            self.fail(f"it sets an item of a {_kind(target)}")
        keys = items[::2]
        if len(items) % 2 or not all(type(key) is str for key in keys):
            self.fail("a dict has a key that is no string")
        target.update(zip(keys, items[1::2], strict=True))

    # Names and calls

    def line(self) -> str:
        """Text up to the next line feed."""
        window = bytes(self.data[self.position : self.position + _NAME_LIMIT])
        length = window.find(b"\n")
        if length < 0:
            self.fail(f"a name has no end within {_NAME_LIMIT} bytes")
        self.position += length + 1
        return window[:length].decode("ascii", "backslashreplace")

    def name(self, module: object, name: object) -> None:
        """Name of something to call, in one of the forms that are known."""
        known = _GLOBALS.get((module, name)) if type(module) is str and type(name) is str else None
        if known is None:
            self.fail(
                f"it wants {_shown(module)}.{_shown(name)}, and only tensors and plain values may be built"
            )
        self.stack.append(known)

    def call(self) -> None:
        """Build the value for a known name."""
        function, arguments = self.last(2)
        if function == _Global(ORDERED_DICT) and arguments == ():
            self.empty({})
        elif function == _Global(REBUILD_TENSOR) and type(arguments) is tuple and len(arguments) == 6:
            self.stack.append(self.tensor(*arguments))
        else:
            what = function.name if isinstance(function, _Global) else f"a {_kind(function)}"
            self.fail(f"it calls {what} in a form that torch.save does not write")

    def storage(self) -> None:
        """Storage that a persistent id names, checked against the archive."""
        identity = self.stack.pop()
        match identity:
            case tuple(("storage", _Global(name), str(key), str(), int(count))) if name in _ELEMENTS:
                dtype, width = _ELEMENTS[name]
            case _:
                self.fail(f"persistent id is a {_kind(identity)} of another form than torch.save's storages")
        size = self.storage_sizes.get(key)
        if size != count * width or count < 0:
            self.fail(
                f"storage {_shown(key)} of {count} {dtype} elements needs {count * width} bytes, "
                f"the archive has {size}"
            )
        self.stack.append(self.storages.setdefault((key, dtype), Storage(key, dtype, count)))

    def tensor(
        self, storage: object, offset: object, shape: object, strides: object, *rest: object
    ) -> Tensor:
        """Tensor whose elements are all within its storage, without overlap."""
        if not (isinstance(storage, Storage) and type(offset) is int and offset >= 0):
            self.fail("a tensor has no storage, or an offset that is no number from 0")
        if not (_are_counts(shape) and _are_counts(strides) and len(shape) == len(strides)):
            self.fail("a tensor's shape and strides are not the same number of numbers from 0")
        if type(rest[0]) is not bool or rest[1] not in (None, {}):
            self.fail("a tensor carries hooks")
        result = Tensor(storage, offset, shape, strides)
        end = _end_of(result)
        if end is None or end > storage.count:
            self.fail(
                f"a tensor of shape {shape}, strides {strides} and offset {offset} does not fit its "
                f"storage of {storage.count} elements, or some of its elements overlap"
            )
        return result


def _are_counts(values: object) -> TypeGuard[tuple[int, ...]]:
    """Whether these are numbers from 0, of as many dimensions as a tensor here can have."""
    return (
        type(values) is tuple
        and len(values) <= 8
        and all(type(value) is int and value >= 0 for value in values)
    )


def _end_of(tensor: Tensor) -> int | None:
    """Offset after a tensor's last element; None if elements overlap."""
    if 0 in tensor.shape:
        return tensor.offset
    extent = 1
    steps = sorted(
        (stride, size) for stride, size in zip(tensor.strides, tensor.shape, strict=True) if size > 1
    )
    for stride, size in steps:
        if stride < extent:
            return None
        extent += stride * (size - 1)
    return tensor.offset + extent


def _kind(value: object) -> str:
    return value.name if isinstance(value, _Global) else type(value).__name__


def _shown(text: object) -> str:
    """Text from a file, safe to show in a message."""
    return ascii(text)[1:-1][:100] if type(text) is str else f"<{_kind(text)}>"


_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
_STOP, _APPENDS = b".e"

_OPCODES: dict[bytes, Callable[[_Machine], None]] = {
    b"(": _Machine.mark,
    b"N": lambda machine: machine.stack.append(None),
    b"\x88": lambda machine: machine.stack.append(True),
    b"\x89": lambda machine: machine.stack.append(False),
    b"K": lambda machine: machine.stack.append(machine.byte()),
    b"M": lambda machine: machine.stack.append(machine.number(2)),
    b"J": lambda machine: machine.integer(4),
    b"\x8a": lambda machine: machine.integer(machine.byte()),
    b"G": _Machine.floating,
    b"\x8c": lambda machine: machine.text(machine.byte()),
    b"X": lambda machine: machine.text(machine.word()),
    b"\x8d": lambda machine: machine.text(machine.number(8)),
    b"]": lambda machine: machine.empty([]),
    b"}": lambda machine: machine.empty({}),
    b")": lambda machine: machine.stack.append(()),
    b"\x85": lambda machine: machine.tuple_of(machine.last(1)),
    b"\x86": lambda machine: machine.tuple_of(machine.last(2)),
    b"\x87": lambda machine: machine.tuple_of(machine.last(3)),
    b"t": lambda machine: machine.tuple_of(machine.since_mark()),
    b"a": lambda machine: machine.extend(machine.last(1)),
    b"e": lambda machine: machine.extend(machine.since_mark()),
    b"s": lambda machine: machine.update(machine.last(2)),
    b"u": lambda machine: machine.update(machine.since_mark()),
    b"q": lambda machine: machine.put(machine.byte()),
    b"r": lambda machine: machine.put(machine.word()),
    b"\x94": lambda machine: machine.put(len(machine.memo)),
    b"h": lambda machine: machine.get(machine.byte()),
    b"j": lambda machine: machine.get(machine.word()),
    b"c": lambda machine: machine.name(machine.line(), machine.line()),
    b"i": lambda machine: machine.name(machine.line(), machine.line() + " (opcode INST)"),
    b"\x93": lambda machine: machine.name(*machine.last(2)),
    b"R": _Machine.call,
    b"Q": _Machine.storage,
    b"\x95": lambda machine: machine.frame(),
}
_ACTIONS = [_OPCODES.get(bytes([code]), _Machine.refuse) for code in range(256)]


_ROWS_AT_A_TIME = 1000
"""Items per batch, as in Python's own pickler."""

T = TypeVar("T")


def dump(value: object) -> bytes:
    """Pickle a value in protocol 2; equal values give equal bytes, whichever of their parts are shared.

    Parameters
    ----------
    value : dict, list, str, int, float, bool, None or Tensor
        Nested as needed. Each string, tensor shape and storage is written once and repeated from the memo.

    Returns
    -------
    bytes
        The pickle.

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
    return (values[start : start + _ROWS_AT_A_TIME] for start in range(0, len(values), _ROWS_AT_A_TIME))
