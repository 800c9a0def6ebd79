"""The rows of one merged file, with the positions in their ids.

Vectors come from :mod:`nucpro.formats`, categories from the layout; rows go to :mod:`nucpro.export.formats`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nucpro.errors import DataError, UsageError
from nucpro.folder.paths import FilePair

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nucpro.genomes.frames import Place

__all__ = [
    "FORMATS",
    "Format",
    "Rows",
    "parquet_without_rows",
    "require_installed",
    "rows_of",
    "text_of_parquet",
]


@dataclass(frozen=True, eq=False)
class Rows:
    """One merged file as rows.

    Parameters
    ----------
    source : str
        Path of the merged file below the data folder.
    digest : str
        SHA-256 of its bytes, in hexadecimal.
    ids : list of str
        One per row.
    places : list of Place
        Positions parsed from the ids.
    label : int
        1 for viral, 0 for host.
    category : str
        Category of the file, such as ``viral`` or ``bacteria``.
    vectors : ndarray of float32, shape [N, D]
        DNA columns first, then protein.
    """

    source: str
    digest: str
    ids: list[str]
    places: list[Place]
    label: int
    category: str
    vectors: NDArray[np.float32]


def rows_of(pair: FilePair) -> Rows:
    """Read the merged file of a pair.

    Raises
    ------
    StoreError
        It is damaged, no merged file, or was merged without a class.
    """
    from nucpro.formats import label_of, read_merged  # noqa: PLC0415 - numpy
    from nucpro.genomes.frames import place_of  # noqa: PLC0415 - numpy

    merged = read_merged(pair.merged)
    return Rows(
        source=pair.relative(pair.merged),
        digest=merged.digest,
        ids=merged.ids,
        places=[place_of(name) for name in merged.ids],
        label=label_of(merged, pair.merged),
        category=pair.category or "",
        vectors=merged.vectors,
    )


_GROUP_ROWS = 1000
"""Rows of a Parquet row group: 8 MB of vectors, which readers take at a time."""

_LONGEST_ID = 1000

_VECTOR_COLUMN = "vector.list.element"
"""Path of the numbers of the vectors in a Parquet schema."""


@dataclass(frozen=True)
class Format:
    """A form that rows can be exported in.

    Parameters
    ----------
    suffix : str
        Suffix of its shards.
    encode : callable
        Bytes of a shard.
    package : str
        Package that it needs.
    """

    suffix: str
    encode: Callable[[Rows], bytes | memoryview]
    package: str


def _parquet(rows: Rows) -> memoryview:
    import numpy as np  # noqa: PLC0415
    import pyarrow as pa  # noqa: PLC0415 - an extra
    import pyarrow.parquet as pq  # noqa: PLC0415

    count, width = rows.vectors.shape
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.vectors.reshape(-1)), width)
    records, chunks, frames = zip(*rows.places, strict=True)
    table = pa.table(
        {
            "id": pa.array(rows.ids, pa.string()),
            "label": pa.array(np.full(count, rows.label, np.int8)),
            "category": pa.array([rows.category] * count, pa.string()),
            "record": pa.array(records, pa.string()),
            "chunk": pa.array(chunks, pa.int32()),
            "frame": pa.array(frames, pa.string()),
            "source": pa.array([rows.source] * count, pa.string()),
            "row": pa.array(np.arange(count, dtype=np.int32)),
            "vector": vectors,
        }
    )
    target = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata({"nucpro_source_sha256": rows.digest}),
        target,
        row_group_size=_GROUP_ROWS,
        compression="zstd",
        compression_level=1,
        # Bytes of equal significance of all numbers are stored together: smaller by 15%, and faster to write
        # and to read.
        use_byte_stream_split=[_VECTOR_COLUMN],
        use_dictionary=["category", "record", "frame", "source"],
        write_statistics=[name for name in table.column_names if name != "vector"],
    )
    return memoryview(target.getvalue())


_TEXT_KEY = "nucpro"
"""Of the metadata of a Parquet file without rows."""


def parquet_without_rows(like: Path, text: bytes) -> memoryview:
    """Make a Parquet file of the columns of another, without rows, that carries a text.

    Parameters
    ----------
    like : Path
        A shard.
    text : bytes
        UTF-8, which :func:`text_of_parquet` returns.
    """
    import pyarrow as pa  # noqa: PLC0415 - an extra
    import pyarrow.parquet as pq  # noqa: PLC0415

    target = pa.BufferOutputStream()
    # Without a group of rows: some readers take the size of their batches from the first.
    with pq.ParquetWriter(target, pq.read_schema(like).with_metadata({_TEXT_KEY: text})):
        pass
    return memoryview(target.getvalue())


def text_of_parquet(path: Path) -> bytes:
    """Text that a Parquet file carries; empty where it carries none, is damaged, or cannot be read here."""
    try:
        import pyarrow.parquet as pq  # noqa: PLC0415 - an extra

        return bytes((pq.read_schema(path).metadata or {}).get(_TEXT_KEY.encode(), b""))
    except (ImportError, OSError, ValueError):  # pyarrow's own errors are such
        return b""


def _safetensors(rows: Rows) -> bytes:
    import numpy as np  # noqa: PLC0415
    from safetensors.numpy import save  # noqa: PLC0415

    records, chunks, frames = zip(*rows.places, strict=True)
    count = len(rows.ids)
    text = {
        "id": rows.ids,
        "record": records,
        "frame": frames,
        "category": rows.category,
        "source": rows.source,
        "source_sha256": rows.digest,
    }
    tensors: dict[str, NDArray[Any]] = {
        "vector": np.ascontiguousarray(rows.vectors),
        "label": np.full(count, rows.label, np.int8),
        "chunk": np.array([chunk or 0 for chunk in chunks], np.int32),
        "row": np.arange(count, dtype=np.int32),
    }
    # One key only: safetensors writes several in an order that differs from process to process.
    data: bytes = save(tensors, {"nucpro": json.dumps(text, ensure_ascii=False)})
    return data


def _npz(rows: Rows) -> memoryview:
    import numpy as np  # noqa: PLC0415

    longest = max(map(len, rows.ids))
    if longest > _LONGEST_ID:
        # Each element of an array of text takes as much memory as the longest one.
        problem = (
            f"an id of {longest} characters, where npz takes {_LONGEST_ID}; export to parquet or safetensors"
        )
        raise DataError(f"{rows.source}: {problem}")
    records, chunks, frames = zip(*rows.places, strict=True)
    count = len(rows.ids)
    target = io.BytesIO()
    np.savez(
        target,
        id=np.array(rows.ids),
        label=np.full(count, rows.label, np.int8),
        category=np.full(count, rows.category),
        record=np.array([record or "" for record in records]),
        chunk=np.array([chunk or 0 for chunk in chunks], np.int32),
        frame=np.array([frame or "" for frame in frames]),
        source=np.full(count, rows.source),
        row=np.arange(count, dtype=np.int32),
        vector=rows.vectors,
    )
    return target.getbuffer()


FORMATS = {
    "parquet": Format(".parquet", _parquet, "pyarrow"),
    "safetensors": Format(".safetensors", _safetensors, "safetensors"),
    "npz": Format(".npz", _npz, "numpy"),
}
"""Formats by name."""


def require_installed(name: str) -> Format:
    """Format of a name, if the packages that it needs are installed.

    Raises
    ------
    UsageError
        The name is unknown, or its package is not installed.
    """
    if name not in FORMATS:
        raise UsageError(f"format {name!r} is unknown; allowed: {', '.join(FORMATS)}")
    package = FORMATS[name].package
    if find_spec(package) is None:
        raise UsageError(
            f"--to {name} needs {package}, which is not installed; install the extra: pip install 'nucpro[export]'"
        )
    return FORMATS[name]
