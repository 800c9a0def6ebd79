"""The rows of one merged file, with what their ids tell.

Vectors come from :mod:`nucpro.store`, categories from the layout; rows go to :mod:`nucpro.export.formats`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucpro.dataset.frame_ids import Place, place_of
from nucpro.layout import FilePair
from nucpro.store import label_of, read_merged

__all__ = ["Rows", "rows_of"]


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
        One a row.
    places : list of Place
        What the ids tell.
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
