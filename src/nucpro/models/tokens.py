"""Residues to token ids by table look-up.

Sequences come from :mod:`nucpro.formats.fasta` as bytes; ids go to :mod:`nucpro.embedding.batches`.
The table comes from the
checkpoint's ``vocab.txt``, or is the order that all published ESM-2 checkpoints share.
"""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from nucpro.errors import FastaError, ModelError, reason_of
from nucpro.formats.opening import read_input

__all__ = ["ESM_VOCABULARY", "RESIDUE_LETTERS", "EncodedSequences", "ResidueTokenizer", "Tokenizer"]

ESM_VOCABULARY = (
    *("<cls>", "<pad>", "<eos>", "<unk>"),
    *"LAGVSERTIDPKQNFYMHWCXBUZO.-",
    *("<null_1>", "<mask>"),
)
"""Tokens of the published ESM-2 checkpoints, in the order of their ids."""

_STANDARD_RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
RESIDUE_LETTERS = _STANDARD_RESIDUES + "XBUZO"
"""Residue codes: the 20 standard ones, unknown, two ambiguous and two rare ones."""

_NO_TOKEN = 255


@dataclass(frozen=True)
class EncodedSequences:
    """Token ids of some sequences, one after the other.

    Parameters
    ----------
    tokens : numpy.ndarray
        Integer ids ``[T]``, special tokens included.
    lengths : numpy.ndarray
        int64 ``[N]``: tokens of each sequence, summing to T.
    truncated : int
        Sequences that were longer than the limit and were truncated.
    unknown : int
        Tokens of residues or bases without a token of their own; 0 if each must have one.
    """

    tokens: npt.NDArray[np.integer]
    lengths: npt.NDArray[np.int64]
    truncated: int
    unknown: int = 0


class Tokenizer(Protocol):
    """Turns sequences into the token ids of a model."""

    def encode(self, names: Sequence[str], sequences: Sequence[bytes], limit: int) -> EncodedSequences:
        """Token ids of all sequences, each cut after ``limit`` residues or bases; names are for error messages."""
        ...

    def digest(self) -> str:
        """sha256 (hex) of everything that decides its ids."""
        ...


class ResidueTokenizer:
    """Turns protein sequences into the token ids of an ESM-2 checkpoint.

    Each sequence becomes ``<cls>``, its residues and ``<eos>``. Lower case counts as upper case.

    Parameters
    ----------
    vocabulary : sequence of str
        Tokens in the order of their ids.
    source : str
        Where the vocabulary comes from, for error messages.

    Raises
    ------
    ModelError
        If a token that every protein needs is missing, a duplicate, or has an id above 254.
    """

    def __init__(self, vocabulary: Sequence[str] = ESM_VOCABULARY, source: str = "ESM-2 vocabulary") -> None:
        ids = _checked_ids(vocabulary, source)
        self.vocabulary = tuple(vocabulary)
        self.letters = "".join(letter for letter in RESIDUE_LETTERS if letter in ids)
        self._table = _look_up_table(ids, self.letters)
        self._start = bytes([ids["<cls>"]])
        self._end = bytes([ids["<eos>"]])

    @classmethod
    def from_file(cls, vocab_txt: Path) -> ResidueTokenizer:
        """Read a ``vocab.txt``: one token per line, the line number being the id.

        Parameters
        ----------
        vocab_txt : Path
            The file.

        Returns
        -------
        ResidueTokenizer
            With that vocabulary.

        Raises
        ------
        ModelError
            If the file cannot be read as UTF-8 text, or as the class says.
        """
        try:
            text = (
                read_input(vocab_txt, ModelError).removeprefix(codecs.BOM_UTF8).decode().replace("\r\n", "\n")
            )
        except UnicodeDecodeError as error:
            raise ModelError(
                f"{vocab_txt}: the vocabulary cannot be read ({reason_of(error)}); fetch the model again"
            ) from error
        return cls([line.strip() for line in text.rstrip().split("\n")], str(vocab_txt))

    def digest(self) -> str:
        """sha256 (hex) of the vocabulary, one token per line."""
        return hashlib.sha256("\n".join(self.vocabulary).encode()).hexdigest()

    def encode(self, names: Sequence[str], sequences: Sequence[bytes], limit: int) -> EncodedSequences:
        """Token ids of sequences, in their order.

        Parameters
        ----------
        names : sequence of str
            Record ids, for error messages.
        sequences : sequence of bytes
            Residues, at least one each.
        limit : int
            Residues that are kept of a sequence; a longer one is truncated and counted.

        Returns
        -------
        EncodedSequences
            uint8 ids.

        Raises
        ------
        FastaError
            If a sequence is empty or holds a character without a token, before or after the cut.
        """
        residues = [sequence.translate(self._table) for sequence in sequences]
        framed = self._start + (self._end + self._start).join(ids[:limit] for ids in residues) + self._end
        if not all(residues) or any(_NO_TOKEN in ids for ids in residues):
            raise self._refusal(names, sequences, residues)
        lengths = np.fromiter((len(ids) for ids in residues), np.int64, len(residues))
        tokens = np.frombuffer(framed if residues else b"", np.uint8)
        return EncodedSequences(tokens, np.minimum(lengths, limit) + 2, int((lengths > limit).sum()))

    def _refusal(
        self, names: Sequence[str], sequences: Sequence[bytes], residues: Sequence[bytes]
    ) -> FastaError:
        """Error for the first record that cannot be encoded."""
        row = next(row for row, ids in enumerate(residues) if not ids or _NO_TOKEN in ids)
        if not residues[row]:
            return FastaError(f"record {names[row]!r}: the sequence is empty; remove the record")
        position = residues[row].index(_NO_TOKEN)
        letter = chr(sequences[row][position])
        return FastaError(
            f"record {names[row]!r}: {letter!r} at position {position + 1} is not a residue; allowed are "
            f"{self.letters} in upper or lower case; write X for an unknown residue, or remove the record"
        )


def _checked_ids(vocabulary: Sequence[str], source: str) -> dict[str, int]:
    ids = {token: index for index, token in enumerate(vocabulary)}
    if len(ids) != len(vocabulary):
        twice = next(token for token, index in ids.items() if vocabulary.index(token) != index)
        raise ModelError(f"{source}: token {twice!r} is a duplicate; every token must have one id")
    missing = [token for token in ("<cls>", "<eos>", *_STANDARD_RESIDUES) if token not in ids]
    if missing:
        raise ModelError(
            f"{source}: no token for {', '.join(missing)} among its {len(ids)}; "
            "an ESM-2 vocabulary has <cls>, <eos> and all 20 standard residues: is this another model?"
        )
    highest = max(ids[token] for token in ("<cls>", "<eos>", *RESIDUE_LETTERS) if token in ids)
    if highest >= _NO_TOKEN:
        raise ModelError(f"{source}: a residue has the id {highest}; ids up to {_NO_TOKEN - 1} are supported")
    return ids


def _look_up_table(ids: dict[str, int], letters: str) -> bytes:
    table = bytearray([_NO_TOKEN] * 256)
    for letter in letters:
        table[ord(letter)] = table[ord(letter.lower())] = ids[letter]
    return bytes(table)
