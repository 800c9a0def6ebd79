"""Known answers: reference vectors of fixed sequences for published weights, compared with this machine's.

``known_answers.json`` holds, by the digest of the weights, the first columns and the length of each vector as another
implementation computes them in float32; ``recipes/known_answers.py`` makes it. For other weights the model itself is
the reference, in float32 on the CPU by plain torch, which shows whether the device and its kernels compute rightly.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nucpro.embedding.encoder import load
from nucpro.embedding.identification import Identified, identify
from nucpro.formats.fasta import Records
from nucpro.formats.sequences import SequenceType
from nucpro.options import Options

__all__ = ["COLUMNS", "KEPT", "SEQUENCES", "Comparison", "compare", "vectors_of"]

COLUMNS = 16
"""Columns of each vector that are kept."""

KEPT = Path(__file__).with_name("known_answers.json")
"""Answers by SHA-256 of the weights."""

SEQUENCES = {
    SequenceType.PROTEIN: (
        b"MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQVKVKALPDAQFEVVHSLAKWKRQTLGQHDFSAGEGLYTHMKALRPDEDRLSPLHSV",
        b"MSKGEELFTGVVPILVELDGDVNGHKFSVSGEGEGDATYGKLTLKFICTTGKLPVPWPTLVTTFSYGVQCFSRYPDHMKQHDFFKSAMPEGYVQERTIFFKDDGNYKTRAEVKFEGDTLVNRIEL",
        b"MX",
    ),
    SequenceType.DNA: (
        b"ATGGCGACCTTTAAAGCAGTGCTGATTAACGGCGAAGGCCTGATTCGTGATGCAGCGAAACTGGTGGAAGCGTATCGTGCGAACGGCGTGACCATTGATCTGGCG"
        * 2,
        b"GGGCGGCGACCTCGCGGGTTTTCGCTATTTATGAAAATTTTCCGGTTTAAGGCGTTTCCGTTCTTCTTCGTCATAACTTAATGTTTTTATTTAAAATACC"
        * 3,
        b"ACGTNNACGT",
    ),
}
"""Fixed sequences of each type: two of usual length, and a short one with a symbol that is not determined."""

_TOLERANCE = {"fp32": 1e-3, "bf16": 0.15, "fp16": 0.02}
"""Largest difference of a column, in units of the root mean square of the vector."""


class Comparison(NamedTuple):
    """Difference between this machine and the reference.

    Parameters
    ----------
    largest : float
        Largest difference of a column, in units of the root mean square of its vector.
    allowed : float
        Difference that rounding in this precision may cause.
    reference : str
        The reference.
    """

    largest: float
    allowed: float
    reference: str

    @property
    def agrees(self) -> bool:
        """Whether rounding explains the difference; False if a value is NaN."""
        return self.largest <= self.allowed

    def __str__(self) -> str:
        relation = "within" if self.agrees else "beyond"
        return (
            f"vectors differ by {self.largest:.1e} of their root mean square from {self.reference}, "
            f"{relation} the {self.allowed:g} of rounding"
        )


def compare(options: Options, sequence_type: SequenceType) -> Comparison:
    """Compute the fixed sequences with the model, device and precision of a run, and compare.

    Raises
    ------
    ModelError
        The model is not there, or damaged.
    """
    identified = identify(options, sequence_type, offline=True)
    made_by = identified.recipe.made_by
    found = vectors_of(identified, options)
    kept = json.loads(KEPT.read_text(encoding="utf-8")).get(made_by["weights_sha256"])
    if kept:
        expected, reference = np.array(kept["columns"], np.float32), kept["computed_by"]
        scale = np.array(kept["rms"], np.float32)[:, None]
    else:
        plain = replace(options, device="cpu", precision="fp32")
        matrix = vectors_of(identify(plain, sequence_type, offline=True), plain)
        expected, scale = matrix[:, :COLUMNS], np.sqrt((matrix**2).mean(axis=1, keepdims=True))
        reference = "the same model in float32 on the CPU, since no answers are kept for these weights"
    differences = np.abs(found[:, :COLUMNS] - expected) / scale
    return Comparison(float(differences.max()), _TOLERANCE[made_by["precision"]], reference)


def vectors_of(identified: Identified, options: Options) -> NDArray[np.float32]:
    """Vectors of the fixed sequences, float32 ``[3, width]``."""
    sequences = SEQUENCES[identified.sequence_type]
    encoder = load(identified, options)
    return encoder.embed(
        Records(Path("fixed sequences"), [f"fixed_{n}" for n in range(len(sequences))], list(sequences))
    ).matrix
