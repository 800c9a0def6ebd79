"""The ``.pt`` files of a data folder: safe fast reading, durable writing, equal bytes for equal work.

Nothing here imports torch, so that processes which only merge or validate start at once.
"""

from __future__ import annotations

from nucpro.store.atomic import (
    AtomicFile,
    Written,
    cannot_write,
    file_digest,
    make_folder,
    remove_temporaries,
    replace_file,
    sync_folder,
    write_bytes,
    write_text,
)
from nucpro.store.documents import decoded, document, parsed, seal_of, write_document
from nucpro.store.files import (
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
    "decoded",
    "document",
    "file_digest",
    "label_of",
    "make_folder",
    "no_label",
    "parsed",
    "read_ids",
    "read_merged",
    "read_merged_rows",
    "read_meta",
    "read_vectors",
    "remove_temporaries",
    "replace_file",
    "rows_unlike",
    "seal_of",
    "sync_folder",
    "write_bytes",
    "write_document",
    "write_merged",
    "write_text",
    "write_vectors",
]
