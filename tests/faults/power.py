"""A model of what a disk holds after power is lost at any instant.

What a command asks of the system is recorded with ``strace``: files created, written, synced, renamed and
removed. A :class:`Disk` replays it. It knows for each file what was written and what of that was synced, and
for each folder which of its entries are certain: those at its last sync. Everything later may or may not be
there after a crash, each change of a name on its own, and of a file that was not synced any part, or zeros.
"""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CALLS = (
    "openat,creat,write,pwrite64,writev,fsync,fdatasync,rename,renameat,renameat2,link,linkat,symlink,symlinkat,"
    "unlink,unlinkat,rmdir,mkdir,mkdirat,ftruncate,truncate"
)
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)")
_UNFINISHED = re.compile(r"^(\d+) +(\w+\(.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$")
_TEXT = re.compile(r'(?:(?:\d+|AT_FDCWD)<([^>]*)>|"([^"]*)")')


@dataclass(frozen=True)
class Event:
    """One successful call: its name, the texts among its arguments (paths and data), and all of them."""

    call: str
    texts: tuple[bytes, ...]
    arguments: str

    def path(self) -> str:
        """Path that the call is about; relative names are told together with their folder."""
        paths = [text.decode() for text in self.texts]
        if self.call.endswith("at") and len(paths) > 1 and not paths[1].startswith("/"):
            return f"{paths[0]}/{paths[1]}"
        return paths[1] if self.call.endswith("at") else paths[0]


def record(command: Sequence[str], trace: Path, folder: Path) -> list[Event]:
    """Run a command to its end and give what it changed, in order, below a folder."""
    strace = ["strace", "-f", "-qq", "--seccomp-bpf", "-y", "-xx", "-s", "100000000", "-o", str(trace)]
    done = subprocess.run(
        [*strace, "-e", f"trace={CALLS}", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with trace.open(encoding="ascii") as lines:
        return [event for event in _events(lines) if _is_about(event, folder)]


def _is_about(event: Event, folder: Path) -> bool:
    # What is written may begin with the folder's name too: a message, to a pipe.
    texts = event.texts[:1] if event.call in {"write", "pwrite64", "writev"} else event.texts
    return any(_is_below(text, folder) for text in texts)


def _is_below(text: bytes, folder: Path) -> bool:
    return text.startswith(str(folder).encode())


def _events(lines: Iterator[str]) -> Iterator[Event]:
    begun: dict[str, str] = {}
    for line in lines:
        # A call during which another thread was at work is told in two parts; it counts from its end on.
        if match := _UNFINISHED.match(line.rstrip("\n")):
            begun[match[1]] = match[2]
            continue
        if match := _RESUMED.match(line.rstrip("\n")):
            line = f"{match[1]} {begun.pop(match[1])}{match[2]}"  # noqa: PLW2901
        if (match := _LINE.match(line)) and int(match[4]) >= 0:
            texts = tuple(_bytes(fd or text) for fd, text in _TEXT.findall(match[3]))
            yield Event(match[2], texts, match[3])


def _bytes(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))


@dataclass(eq=False)
class File:
    """A file: what it holds, and what of that is certain to survive."""

    content: bytes = b""
    synced: bytes = b""

    @property
    def is_safe(self) -> bool:
        return self.content == self.synced


@dataclass(eq=False)
class Folder:
    """A folder: its entries, those that are certain, and the changes since."""

    entries: dict[str, File | Folder] = field(default_factory=dict)
    synced: dict[str, File | Folder] = field(default_factory=dict)
    changes: list[dict[str, File | Folder | None]] = field(default_factory=list)

    def change(self, change: dict[str, File | Folder | None]) -> None:
        self.changes.append(change)
        _apply(change, self.entries)

    def sync(self) -> None:
        self.synced = dict(self.entries)
        self.changes = []


def _apply(change: dict[str, File | Folder | None], entries: dict[str, File | Folder]) -> None:
    for name, node in change.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


class Loss:
    """What is lost of that which was not synced.

    Parameters
    ----------
    names : {"none", "all", "some"}
        Which changes of names survive.
    content : {"none", "zeros", "all", "some"}
        What survives of bytes that were not synced; zeros stand for blocks that were reserved, never written.
    seed : int
        Decides where it says "some".
    """

    def __init__(self, names: str, content: str, seed: int = 0) -> None:
        self.names = names
        self.content = content
        self._random = random.Random(seed)

    def keeps_name(self) -> bool:
        return self.names == "all" or (self.names == "some" and self._random.random() < 0.5)

    def left_of(self, file: File) -> bytes:
        if file.is_safe:
            return file.content
        how = self._random.choice(("none", "zeros", "all", "cut")) if self.content == "some" else self.content
        kept = file.synced if file.content.startswith(file.synced) else b""
        if how == "cut":
            return file.content[: self._random.randint(len(kept), len(file.content))]
        return {
            "none": file.synced,
            "zeros": kept + bytes(len(file.content) - len(kept)),
            "all": file.content,
        }[how]


EXTREMES = (("none", "none"), ("all", "none"), ("all", "zeros"), ("none", "all"), ("all", "all"))


class Disk:
    """A folder on a disk, as a sequence of events changes it.

    Parameters
    ----------
    root : Path
        Path of the folder in the events.
    start : Path
        A copy of it as it was before, all of it safe.
    """

    def __init__(self, root: Path, start: Path) -> None:
        self.root = str(root)
        self.top = _loaded(start)

    def apply(self, event: Event) -> None:
        """Change what an event changes; calls that only look, and files without a name, change nothing."""
        call = event.call
        if call == "openat":
            self._open(event.path(), event.arguments)
        elif call in {"write", "pwrite64", "writev"}:
            self._write(event)
        elif call in {"fsync", "fdatasync"}:
            self._sync(event.texts[0].decode())
        elif call in {"rename", "renameat", "renameat2"}:
            old, new = (text.decode() for text in event.texts if text.startswith(b"/"))
            self._rename(old, new)
        elif call in {"unlink", "unlinkat", "rmdir"}:
            self._remove(event.path())
        elif call in {"mkdir", "mkdirat"}:
            parent, name = self._place(event.path())
            parent.change({name: Folder()})
        elif call in {"ftruncate", "truncate"}:
            self._truncate(event)
        else:
            raise AssertionError(f"{call} is not part of the model: {event}")

    def crash(self, loss: Loss) -> dict[str, bytes | None]:
        """What is there after power was lost: content by path below the folder, None for folders."""
        found: dict[str, bytes | None] = {}
        _collect(self.top, "", loss, found)
        return found

    def is_safe(self, relative: str) -> bool:
        """Whether a file would survive any loss as it is now."""
        node: File | Folder = self.top
        for part in Path(relative).parts:
            if not isinstance(node, Folder) or node.synced.get(part) is not node.entries.get(part):
                return False
            node = node.entries[part]
        return isinstance(node, File) and node.is_safe

    def _find(self, path: str) -> File | Folder | None:
        node: File | Folder | None = self.top
        for part in Path(path).relative_to(self.root).parts:
            node = node.entries.get(part) if isinstance(node, Folder) else None
        return node

    def _place(self, path: str) -> tuple[Folder, str]:
        parent = self._find(str(Path(path).parent))
        assert isinstance(parent, Folder), path
        return parent, Path(path).name

    def _open(self, path: str, arguments: str) -> None:
        if "O_TMPFILE" in arguments or not path.startswith(f"{self.root}/"):
            return
        node = self._find(path)
        if node is None and "O_CREAT" in arguments:
            parent, name = self._place(path)
            parent.change({name: File()})
        elif isinstance(node, File) and "O_TRUNC" in arguments:
            node.content = b""

    def _write(self, event: Event) -> None:
        # Everything that is written here is written in one go, or appended.
        file = self._find(event.texts[0].decode())
        if isinstance(file, File):
            file.content += b"".join(event.texts[1:])

    def _sync(self, path: str) -> None:
        node = self._find(path)
        if isinstance(node, Folder):
            node.sync()
        elif isinstance(node, File):
            node.synced = node.content

    def _rename(self, old: str, new: str) -> None:
        (parent, name), (target, target_name) = self._place(old), self._place(new)
        assert parent is target, f"{old} and {new} lie in two folders"
        parent.change({name: None, target_name: parent.entries[name]})

    def _remove(self, path: str) -> None:
        parent, name = self._place(path)
        parent.change({name: None})

    def _truncate(self, event: Event) -> None:
        file = self._find(event.texts[0].decode())
        if isinstance(file, File):
            file.content = file.content[: int(event.arguments.rsplit(", ", 1)[1])]


def _loaded(path: Path) -> Folder:
    folder = Folder()
    for entry in path.iterdir():
        if entry.is_dir():
            folder.entries[entry.name] = _loaded(entry)
        else:
            content = entry.read_bytes()
            folder.entries[entry.name] = File(content, content)
    folder.sync()
    return folder


def _collect(folder: Folder, prefix: str, loss: Loss, found: dict[str, bytes | None]) -> None:
    entries = dict(folder.synced)
    for change in folder.changes:
        if loss.keeps_name():
            _apply(change, entries)
    for name, node in entries.items():
        path = f"{prefix}{name}"
        if isinstance(node, Folder):
            found[path] = None
            _collect(node, f"{path}/", loss, found)
        else:
            found[path] = loss.left_of(node)


def write_out(found: dict[str, bytes | None], folder: Path) -> Path:
    """Make a real folder of what a crash left."""
    folder.mkdir(parents=True)
    for name, content in found.items():
        if content is None:
            (folder / name).mkdir(parents=True, exist_ok=True)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    return folder
