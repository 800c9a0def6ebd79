"""What makes a prediction what it is: the input, the classifier, its encoders and the length of chunks.

The record lies beside an unfinished run and beside a finished one, and tells whether what is there is what a
run would make now. It holds no times and no paths; batch sizes and devices are not in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nucpro.errors import ModelError
from nucpro.opening import read_input
from nucpro.prediction.contigs import InputFacts
from nucpro.prediction.models import Models

__all__ = ["difference", "make_record"]

_FORMAT = 1
_RULES = 1
"""Raised when the same input and models begin to give other tables."""


def make_record(path: Path, facts: InputFacts, models: Models, length: int) -> dict[str, Any]:
    """Describe a prediction in plain values.

    Parameters
    ----------
    path : Path
        The input; its name is kept for people, its content decides.
    facts : InputFacts
        What is in it.
    models : Models
        Classifier and encoders.
    length : int
        Bases of a full chunk.
    """
    return {
        "format": _FORMAT,
        "rules": _RULES,
        "input": {
            "file": path.name,
            "sha256": facts.digest,
            "records": facts.records,
            "bases": facts.bases,
            "chunks": facts.chunks,
        },
        "classifier": {
            "sha256": hashlib.sha256(read_input(models.card_file, ModelError)).hexdigest(),
            "sides": list(models.card.sides),
        },
        "encoders": {
            str(side): {"key": found.recipe.key, "made_by": dict(found.recipe.made_by)}
            for side, found in models.identified.items()
        },
        "length": length,
    }


def difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """Why what lies in a folder is not what a run would make now; None where it is.

    The answer is the end of a sentence whose subject is the prediction that is there.
    """
    if (found.get("format"), found.get("rules")) != (wanted["format"], wanted["rules"]):
        return "was made by another version of nucpro"
    if _part(found, "input", "sha256") != wanted["input"]["sha256"]:
        return f"is of another input ({_part(found, 'input', 'file')})"
    if _part(found, "classifier", "sha256") != wanted["classifier"]["sha256"]:
        return "was made by another classifier"
    for side, encoder in wanted["encoders"].items():
        if _part(found, "encoders", side, "key") != encoder["key"]:
            return f"was made with another {side} model, or another precision of it"
    if found.get("length") != wanted["length"]:
        return f"has chunks of {found.get('length')} bases, not {wanted['length']}"
    return None


def _part(content: object, *names: str) -> object:
    for name in names:
        content = content.get(name) if isinstance(content, Mapping) else None
    return content
