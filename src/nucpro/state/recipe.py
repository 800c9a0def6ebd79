"""Provenance of a file: its input, and the model and options that determine its values.

A recipe is written into a file as its ``meta``; later runs compare it to decide whether the file is current.
It does not include batch size, device, engine or times.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nucpro.formats.records import part_of

__all__ = ["Recipe", "described", "input_digest", "merged_difference", "merged_meta", "weights_digest"]

_FORMAT = 1

# These name a model for readers; its weights decide whether it is the same model.
_NAMES = ("id", "revision", "adapter")


@dataclass(frozen=True)
class Recipe:
    """How a run computes vectors of one kind.

    Parameters
    ----------
    kind : str
        ``protein`` or ``dna``.
    made_by : mapping
        Plain values: ``id``, ``revision`` and ``weights_sha256``, the numbers of the architecture, and
        the options that change values (precision, pooling, longest input and such).
    width : int
        Columns of a vector.
    source : mapping
        Where the model was found, for later runs on the same folder: ``model`` (absolute path or hub id),
        ``revision`` and the requested ``token_dropout``. It affects no values and is not written into files
        of vectors; empty if an earlier version recorded the run.
    """

    kind: str
    made_by: Mapping[str, Any]
    width: int
    source: Mapping[str, Any] = field(default_factory=dict, compare=False)
    key: str = field(init=False)

    def __post_init__(self) -> None:
        content = json.dumps(
            [self.kind, _decisive(self.made_by), self.width], sort_keys=True, ensure_ascii=False
        )
        object.__setattr__(self, "key", hashlib.sha256(content.encode()).hexdigest())

    def meta(self, input_digest: str, records: int) -> dict[str, Any]:
        """``meta`` of a file made by this recipe from an input (SHA-256 of its records)."""
        return {
            "format": _FORMAT,
            "kind": str(self.kind),
            "input": {"sha256": input_digest, "records": records},
            "made_by": dict(self.made_by),
            "width": self.width,
        }

    @property
    def model(self) -> tuple[str, str | None] | None:
        """Name of the model for later runs, and its revision; None if unknown."""
        if "model" in self.source:
            return str(self.source["model"]), self.source.get("revision")
        # Earlier versions recorded no path: a name with a slash is the id of a repository.
        name = str(self.made_by.get("id"))
        return (name, self.made_by.get("revision")) if "/" in name else None

    def cut_at(self, limit: int) -> Recipe:
        """The same recipe with another length limit in residues or bases."""
        return replace(self, made_by={**self.made_by, "longest_input": limit})

    def other_model(self, made_by: Mapping[str, Any]) -> str | None:
        """Why this recipe's vectors cannot replace vectors of other provenance; None if they can.

        Precision is ignored: it changes vectors by rounding only.

        Parameters
        ----------
        made_by : mapping
            Provenance of the other vectors.

        Returns
        -------
        str or None
            The first value that differs, as ``layers = 1, not 2``.
        """
        others, own = (
            {key: value for key, value in _decisive(some).items() if key != "precision"}
            for some in (made_by, self.made_by)
        )
        return _first_difference(others, own)

    def made_otherwise(self, meta: Mapping[str, Any] | None, input_digest: str) -> Mapping[str, Any] | None:
        """Provenance of a file of this kind and input by another model or other options; None for any other file."""
        if meta is None or meta.get("format") != _FORMAT or meta.get("kind") != self.kind:
            return None
        made_by = part_of(meta, "made_by")
        is_same = _decisive(made_by) == _decisive(self.made_by) and meta.get("width") == self.width
        return None if is_same or part_of(meta, "input").get("sha256") != input_digest else made_by

    def difference(self, meta: Mapping[str, Any] | None, input_digest: str) -> str | None:
        """Why a file with this ``meta`` is stale for an input; None if it is current.

        The answer is the end of a sentence that starts with the file's name.
        """
        if meta is None:
            return "has no provenance metadata"
        if meta.get("format") != _FORMAT or meta.get("kind") != self.kind:
            return "was made by another version of the format"
        if part_of(meta, "input").get("sha256") != input_digest:
            return "was made from another FASTA"
        if meta.get("width") != self.width:
            return f"is {meta.get('width')} wide, not {self.width}"
        difference = _first_difference(_decisive(part_of(meta, "made_by")), _decisive(self.made_by))
        return difference and f"was made with {difference}"


def input_digest(meta: Mapping[str, Any] | None) -> str | None:
    """SHA-256 of the records that a file was made from; None if its ``meta`` lacks it."""
    digest = part_of(meta or {}, "input").get("sha256")
    return digest if isinstance(digest, str) else None


def weights_digest(meta: Mapping[str, Any] | None) -> str | None:
    """SHA-256 of the weights that made a file; None if its ``meta`` lacks it."""
    digest = part_of(meta or {}, "made_by").get("weights_sha256")
    return digest if isinstance(digest, str) else None


def merged_meta(dna_digest: str, protein_digest: str, label: int | None, width: int) -> dict[str, Any]:
    """``meta`` of a merged file: SHA-256 of both source files, the class (None for none) and the width."""
    return {
        "format": _FORMAT,
        "kind": "merged",
        "sources": {"dna_sha256": dna_digest, "protein_sha256": protein_digest},
        "label": label,
        "width": width,
    }


def merged_difference(meta: Mapping[str, Any] | None, expected: Mapping[str, Any]) -> str | None:
    """Why a merged file is stale for its two sources; None if it is current."""
    if meta is None:
        return "has no provenance metadata"
    if meta.get("width") != expected["width"]:
        return f"is {meta.get('width')} wide, not {expected['width']}"
    if part_of(meta, "sources") != expected["sources"]:
        return "was merged from other vectors"
    return None if dict(meta) == dict(expected) else "was made by another version of the format"


def described(made_by: Mapping[str, Any]) -> str:
    """Model and options of vectors, in words."""
    dropout = made_by.get("token_dropout")
    parts = [
        f"{made_by.get('id')} (weights {_short(made_by.get('weights_sha256'))})",
        str(made_by.get("precision")),
        *([f"token dropout {'on' if dropout else 'off'}"] if isinstance(dropout, bool) else []),
    ]
    return ", ".join(parts)


def _decisive(made_by: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in made_by.items() if key not in _NAMES}


def _first_difference(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str | None:
    for key in sorted(found.keys() | expected.keys()):
        if found.get(key) != expected.get(key):
            return f"{key} = {_short(found.get(key))}, not {_short(expected.get(key))}"
    return None


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"
