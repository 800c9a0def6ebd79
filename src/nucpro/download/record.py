"""The record of a download, ``.download.json`` in the data folder.

It holds the choice and, for each file that was verified, what tells that nobody touched it since: a later
run trusts these facts and reads only files that changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nucpro.download.catalogue import RemoteFile
from nucpro.download.options import DownloadOptions
from nucpro.download.transfer import md5_of
from nucpro.errors import DataError
from nucpro.store import decoded, write_document

__all__ = ["DownloadRecord", "read_record"]

_NAME = ".download.json"


@dataclass
class DownloadRecord:
    """What was chosen, and what of it is there.

    Parameters
    ----------
    release : int
        Number of the RefSeq release.
    seed : int
        Seed of the draw.
    counts : mapping of str to int
        Pairs that were asked for, by group.
    files : sequence of RemoteFile
        The choice.
    verified : dict of str to list of int
        Size in bytes, time of the last change in nanoseconds and inode of verified files, by name.
    """

    release: int
    seed: int
    counts: Mapping[str, int]
    files: Sequence[RemoteFile]
    verified: dict[str, list[int]] = field(default_factory=dict)

    def fits(self, options: DownloadOptions) -> bool:
        """Whether the choice is the one that these options ask for."""
        return (self.seed, dict(self.counts)) == (options.seed, dict(options.counts))

    def is_there(self, data_dir: Path, file: RemoteFile) -> bool:
        """Whether a file is in the folder and right; one that was touched is read and compared."""
        path = data_dir / file.name
        if not path.is_file():
            return False
        if self.verified.get(file.name) != _facts(path):
            if md5_of(path) != file.md5:
                return False
            self.note(data_dir, file)
        return True

    def note(self, data_dir: Path, file: RemoteFile) -> None:
        """Note the facts of a file that was verified just now."""
        self.verified[file.name] = _facts(data_dir / file.name)

    def write(self, data_dir: Path) -> None:
        """Write the record whole or not at all."""
        write_document(data_dir / _NAME, asdict(self), sort_keys=True)


def read_record(data_dir: Path) -> DownloadRecord | None:
    """Read the record of an earlier run; None where there is none.

    Raises
    ------
    DataError
        The file is no such record.
    """
    path = data_dir / _NAME
    try:
        plain = decoded(path.read_bytes())
        plain["files"] = [RemoteFile(**file) for file in plain["files"]]
        return DownloadRecord(**plain)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path}: is no record of a download ({error}); remove it, then run again: files that are there are "
            "verified and kept"
        ) from error


def _facts(path: Path) -> list[int]:
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns, facts.st_ino]
