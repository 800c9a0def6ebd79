"""The functions that VirNucPro scripts import from ``units``, on top of the package nucpro.

Names and signatures are those that existing scripts use; nothing is implemented here. torch and the
encoders are imported when a function needs them, so that worker processes stay light.
"""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import nucpro
except ModuleNotFoundError:  # a clone that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))
    import nucpro

from nucpro import formats as store
from nucpro.errors import DimensionError, UsageError
from nucpro.extraction import merging as merge
from nucpro.extraction.plan import current_vectors
from nucpro.folder.paths import CLASS_NAMES
from nucpro.formats import VectorFile, fasta
from nucpro.formats.sequences import ALPHABETS, MAX_RESIDUES, SequenceType
from nucpro.formats.sequences import DNA_WIDTH as DNA_DIM
from nucpro.formats.sequences import MERGED_WIDTH as MERGED_DIM
from nucpro.formats.sequences import PROTEIN_WIDTH as PROTEIN_DIM
from nucpro.options import SEQUENCES_PER_FILE, Options
from nucpro.state.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from nucpro.embedding.encoder import FastaEncoder
    from nucpro.embedding.identification import Identified

__all__ = [
    "CHECKPOINT_VERSION",
    "DNA_DIM",
    "MERGED_DIM",
    "PROTEIN_DIM",
    "VALIDATE_DIMS",
    "DimensionError",
    "as_encoder",
    "extract_DNABERT_S",
    "extract_fast_esm",
    "merge_data",
    "nucpro",
    "recipe_of",
    "split_fasta_chunk",
    "split_fasta_file",
    "validate_embeddings",
    "validate_merge_inputs",
    "validate_merged_output",
    "validate_protein_embeddings",
]

logger = logging.getLogger("nucpro.units")

CHECKPOINT_VERSION = "2.0.0"
"""What training scripts write into their own checkpoints: 2 for rows of 2048 columns, 1 for those of ESM-2 3B."""
VALIDATE_DIMS = True
"""Widths are always checked: there is no switch that turns it off."""

_encoders: weakref.WeakKeyDictionary[Any, FastaEncoder] = weakref.WeakKeyDictionary()


def extract_fast_esm(
    fasta_file: str | Path,
    out_file: str | Path | None = None,
    model: Any = None,
    tokenizer: Any = None,
    truncation_seq_length: int = MAX_RESIDUES,
    toks_per_batch: int | None = None,
    *,
    replace: bool = False,
) -> tuple[list[str], list[torch.Tensor]]:
    """Embed the proteins of a FASTA file, and write them to a file where one is named.

    An ``out_file`` whose metadata match this FASTA, model and length is read and returned, and nothing is
    computed; any other is recomputed, and the reason is logged.

    Parameters
    ----------
    fasta_file : str or Path
        Protein FASTA.
    out_file : str or Path, optional
        ``_ESM.pt`` file to write.
    model : optional
        What :func:`nucpro.embedding.encoder.load` returns, or an ESM-2 model object of transformers
        (``AutoModel.from_pretrained(...)``); by default FastESM2_650 on the GPU, loaded when it is first needed.
    tokenizer : optional
        Tokenizer of such a model object; its vocabulary is used.
    truncation_seq_length : int
        Residues at which a sequence is truncated.
    toks_per_batch : int, optional
        Token budget of a batch; by default that of the device.
    replace : bool
        Make ``out_file`` without checking for an existing one.

    Returns
    -------
    proteins : list of str
        Ids in FASTA order.
    data : list of torch.Tensor
        float32 ``[width]``, one per record.

    Raises
    ------
    FastaError, ModelError, ExtractionError, StoreError
        See :meth:`nucpro.embedding.encoder.FastaEncoder.extract`.
    """
    import torch  # noqa: PLC0415

    path, output = Path(fasta_file), None if out_file is None else Path(out_file)
    if output is not None and output.exists() and not replace:
        found = _current(path, output, recipe_of(model, tokenizer).cut_at(truncation_seq_length))
        if found is not None:
            # A copy: what was read belongs to the file's bytes, and callers may change what they get.
            return list(found.ids), list(torch.from_numpy(found.vectors.copy()).unbind(0))
    encoder = as_encoder(model, tokenizer).limited(truncation_seq_length, toks_per_batch)
    vectors = encoder.embed(fasta.read(path)) if output is None else encoder.extract(path, output)
    return list(vectors.names), list(torch.from_numpy(vectors.matrix).unbind(0))


def extract_DNABERT_S(  # noqa: N802 - the name that existing scripts use
    input_file: str | Path,
    out_file: str | Path,
    model_loaded: bool = False,
    tokenizer: Any = None,
    model: Any = None,
) -> None:
    """Embed the nucleotides of a FASTA file; a current file is left as it is.

    Parameters
    ----------
    input_file, out_file : str or Path
        Nucleotide FASTA, and the ``_DNABERT_S.pt`` file to write.
    model_loaded : bool
        Whether a model is given.
    tokenizer
        Must be None: an encoder has its own.
    model : optional
        What :func:`nucpro.embedding.encoder.load` returns for DNA; by default DNABERT-S on the GPU.

    Raises
    ------
    FastaError, ModelError, ExtractionError, StoreError
        See :meth:`nucpro.embedding.encoder.FastaEncoder.extract`.
    UsageError
        Another model object is given. DNABERT-S objects of transformers run code from the hub, which nucpro
        never does.
    """
    if model_loaded != (model is not None):
        raise UsageError(f"model_loaded is {model_loaded}, but model is {model!r}; give both or none")
    if tokenizer is not None:
        raise UsageError("extract_DNABERT_S takes no tokenizer: leave model_loaded, tokenizer and model out")
    path, output = Path(input_file), Path(out_file)
    if (
        not output.exists()
        or _current(path, output, recipe_of(model, sequence_type=SequenceType.DNA)) is None
    ):
        as_encoder(model, sequence_type=SequenceType.DNA).extract(path, output)


def _current(path: Path, output: Path, recipe: Recipe) -> VectorFile | None:
    """Existing vectors, if they are current for a FASTA; else the reason is logged."""
    found = current_vectors(output, recipe, fasta.inspect(path, ALPHABETS[SequenceType(recipe.kind)]))
    if isinstance(found, str):
        logger.info("%s", found)
        return None
    return found


def as_encoder(
    model: Any = None, tokenizer: Any = None, sequence_type: SequenceType = SequenceType.PROTEIN
) -> FastaEncoder:
    """Turn what scripts pass as a model into an encoder of nucpro; a model object is converted once.

    Parameters
    ----------
    model : object, optional
        Model object of transformers, an encoder of nucpro, or a hub id or folder; by default the published model.
    tokenizer : object, optional
        Tokenizer of the model object.
    sequence_type : SequenceType
        DNA or protein.

    Returns
    -------
    FastaEncoder
        The encoder.

    Raises
    ------
    ModelError
        The object is not an ESM-2.
    UsageError
        It does not read this sequence type.
    """
    from nucpro.embedding import encoder as encoders  # noqa: PLC0415

    if model is None:
        return _default_encoder(Options(), sequence_type)
    if isinstance(model, encoders.FastaEncoder):
        if model.sequence_type is not sequence_type:
            raise UsageError(
                f"the model reads {model.sequence_type} sequences, but {sequence_type} sequences are to be encoded"
            )
        return model
    if sequence_type is SequenceType.DNA:
        raise UsageError(
            f"a {type(model).__name__} cannot be used as DNABERT-S: such objects run code from the hub; "
            "leave model_loaded, tokenizer and model out"
        )
    if model not in _encoders:
        _encoders[model] = encoders.of_huggingface(model, tokenizer)
    return _encoders[model]


def recipe_of(
    model: Any = None, tokenizer: Any = None, sequence_type: SequenceType = SequenceType.PROTEIN
) -> Recipe:
    """Recipe of the vectors of a model passed by a script; the default model is not loaded for that.

    Parameters
    ----------
    model : object, optional
        Model object of transformers, an encoder of nucpro, or a hub id or folder; by default the published model.
    tokenizer : object, optional
        Tokenizer of the model object.
    sequence_type : SequenceType
        DNA or protein.

    Returns
    -------
    Recipe
        What the ``meta`` of such vectors records.
    """
    return (
        _default_model(Options(), sequence_type).recipe
        if model is None
        else as_encoder(model, tokenizer, sequence_type).recipe
    )


@cache
def _default_model(options: Options, sequence_type: SequenceType) -> Identified:
    from nucpro.embedding import encoder as encoders  # noqa: PLC0415

    return encoders.identify(options, sequence_type)


@cache
def _default_encoder(options: Options, sequence_type: SequenceType) -> FastaEncoder:
    from nucpro.embedding import encoder as encoders  # noqa: PLC0415

    return encoders.load(_default_model(options, sequence_type), options)


def merge_data(
    DNABERT_S_data: str | Path,  # noqa: N803 - the name that existing scripts use
    ESM_data: str | Path,  # noqa: N803
    merged_file: str | Path,
    data_type: str | None = None,
    *,
    protein_dim: int = PROTEIN_DIM,
) -> None:
    """Merge a ``_DNABERT_S.pt`` and an ``_ESM.pt`` file, row by row matched by id.

    Parameters
    ----------
    DNABERT_S_data, ESM_data, merged_file : str or Path
        Both sources and the file to write.
    data_type : {'viral', 'host'}, optional
        The class; without it the file has no ``labels``, as files for prediction, and is not training data.
    protein_dim : int
        Required columns of the protein vectors.

    Raises
    ------
    MergeError, DimensionError, StoreError
        See :func:`nucpro.extraction.merging.merge`.
    UsageError
        The class is unknown.
    """
    if data_type not in {None, *CLASS_NAMES}:
        raise UsageError(f"data_type is {data_type!r}; allowed: {', '.join(CLASS_NAMES)} or None")
    merge.merge(Path(DNABERT_S_data), Path(ESM_data), Path(merged_file), data_type, protein_dim)


def validate_protein_embeddings(proteins: Sequence[str], data: Sequence[Any]) -> None:
    """Raise where a protein vector does not have 1280 values.

    Parameters
    ----------
    proteins : sequence of str
        Ids.
    data : sequence of array
        A vector per id.

    Raises
    ------
    DimensionError
        Names the protein, what was expected and what was found.
    UsageError
        The numbers of names and vectors differ.
    """
    if len(proteins) != len(data):
        raise UsageError(f"{len(proteins)} names for {len(data)} vectors; each vector needs one name")
    for protein, tensor in zip(proteins, data, strict=True):
        _require_width(tensor, PROTEIN_DIM, "width of the protein vector", protein)


def validate_embeddings(
    proteins: Sequence[str], data: Sequence[Any], expected_dim: int | None = None
) -> list[str]:
    """List protein vectors of another width than expected (1280 by default), or with NaN or infinite values.

    Parameters
    ----------
    proteins : sequence of str
        Ids.
    data : sequence of array
        A vector per id.
    expected_dim : int, optional
        Width of the vectors; 1280 by default.

    Returns
    -------
    list of str
        One line per vector with a problem.
    """
    problems = []
    for protein, tensor in zip(proteins, data, strict=True):
        try:
            _require_width(tensor, expected_dim or PROTEIN_DIM, "width of the protein vector", protein)
        except DimensionError as error:
            problems.append(str(error))
        bad = int((~tensor.isfinite()).sum())
        if bad:
            problems.append(f"{protein}: {bad} of {tensor.numel()} values are NaN or infinite")
    return problems


def validate_merge_inputs(nucleotide_tensor: Any, protein_tensor: Any, seq_id: str) -> None:
    """Raise where one of the two vectors of a sequence has the wrong width.

    Parameters
    ----------
    nucleotide_tensor : tensor or array
        DNA vector, 768 values.
    protein_tensor : tensor or array
        Protein vector, 1280 values.
    seq_id : str
        Id, for the message.

    Raises
    ------
    DimensionError
        Names the sequence, what was expected and what was found.
    """
    _require_width(nucleotide_tensor, DNA_DIM, "width of the DNA vector", seq_id)
    _require_width(protein_tensor, PROTEIN_DIM, "width of the protein vector", seq_id)


def validate_merged_output(merged_tensor: Any, seq_id: str = "merged rows") -> None:
    """Raise where merged rows do not have 2048 columns.

    Parameters
    ----------
    merged_tensor : tensor or array
        Rows, shape ``[N, 2048]`` or ``[2048]``.
    seq_id : str
        Name of the rows, for the message.

    Raises
    ------
    DimensionError
        Names the rows, what was expected and what was found.
    """
    if merged_tensor.shape[-1] != MERGED_DIM:
        raise DimensionError(MERGED_DIM, merged_tensor.shape[-1], "columns", seq_id)


def _require_width(tensor: Any, width: int, what: str, name: str) -> None:
    shape = tuple(tensor.shape)
    if shape != (width,):
        raise DimensionError(width, shape[0] if len(shape) == 1 else shape, what, name)


def split_fasta_file(
    input_file: str | Path, output_dir: str | Path, sequences_per_file: int = SEQUENCES_PER_FILE
) -> int:
    """Split a FASTA file into ``output_1.fa``, ``output_2.fa``, …; returns how many were written.

    Parameters
    ----------
    input_file : str or Path
        FASTA file.
    output_dir : str or Path
        Folder for the files.
    sequences_per_file : int
        Records per file.

    Returns
    -------
    int
        Number of files.
    """
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    return fasta.split(Path(input_file), Path(output_dir), sequences_per_file)


def split_fasta_chunk(input_file: str | Path, output_file: str | Path, chunk_size: int) -> None:
    """Cut sequences into chunks of at most ``chunk_size`` bases, called ``ID_chunk_1``, ``ID_chunk_2``, ….

    Parameters
    ----------
    input_file : str or Path
        FASTA file.
    output_file : str or Path
        FASTA file to write.
    chunk_size : int
        Maximum length of a chunk, in bases.
    """
    from nucpro.genomes.frames import chunks_of  # noqa: PLC0415

    records = fasta.read(Path(input_file))
    with store.replace_file(Path(output_file)) as output:
        for name, sequence in zip(records.ids, records.sequences, strict=True):
            chunks = chunks_of(len(sequence), chunk_size)
            for number, start, end in zip(chunks.numbers, chunks.starts, chunks.ends, strict=True):
                output.write(b">%b_chunk_%d\n%b\n" % (name.encode(), number + 1, sequence[start:end]))
