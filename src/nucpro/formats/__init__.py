"""The ``.pt`` files of a data folder: safe fast reading, durable writing, equal bytes for equal work.

Nothing here imports torch, so that processes which only merge or validate start at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nucpro.formats.atomic import (
    AtomicFile,
    Written,
    cannot_write,
    made_first,
    make_folder,
    remove_temporaries,
    replace_file,
    replacing_problems,
    sync_folder,
    write_bytes,
    write_text,
)
from nucpro.formats.opening import file_digest

if TYPE_CHECKING:
    from nucpro.formats.vectors import (
        MergedFile,
        MergedRows,
        Summary,
        VectorFile,
        check_directory,
        label_of,
        no_label,
        read_ids,
        read_merged,
        read_merged_rows,
        read_meta,
        read_vectors,
        rows_unlike,
        write_merged,
        write_vectors,
    )

__all__ = [
    "AtomicFile",
    "MergedFile",
    "MergedRows",
    "Summary",
    "VectorFile",
    "Written",
    "cannot_write",
    "check_directory",
    "file_digest",
    "label_of",
    "made_first",
    "make_folder",
    "no_label",
    "read_ids",
    "read_merged",
    "read_merged_rows",
    "read_meta",
    "read_vectors",
    "remove_temporaries",
    "replace_file",
    "replacing_problems",
    "rows_unlike",
    "sync_folder",
    "write_bytes",
    "write_merged",
    "write_text",
    "write_vectors",
]


def __getattr__(name: str) -> Any:
    # numpy takes longer to import than a help text may take, and only those who read or write vectors need it.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("nucpro.formats.vectors"), name)
