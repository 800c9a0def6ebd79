"""Nucleotides to token ids with the byte-pair encoding of a DNABERT-S checkpoint.

Sequences come from :mod:`nucpro.formats.fasta` as bytes; ids go to :mod:`nucpro.embedding.batches`.
The merges come from the
checkpoint's ``tokenizer.json`` and are applied by the tokenizers library, on all cores and without holding
Python's lock.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from nucpro.errors import FastaError, ModelError, reason_of
from nucpro.models.config import read_json
from nucpro.models.tokens import EncodedSequences

__all__ = ["BASE_LETTERS", "DnaTokenizer"]

BASE_LETTERS = "ACGTURYSWKMBDHVN"
"""Alphabet of nucleotide sequences: the bases, U, and the IUPAC ambiguity codes."""

_ALLOWED = BASE_LETTERS.encode()
_READ_AS = bytes.maketrans(b"U", b"T")
"""RNA is read as DNA: vocabularies have no U."""
_BASES = "ACGT"
_START, _END = "[CLS]", "[SEP]"
_FETCH_AGAIN = "fetch the model again (nucpro fetch-models FOLDER)"


class DnaTokenizer:
    """Turns nucleotide sequences into the token ids of a DNABERT-S checkpoint.

    Each sequence becomes ``[CLS]``, its tokens of one or more bases, and ``[SEP]``. Lower case counts as
    upper case, and U counts as T. A base that the vocabulary lacks (the ambiguity codes, in published
    checkpoints) becomes one unknown token, which is counted.

    Parameters
    ----------
    content : mapping
        What ``tokenizer.json`` holds. Padding and truncation in it are switched off.
    source : str
        Where it comes from, for error messages.

    Raises
    ------
    ModelError
        If the content is no tokenizer of nucleotides with ``[CLS]``, ``[SEP]`` and an unknown token, or one that
        draws tokens at random.

    Attributes
    ----------
    largest_id : int
        Largest token id; the model needs one embedding more.
    """

    def __init__(self, content: Mapping[str, Any], source: str = "tokenizer.json") -> None:
        # Sorted, so that the digest does not depend on who wrote the file.
        settings = json.dumps({**content, "padding": None, "truncation": None}, sort_keys=True)
        self._digest = hashlib.sha256(settings.encode()).hexdigest()
        self._tokenizer = _built(settings, source)
        self._unknown = _unknown_id(self._tokenizer, content["model"], source)
        self._refuse_other_tokens(content, source)
        # Special tokens that a template adds need not be in the vocabulary.
        self.largest_id = max(*self._tokenizer.get_vocab().values(), *self._tokenizer.encode(_BASES).ids)

    @classmethod
    def from_file(cls, tokenizer_json: Path) -> DnaTokenizer:
        """Read a ``tokenizer.json``.

        Parameters
        ----------
        tokenizer_json : Path
            The file.

        Returns
        -------
        DnaTokenizer
            As the file describes it.

        Raises
        ------
        ModelError
            If the file is missing or no JSON, or as the class says.
        """
        return cls(read_json(tokenizer_json), str(tokenizer_json))

    def digest(self) -> str:
        """sha256 (hex) of everything in ``tokenizer.json`` but padding and truncation."""
        return self._digest

    def encode(self, names: Sequence[str], sequences: Sequence[bytes], limit: int) -> EncodedSequences:
        """Token ids of sequences, in their order.

        Parameters
        ----------
        names : sequence of str
            Record ids, for error messages.
        sequences : sequence of bytes
            Bases, at least one each.
        limit : int
            Bases that are kept of a sequence; a longer one is truncated and counted. DNABERT-S has no limit
            of its own, but the cost of attention grows with the square of the tokens: commonly a fifth of the
            bases, and one per base if all are unknown.

        Returns
        -------
        EncodedSequences
            int32 ids, with the number of unknown tokens.

        Raises
        ------
        FastaError
            If a sequence is empty or holds a character that is not a nucleotide, before or after the cut.
        """
        upper = [sequence.upper().translate(_READ_AS) for sequence in sequences]
        if not all(upper) or b"".join(upper).translate(None, _ALLOWED):
            raise _refusal(names, sequences)
        texts = [sequence[:limit].decode("ascii") for sequence in upper]
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        tokens: npt.NDArray[np.int32] = np.fromiter(
            itertools.chain.from_iterable(ids), np.int32, int(lengths.sum())
        )
        truncated = sum(len(sequence) > limit for sequence in sequences)
        return EncodedSequences(tokens, lengths, truncated, int((tokens == self._unknown).sum()))

    def _refuse_other_tokens(self, content: Mapping[str, Any], source: str) -> None:
        """Encode the four bases, to see whether the tokens are those of a DNABERT-S."""
        if missing := _undefined(content.get("post_processor")):
            raise ModelError(
                f"{source}: {missing[0]!r} is in its template, but not defined there; {_FETCH_AGAIN}"
            )
        tokens = self._tokenizer.encode(_BASES).tokens
        if [*tokens[:1], "".join(tokens[1:-1]), *tokens[-1:]] != [_START, _BASES, _END]:
            raise ModelError(
                f"{source}: {_BASES} becomes {' '.join(tokens) or 'nothing'}; DNABERT-S makes {_START}, tokens that "
                f"spell the sequence, and {_END}: is this another model? If not, {_FETCH_AGAIN}"
            )


def _built(settings: str, source: str) -> Tokenizer:
    try:
        return Tokenizer.from_str(settings)
    # The library has no error class of its own: it raises Exception itself.
    except Exception as error:
        raise ModelError(
            f"{source}: no tokenizer that the tokenizers library can build ({reason_of(error)}); {_FETCH_AGAIN}"
        ) from error


def _undefined(processor: Any) -> list[str]:
    """Special tokens that a template adds and does not define: the library panics at them."""
    if not isinstance(processor, dict):
        return []
    named = [piece["SpecialToken"]["id"] for piece in processor.get("single", ()) if "SpecialToken" in piece]
    undefined = [name for name in named if name not in processor.get("special_tokens", ())]
    return undefined + [name for part in processor.get("processors", ()) for name in _undefined(part)]


def _unknown_id(tokenizer: Tokenizer, model: Mapping[str, Any], source: str) -> int:
    unknown = model.get("unk_token")
    if model.get("dropout"):
        raise ModelError(
            f"{source}: dropout is {model['dropout']}, which draws tokens at random; set it to null, as in "
            "published checkpoints"
        )
    number = tokenizer.token_to_id(unknown) if unknown else None
    if number is None:
        raise ModelError(
            f"{source}: the unknown token is {unknown!r} and has no id, so bases without a token would be lost; "
            f"{_FETCH_AGAIN}"
        )
    return int(number)


def _refusal(names: Sequence[str], sequences: Sequence[bytes]) -> FastaError:
    """Error for the first record that cannot be encoded."""
    foreign = [sequence.upper().translate(None, _ALLOWED) for sequence in sequences]
    row = next(row for row, sequence in enumerate(sequences) if not sequence or foreign[row])
    if not sequences[row]:
        return FastaError(f"record {names[row]!r}: the sequence is empty; remove the record")
    position = sequences[row].upper().index(foreign[row][:1])
    letter = chr(sequences[row][position])
    return FastaError(
        f"record {names[row]!r}: {letter!r} at position {position + 1} is not a nucleotide; allowed are "
        f"{BASE_LETTERS} in upper or lower case; write N for an unknown base, or remove the record"
    )
