"""What a file is that was given as a model, or lies in the place of one: words for a refusal that helps.

Names come from :mod:`nucpro.models.weights`. Nothing is unpickled: a checkpoint is told by the names that its pickle
spells out.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from nucpro.errors import ModelError
from nucpro.formats.opening import looks_like, open_input

__all__ = ["fair_esm_problem", "problem_of_file"]

_LOOKED_AT = 1 << 20
_FAIR_ESM_NAME = re.compile(r"esm[12][a-z_]*\d*_t\d+_\w+?(-contact-regression)?\.pt")
_ESM2_NAME = re.compile(r"(esm2_t\d+_\d+[MB]_UR50D)(-contact-regression)?\.pt")
_FAIR_ESM_TENSORS = (
    b"encoder.sentence_encoder.",
    b"sentence_encoder.embed_tokens",
    b"contact_head.regression.weight",
)
_A_FOLDER = "give the folder that it lies in, with config.json and the tokenizer beside it"


def fair_esm_problem(file: Path) -> str | None:
    """Say that a file is a checkpoint of fair-esm, and how to get the same model in a form that is read."""
    if file.suffix != ".pt" or not (_FAIR_ESM_NAME.fullmatch(file.name) or _holds_fair_esm(file)):
        return None
    named = _ESM2_NAME.fullmatch(file.name)
    model = f"facebook/{named[1]}" if named else "facebook/esm2_t33_650M_UR50D (or another ESM-2)"
    return (
        f"{file}: is a checkpoint of fair-esm (facebookresearch/esm), whose form is not read; get the same model in "
        f"the form of Hugging Face: nucpro fetch-models FOLDER --model {model}, and give that folder"
    )


def problem_of_file(file: Path) -> str:
    """Say what a file is that was given where a folder or an id of the hub is wanted.

    Raises
    ------
    ModelError
        The file cannot be read.
    """
    if problem := fair_esm_problem(file):
        return problem
    with open_input(file, ModelError) as stream:
        looks = looks_like(stream.read(_LOOKED_AT))
    if file.suffix in {".safetensors", ".bin", ".pt", ".json", ".txt"}:
        return f"{file}: is one file of a model ({looks}), not a model; {_A_FOLDER}"
    return (
        f"{file}: is {looks}, not a model; give a folder with config.json and weights, or the id of a repository on "
        "the Hugging Face hub"
    )


def _holds_fair_esm(file: Path) -> bool:
    """Whether a torch file spells out names of fair-esm's tensors in its pickle."""
    try:
        with open_input(file, ModelError) as stream, zipfile.ZipFile(stream) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            with archive.open(pickles[0]) as member:
                start = member.read(_LOOKED_AT)
    except (ModelError, OSError, zipfile.BadZipFile, IndexError, NotImplementedError, RuntimeError):
        return False
    return any(name in start for name in _FAIR_ESM_TENSORS)
